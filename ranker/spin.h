/* spin.h: whether to look for the next thing for a moment before sleeping. To be woken up costs
 * tens of microseconds; to look costs CPU time. So it is done only while what is waited for mostly
 * comes in that time, and not for a while after somebody else wanted the CPU. No clock is read
 * here. One thread. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct rk_spin {
    int64_t most_us;            /* of one wait; 0: never */
    int64_t from_us, looked_us; /* the wait under way, and when it was looked last */
    int64_t again_us, pause_us; /* not before again_us; what the next pause will be */
    int luck;                   /* how often it came soon, of late */
    bool looking;
};
void rk_spin_init(struct rk_spin *s, int64_t most_us);
/* A wait begins: true: look. `may`: where it is not allowed, the wait still counts for later. */
bool rk_spin_begin(struct rk_spin *s, int64_t now_us, bool may);
/* It was looked in vain: true: once more, after the CPU was offered to others. */
bool rk_spin_again(struct rk_spin *s, int64_t now_us);
/* It came, found by looking or by sleeping. */
void rk_spin_end(struct rk_spin *s, int64_t now_us);
