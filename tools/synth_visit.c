/* synth_visit.c: a visit of the made-up shop: a ranking, and all interactions that will answer it,
 * each with the time when it happens. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include "base/heap.h"
#include "moe/report/eval.h"
#include "tools/synth_parts.h"

enum { NDCG_AT = 10 };

struct visit {
    int64_t time_us, user;
    struct world_user facts;
    struct world_moment moment;
    char user_name[24], session[48], ranking[32];
    bool clicked[SYNTH_POOL_MAX];
    double click[SYNTH_POOL_MAX]; /* true probabilities, by rank */
};

static void retrieve(struct synth *s, const struct visit *v) {
    int n = (int)s->conf.pool;
    for (int k = 0; k < n; k++) {
        int64_t item = world_draw_item(&s->world, &s->rng);
        for (int j = 0; j < k; j++) /* taken: its neighbour */
            if (s->items[j] == item)
                item = (item + 1) % s->conf.world.items, j = -1;
        s->items[k] = item;
        world_item(&s->world, item, &s->facts[k]);
        s->score[k] = world_policy_score(&s->world, &v->facts, item, &s->facts[k]);
        synth_name(s->names[k], sizeof s->names[k], 'i', item);
    }
    world_policy_draw(&s->world, s->score, n, (int)s->conf.slate, &s->rng, s->scratch, s->shown,
                      s->propensity);
}

static enum status push_ranking(struct synth *s, const struct visit *v) {
    int n = (int)s->conf.slate;
    struct ev_shown *shown = HEAP_ARRAY(struct ev_shown, n);
    struct ev_field *retrieval = HEAP_ARRAY(struct ev_field, n);
    for (int k = 0; k < n; k++) {
        int c = s->shown[k];
        retrieval[k] = synth_number("retrieval", round(1e4 * s->score[c]) / 1e4);
        shown[k] = (struct ev_shown){.item = slice_of(s->names[c]),
                                     .propensity = (float)s->propensity[k],
                                     .fields = &retrieval[k],
                                     .n_fields = 1};
    }
    struct ev_field device = synth_text("device", world_device_words[v->moment.device]);
    struct ev_event e = {.kind = EV_RANKING,
                         .id = slice_of(v->ranking),
                         .event_time_us = v->time_us,
                         .user = slice_of(v->user_name),
                         .session = slice_of(v->session),
                         .fields = &device,
                         .n_fields = 1,
                         .shown = shown,
                         .n_shown = n};
    enum status status = synth_push(s, &e, true);
    heap_free(retrieval);
    heap_free(shown);
    return status;
}

static enum status push_interaction(struct synth *s, const struct visit *v, const char *item,
                                    const char *type, int64_t time_us) {
    char id[32];
    struct ev_event e = {.kind = EV_INTERACTION,
                         .event_time_us = time_us,
                         .user = slice_of(v->user_name),
                         .session = slice_of(v->session),
                         .item = slice_of(item),
                         .type = slice_of(type),
                         .ranking = slice_of(v->ranking)};
    e.id = synth_name(id, sizeof id, 'e', (int64_t)s->n_made);
    return synth_push(s, &e, true);
}

static int64_t seconds_us(struct synth *s, double least, double most) {
    return (int64_t)(1e6 * (least + (most - least) * rng_double(&s->rng)));
}

/* The user goes down the list; what they do with one item follows its truth. */
static enum status answer(struct synth *s, struct visit *v, int rank, int64_t *clock_us) {
    int c = s->shown[rank];
    struct world_truth t = world_truth(&s->world, &v->facts, &s->facts[c], v->moment, rank + 1);
    bool click = rng_double(&s->rng) < t.examined * t.click;
    v->click[rank] = t.click;
    v->clicked[rank] = click;
    truth_auc_add(&s->auc[SYNTH_AUC_CLICK], t.click, click);
    truth_auc_add(&s->auc[SYNTH_AUC_CLICK_PLACE], t.examined * t.click, click);
    *clock_us += seconds_us(s, 0.5, 3);
    if (!click)
        return STATUS_OK;
    bool like = rng_double(&s->rng) < t.like, order = rng_double(&s->rng) < t.order;
    truth_auc_add(&s->auc[SYNTH_AUC_LIKE], t.like, like);
    truth_auc_add(&s->auc[SYNTH_AUC_ORDER], t.order, order);
    TRY(push_interaction(s, v, s->names[c], "click", *clock_us));
    *clock_us += seconds_us(s, 5, 40);
    if (like)
        TRY(push_interaction(s, v, s->names[c], "like", *clock_us));
    if (order)
        TRY(push_interaction(s, v, s->names[c], "order", *clock_us + seconds_us(s, 30, 600)));
    return STATUS_OK;
}

static int by_truth(const void *a, const void *b) {
    const double *x = a, *y = b;
    return x[0] != y[0] ? (x[0] < y[0]) - (x[0] > y[0]) : 0;
}

static void judge(struct synth *s, const struct visit *v) {
    int n = (int)s->conf.slate, n_clicked = 0;
    double pairs[SYNTH_POOL_MAX][2];
    float shown[SYNTH_POOL_MAX], best[SYNTH_POOL_MAX];
    for (int k = 0; k < n; k++) {
        pairs[k][0] = v->click[k];
        pairs[k][1] = shown[k] = v->clicked[k];
        n_clicked += v->clicked[k];
    }
    s->n_shown_total += n;
    s->n_clicked_total += n_clicked;
    if (!n_clicked)
        return;
    qsort(pairs, (size_t)n, sizeof *pairs, by_truth);
    for (int k = 0; k < n; k++)
        best[k] = (float)pairs[k][1];
    s->ndcg_truth += moe_ndcg(best, n, NDCG_AT);
    s->ndcg_shown += moe_ndcg(shown, n, NDCG_AT);
    s->n_ndcg++;
}

enum status synth_visit(struct synth *s, int64_t time_us) {
    struct visit v = {.time_us = time_us};
    v.user = world_draw_user(&s->world, &s->rng);
    world_user(&s->world, v.user, &v.facts);
    v.moment = world_moment(&s->world, v.user, time_us);
    synth_name(v.user_name, sizeof v.user_name, 'u', v.user);
    synth_name(v.ranking, sizeof v.ranking, 'r', s->n_visits++);
    snprintf(v.session, sizeof v.session, "s%lld-%lld", (long long)v.user,
             (long long)(time_us / 1800000000));
    retrieve(s, &v);
    TRY(push_ranking(s, &v));
    int64_t clock_us = time_us;
    for (int rank = 0; rank < s->conf.slate; rank++)
        TRY(answer(s, &v, rank, &clock_us));
    judge(s, &v);
    return STATUS_OK;
}
