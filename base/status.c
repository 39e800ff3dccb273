/* status.c: the thread's last failure, as a code and one message.
 *
 * The message is a fixed thread-local buffer: failing must not allocate, and a message longer than
 * the buffer is worth less than its beginning. Deliberately no stack of causes: fail_in() puts
 * places in front, and that is all the context a reader needs. */
#include "base/status.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { MESSAGE_BYTES = 1024 };
static _Thread_local char message[MESSAGE_BYTES];

/* Through a second buffer, because the arguments may point into the message itself. */
enum status fail(enum status code, const char *format, ...) {
    char text[MESSAGE_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    memcpy(message, text, strlen(text) + 1);
    return code;
}

enum status fail_in(enum status code, const char *place_format, ...) {
    if (code == STATUS_OK)
        return code;
    char place[MESSAGE_BYTES], text[2 * MESSAGE_BYTES + 2];
    va_list args;
    va_start(args, place_format);
    vsnprintf(place, sizeof place, place_format, args);
    va_end(args);
    snprintf(text, sizeof text, "%s: %s", place, message);
    text[MESSAGE_BYTES - 1] = '\0';
    memcpy(message, text, strlen(text) + 1);
    return code;
}

const char *status_message(void) { return message; }

const char *status_word(enum status code) {
    switch (code) {
#define X(name, number, word)                                                                      \
    case STATUS_##name:                                                                            \
        return word;
        STATUS_LIST(X)
#undef X
    }
    return "no such status";
}

int status_exit_code(enum status code) {
    switch (code) {
    case STATUS_OK:
        return 0;
    case STATUS_INVALID_ARGUMENT:
        return 2;
    case STATUS_NOT_FOUND:
        return 3;
    case STATUS_UNAVAILABLE:
    case STATUS_DEADLINE_EXCEEDED:
        return 4;
    default:
        return 1;
    }
}
