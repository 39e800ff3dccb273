/* spin.c: what halt polling does for virtual machines, with two rules. By luck: a wait that looking
 * would have ended counts one up, another one down, whether it was looked or not. By crowd: who
 * offers the CPU between two looks and gets it back late was not alone; then it sleeps, since a
 * sleeper is given the CPU sooner than one who had just used it, and the longer the more often.
 *
 * Deliberately not here: the looking, and the yielding. */
#include "ranker/spin.h"

enum {
    LUCK_MAX = 8,
    LUCK_MIN = 4,    /* to look */
    LATE_US = 60,    /* a caller on the same CPU may take so long */
    MUCH_US = 300,   /* ... and no caller so long */
    WAKE_US = 60,    /* a wake-up, by which a wait that sleeps is longer */
    PAUSE_US = 1000, /* the first */
    LONGER = 8,
    PAUSE_MAX_US = 1000 * 1000
};

void rk_spin_init(struct rk_spin *s, int64_t most_us) {
    *s = (struct rk_spin){.most_us = most_us, .pause_us = PAUSE_US, .luck = LUCK_MAX};
}

/* The next pause is longer when the crowd is still there after one. */
static void pause_now(struct rk_spin *s, int64_t now_us) {
    const bool soon = s->from_us - s->again_us < s->pause_us;
    s->pause_us = !soon                                 ? PAUSE_US
                  : LONGER * s->pause_us < PAUSE_MAX_US ? LONGER * s->pause_us
                                                        : PAUSE_MAX_US;
    s->again_us = now_us + s->pause_us;
}

bool rk_spin_begin(struct rk_spin *s, int64_t now_us, bool may) {
    s->from_us = s->looked_us = now_us;
    s->looking = may && s->most_us > 0 && s->luck >= LUCK_MIN && now_us >= s->again_us;
    return s->looking;
}

bool rk_spin_again(struct rk_spin *s, int64_t now_us) {
    const bool crowded = now_us - s->looked_us > LATE_US;
    s->looked_us = now_us;
    s->looking = !crowded && now_us - s->from_us < s->most_us;
    if (crowded)
        pause_now(s, now_us);
    return s->looking;
}

void rk_spin_end(struct rk_spin *s, int64_t now_us) {
    if (s->looking && now_us - s->looked_us > MUCH_US)
        pause_now(s, now_us);
    if (now_us - s->from_us <= s->most_us + WAKE_US)
        s->luck += s->luck < LUCK_MAX;
    else
        s->luck -= s->luck > 0;
    s->looking = false;
}
