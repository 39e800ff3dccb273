/* clock.c: the only calls of clock_gettime in the tree. */
#include "base/clock.h"
#include <errno.h>
#include <time.h>

static struct timespec now(clockid_t id) {
    struct timespec t;
    clock_gettime(id, &t);
    return t;
}

static int64_t ns_of(struct timespec t) { return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec; }

int64_t clock_wall_us(void) { return ns_of(now(CLOCK_REALTIME)) / 1000; }
int64_t clock_mono_us(void) { return ns_of(now(CLOCK_MONOTONIC)) / 1000; }
int64_t clock_mono_ns(void) { return ns_of(now(CLOCK_MONOTONIC)); }
double clock_cpu_s(void) { return (double)ns_of(now(CLOCK_PROCESS_CPUTIME_ID)) * 1e-9; }

int64_t clock_thread_ns(void) { return ns_of(now(CLOCK_THREAD_CPUTIME_ID)); }

void clock_sleep_ms(int ms) {
    struct timespec left = {ms / 1000, (long)(ms % 1000) * 1000000};
    while (ms > 0 && nanosleep(&left, &left) != 0 && errno == EINTR)
        ;
}
