/* synth_rating.c: a visit in which a user rates some items, one after another. An item is rated at
 * most once in a visit; a later visit may rate it again, since nothing is remembered. */
#include <stdio.h>
#include "tools/synth_parts.h"

static enum status push_rating(struct synth *s, const char *user, const char *item, int stars,
                               int64_t time_us) {
    char id[32];
    struct ev_field value = synth_number("value", stars);
    struct ev_event e = {.kind = EV_INTERACTION,
                         .event_time_us = time_us,
                         .user = slice_of(user),
                         .item = slice_of(item),
                         .type = SLICE_LIT("rating"),
                         .fields = &value,
                         .n_fields = 1};
    e.id = synth_name(id, sizeof id, 'e', (int64_t)s->n_made);
    return synth_push(s, &e, true);
}

/* An item that is not among the first `n` of this visit. */
static int64_t fresh_item(struct synth *s, int n) {
    int64_t item = world_draw_item(&s->world, &s->rng);
    for (int k = 0; k < n; k++)
        if (s->items[k] == item)
            item = (item + 1) % s->conf.world.items, k = -1;
    s->items[n] = item;
    return item;
}

enum status synth_rating(struct synth *s, int64_t time_us) {
    char user_name[24], item_name[24];
    int64_t user = world_draw_user(&s->world, &s->rng);
    struct world_user u;
    world_user(&s->world, user, &u);
    struct world_moment moment = world_moment(&s->world, user, time_us);
    synth_name(user_name, sizeof user_name, 'u', user);
    int n = 1 + (int)rng_below(&s->rng, (uint32_t)(2 * s->conf.slate - 1)); /* mean: the slate */
    n = n < (int)s->conf.world.items ? n : (int)s->conf.world.items;
    for (int k = 0; k < n; k++) {
        struct world_item i;
        int64_t item = fresh_item(s, k);
        world_item(&s->world, item, &i);
        double liking = world_liking(&s->world, &u, &i, moment);
        int stars = world_rating(liking, &s->rng);
        truth_auc_add(&s->auc[SYNTH_AUC_LIKE], world_at_least(liking, 4), stars >= 4);
        truth_auc_add(&s->auc[SYNTH_AUC_LOVE], world_at_least(liking, 5), stars >= 5);
        synth_name(item_name, sizeof item_name, 'i', item);
        TRY(push_rating(s, user_name, item_name, stars, time_us));
        time_us += 1000000 + (int64_t)rng_below(&s->rng, 30000000);
    }
    return STATUS_OK;
}
