/* progress.h: one line of progress with rate and time left for long work, on stderr, at most four
 * times a second on a terminal and once in ten seconds elsewhere. */
#pragma once
#include <stdint.h>

struct progress {
    const char *what, *unit;
    int64_t done, total; /* total 0: unknown */
    int64_t started_us, shown_us;
    int quiet;
};
void progress_start(struct progress *p, const char *what, const char *unit, int64_t total,
                    int quiet);
void progress_at(struct progress *p, int64_t done);
void progress_end(struct progress *p); /* prints the closing line: done, seconds, rate */
