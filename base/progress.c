/* progress.c: one line of progress with rate and time left.
 *
 * On a terminal the line is redrawn in place; elsewhere it is a new line now and then, so that a
 * log file stays readable. The rate is the mean since the start: steady, and exact at the end. */
#include "base/progress.h"
#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>
#include "base/clock.h"

static bool on_terminal(void) { return isatty(STDERR_FILENO); }

void progress_start(struct progress *p, const char *what, const char *unit, int64_t total,
                    int quiet) {
    int64_t now_us = clock_mono_us();
    *p = (struct progress){.what = what,
                           .unit = unit,
                           .total = total,
                           .started_us = now_us,
                           .shown_us = now_us,
                           .quiet = quiet};
}

static double rate_of(const struct progress *p, int64_t now_us) {
    double seconds = (double)(now_us - p->started_us) * 1e-6;
    return seconds > 0 ? (double)p->done / seconds : 0;
}

static void show(const struct progress *p, int64_t now_us) {
    bool tty = on_terminal();
    double rate = rate_of(p, now_us);
    char left[48] = "", share[32] = "";
    if (p->total > 0) {
        snprintf(share, sizeof share, " (%.0f %%)", 100.0 * (double)p->done / (double)p->total);
        if (rate > 0 && p->done < p->total)
            snprintf(left, sizeof left, ", %.0f s left", (double)(p->total - p->done) / rate);
    }
    fprintf(stderr, "%s%s: %lld %s%s, %.0f/s%s%s", tty ? "\r\033[K" : "", p->what,
            (long long)p->done, p->unit, share, rate, left, tty ? "" : "\n");
    fflush(stderr);
}

void progress_at(struct progress *p, int64_t done) {
    p->done = done;
    if (p->quiet)
        return;
    int64_t now_us = clock_mono_us();
    int64_t pause_us = on_terminal() ? 250000 : 10000000;
    if (now_us - p->shown_us < pause_us)
        return;
    p->shown_us = now_us;
    show(p, now_us);
}

void progress_end(struct progress *p) {
    if (p->quiet)
        return;
    int64_t now_us = clock_mono_us();
    fprintf(stderr, "%s%s: %lld %s in %.1f s, %.0f/s\n", on_terminal() ? "\r\033[K" : "", p->what,
            (long long)p->done, p->unit, (double)(now_us - p->started_us) * 1e-6,
            rate_of(p, now_us));
}
