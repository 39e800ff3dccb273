/* log.c: one write(2) per line on stderr, as text or JSON.
 *
 * A line is put together in one buffer under one mutex, so lines never mix and a settled process
 * logs without allocating. A line below the level costs one atomic load. Deliberately no files and
 * no rotation: that is the work of whoever started the process. */
#include "base/log.h"
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/node.h"

enum { LINES_PER_SECOND = 10, TEXT_BYTES = 2048 };

static atomic_int level_least = LOG_INFO;
static atomic_int as_json = -1; /* -1: ask the environment */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct buf line; /* under lock */

void log_setup(enum log_level least, int json) {
    atomic_store(&level_least, (int)least);
    atomic_store(&as_json, json != 0);
}

static bool want_json(void) {
    int json = atomic_load_explicit(&as_json, memory_order_relaxed);
    if (json < 0) {
        const char *env = getenv("LOG_JSON");
        json = env && *env && *env != '0';
        atomic_store(&as_json, json);
    }
    return json;
}

/* false when this second's share of the call site is used up; else how many were left out */
static bool admit(struct log_site *site, long long second, int *left_out) {
    if (site->window != second) {
        site->window = second;
        site->seen = 0;
    }
    if (site->seen >= LINES_PER_SECOND) {
        site->left_out++;
        return false;
    }
    site->seen++;
    *left_out = site->left_out;
    site->left_out = 0;
    return true;
}

static void put_json(const char *time, const char *level, const char *area, const char *text,
                     int left_out) {
    struct json j;
    json_begin(&j, &line);
    json_object(&j);
    json_key(&j, "time");
    json_cstr(&j, time);
    json_key(&j, "level");
    json_cstr(&j, level);
    json_key(&j, "area");
    json_cstr(&j, area);
    json_key(&j, "message");
    json_cstr(&j, text);
    if (left_out) {
        json_key(&j, "left_out");
        json_int(&j, left_out);
    }
    json_object_end(&j);
    buf_add_byte(&line, '\n');
}

static void put_text(const char *time, const char *level, const char *area, const char *text,
                     int left_out) {
    buf_printf(&line, "%s %-5s %s: ", time, level, area);
    for (const char *p = text; *p; p++)
        buf_add_byte(&line, (unsigned char)*p < 0x20 ? ' ' : (uint8_t)*p);
    if (left_out)
        buf_printf(&line, " (%d like it left out)", left_out);
    buf_add_byte(&line, '\n');
}

static void stamp(char out[32], int64_t now_us) {
    time_t second = (time_t)(now_us / 1000000);
    struct tm tm;
    gmtime_r(&second, &tm);
    size_t n = strftime(out, 32, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(out + n, 32 - n, ".%03dZ", (int)(now_us / 1000 % 1000));
}

void log_line(struct log_site *site, enum log_level level, const char *area, const char *format,
              ...) {
    static const char *const words[] = {"debug", "info", "warn", "error"};
    if ((int)level < atomic_load_explicit(&level_least, memory_order_relaxed))
        return;
    char text[TEXT_BYTES], time[32];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    int64_t now_us = clock_wall_us();
    stamp(time, now_us);
    bool json = want_json();

    pthread_mutex_lock(&lock);
    int left_out = 0;
    if (admit(site, now_us / 1000000, &left_out)) {
        buf_clear(&line);
        (json ? put_json : put_text)(time, words[level], area, text, left_out);
        ssize_t written = write(STDERR_FILENO, line.p, line.n);
        (void)written; /* nowhere left to complain */
    }
    pthread_mutex_unlock(&lock);
}
