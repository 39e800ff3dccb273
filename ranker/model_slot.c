/* model_slot.c: an atomic pointer and reference counts.
 *
 * Loading the pointer and counting a reference are two steps, and between them the bundle may be
 * let go by its last holder. So the counted struct itself is never freed while the slot lives: only
 * the model in it is, when the count falls to zero, and a count of zero is never raised again: the
 * reader looks at the pointer once more. What stays behind is a few words a swap. */
#include "ranker/model_slot.h"
#include "base/heap.h"

void rk_model_publish(struct rk_model_slot *s, struct rk_bundle *b) {
    if (b) {
        b->next = s->all;
        while (!atomic_compare_exchange_weak(&s->all, &b->next, b))
            ;
        b->published = true;
    }
    struct rk_bundle *before = atomic_exchange(&s->now, b);
    if (before)
        rk_bundle_release(before);
}

struct rk_bundle *rk_model_acquire(struct rk_model_slot *s) {
    for (;;) {
        struct rk_bundle *b = atomic_load(&s->now);
        if (!b)
            return NULL;
        int refs = atomic_load(&b->refs);
        while (refs > 0)
            if (atomic_compare_exchange_weak(&b->refs, &refs, refs + 1))
                return b;
    }
}

void rk_model_slot_deinit(struct rk_model_slot *s) {
    rk_model_publish(s, NULL);
    for (struct rk_bundle *b = s->all, *next; b; b = next) {
        next = b->next;
        heap_free(b);
    }
    atomic_store(&s->all, NULL);
}
