/* clock.h: the only reader of clocks. The core takes `now_us` as an argument; the edges call
 * these. */
#pragma once
#include <stdint.h>

int64_t clock_wall_us(void); /* microseconds since 1970, UTC */
int64_t clock_mono_us(void); /* monotonic, for durations */
int64_t clock_mono_ns(void);
double clock_cpu_s(void);      /* CPU seconds of this process */
int64_t clock_thread_ns(void); /* CPU nanoseconds of this thread */
void clock_sleep_ms(int ms);
