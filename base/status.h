/* status.h: the one way to fail.
 *
 * Programmer errors are asserts. Heap exhaustion aborts (heap.h). Everything the world can do
 * wrong is an `enum status` with gRPC's codes and numbers, returned by the function that saw it
 * with a message that names the place and the remedy:
 *
 *     return fail(STATUS_DATA_LOSS, "%s: %zu bytes missing; fetch the file again", path, n);
 *
 * The message lives in a thread-local buffer until the next fail() of that thread. TRY() passes
 * a failure on untouched; fail_in() puts a place in front of it. It is read once, at the top. */
#pragma once
#include <stddef.h>

/* name, number (gRPC's), the word users see */
#define STATUS_LIST(X)                                                                             \
    X(OK, 0, "ok")                                                                                 \
    X(CANCELLED, 1, "cancelled")                                                                   \
    X(UNKNOWN, 2, "unknown")                                                                       \
    X(INVALID_ARGUMENT, 3, "invalid argument")                                                     \
    X(DEADLINE_EXCEEDED, 4, "deadline exceeded")                                                   \
    X(NOT_FOUND, 5, "not found")                                                                   \
    X(ALREADY_EXISTS, 6, "already exists")                                                         \
    X(PERMISSION_DENIED, 7, "permission denied")                                                   \
    X(RESOURCE_EXHAUSTED, 8, "resource exhausted")                                                 \
    X(FAILED_PRECONDITION, 9, "failed precondition")                                               \
    X(ABORTED, 10, "aborted")                                                                      \
    X(OUT_OF_RANGE, 11, "out of range")                                                            \
    X(UNIMPLEMENTED, 12, "unimplemented")                                                          \
    X(INTERNAL, 13, "internal")                                                                    \
    X(UNAVAILABLE, 14, "unavailable")                                                              \
    X(DATA_LOSS, 15, "data loss")                                                                  \
    X(UNAUTHENTICATED, 16, "unauthenticated")

enum status {
#define X(name, number, word) STATUS_##name = number,
    STATUS_LIST(X)
#undef X
};

/* Stores the message and returns `code`, so that `return fail(...)` reads as one thought. */
enum status fail(enum status code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Puts "<place>: " before the stored message and returns `code` unchanged. STATUS_OK passes. */
enum status fail_in(enum status code, const char *place_format, ...)
    __attribute__((format(printf, 2, 3)));

/* The message of this thread's last failure; "" before the first. Valid until the next fail(). */
const char *status_message(void);
const char *status_word(enum status code);
/* Exit code of a process that ends with `code`: 0 for OK, 2 for bad arguments, 3 for what is
 * missing, 4 for unavailable parts, 1 for the rest. */
int status_exit_code(enum status code);

#define TRY(call)                                                                                  \
    do {                                                                                           \
        enum status try_status_ = (call);                                                          \
        if (try_status_ != STATUS_OK)                                                              \
            return try_status_;                                                                    \
    } while (0)
