/* ranker_lab.h: a small world for tests of ranker: 6 users, 40 items, 600 ratings, their state, and
 * a model trained on them in a blink. Header only, so that a test program stays one file. */
#pragma once
#include <stdio.h>
#include "base/rng.h"
#include "ranker/config.h"
#include "ranker/labels.h"
#include "ranker/rank.h"
#include "tests/support/suite.h"

#define LAB_START  (INT64_C(1700000000) * 1000000)
#define LAB_EVENTS 600
#define LAB_ITEMS  40
#define LAB_NOW    (LAB_START + INT64_C(3600) * 1000000)

/* A column of the request. A test may define it away: without, all candidate columns are items'. */
#ifndef LAB_CROSS
#define LAB_CROSS "  - {name: score, kind: number, source: candidate.score}\n"
#endif

static const char lab_yaml[] =
    "features:\n"
    "  - {name: active, kind: count, scope: user, on: rating, scale: log}\n"
    "  - {name: hour, kind: number, source: context.hour}\n"
    "  - {name: item, kind: category, source: item.id, hash: 64, embed: 4, table: item}\n"
    "  - {name: liked, kind: rate, scope: item, top: rating where value >= 4, bottom: rating,"
    " prior_weight: 5}\n"
    "  - {name: rated, kind: last_n, on: rating, n: 5, embed: true, table: item}\n" LAB_CROSS
    "examples: {from: rating}\n"
    "tasks:\n"
    "  - {name: like, positive: rating where value >= 4}\n"
    "  - {name: love, positive: rating where value >= 5}\n"
    "model:\n"
    "  layers:\n"
    "    - {kind: cgc, shared: 2, own: 1, expert: {kind: mlp, hidden: [8], out: 4}, gate: {kind: softmax}}\n"
    "  tower: {hidden: []}\n"
    "train: {epochs: 2, batch_rows: 64, threads: 1}\n"
    "score: {like: 1, love: 0.5}\n"
    "nearline: {list_n: 8}\n";

struct lab {
    struct rk_config *conf;
    struct feat_state *state;
    struct rk_bundle *bundle;
    struct slice items[LAB_ITEMS];
    char names[LAB_ITEMS][16];
};

static inline int lab_item(int i) { return (i * 7 + i / LAB_ITEMS) % LAB_ITEMS; }

/* Rating number i: who, what and how much follow from the number. */
static inline struct ev_event lab_event(const struct lab *l, int i, struct ev_field *value,
                                        char *id, const char *user) {
    snprintf(id, 16, "e%d", i);
    *value = (struct ev_field){SLICE_LIT("value"),
                               {.type = EV_NUMBER, .number = 1 + (i * 7 + i / 11) % 5}};
    return (struct ev_event){.kind = EV_INTERACTION,
                             .id = slice_of(id),
                             .event_time_us = LAB_START + i * INT64_C(1000000),
                             .user = slice_of(user),
                             .item = l->items[lab_item(i)],
                             .type = SLICE_LIT("rating"),
                             .fields = value,
                             .n_fields = 1,
                             .source = {0, i}};
}

static const char *const lab_users[] = {"u0", "u1", "u2", "u3", "u4", "u5"};

static inline enum status lab_train(const struct rk_config *c, const struct rk_tasks *tasks,
                                    const struct moe_examples *x, struct moe_model **out) {
    struct arena a;
    struct moe_train_report report;
    arena_init(&a, 0);
    enum status status = moe_train(node_get(c->root, "model"), c->file, tasks->specs, x, &c->train,
                                   1, &a, &report, out);
    arena_deinit(&a);
    return status;
}

/* `sets`: settings beside lab_yaml; may be NULL. The model is `bundle`, with one reference. */
static inline bool lab_init(struct lab *l, const char *const *sets, int n_sets) {
    struct rk_tasks tasks;
    struct moe_inputs inputs;
    struct moe_model *model = NULL;
    *l = (struct lab){0};
    for (int i = 0; i < LAB_ITEMS; i++) {
        snprintf(l->names[i], sizeof l->names[i], "i%d", i);
        l->items[i] = slice_of(l->names[i]);
    }
    if (!CHECK_OK(rk_config_parse(slice_of(lab_yaml), "lab.yaml", sets, n_sets, &l->conf)) ||
        !CHECK_OK(rk_tasks_read(l->conf->root, "lab.yaml", &l->conf->arena, &tasks)))
        return false;
    rk_inputs_from_plan(l->conf->plan, &l->conf->arena, &inputs);
    l->state = feat_state_new(l->conf->plan);
    struct rk_labels *labels = rk_labels_new(&tasks, l->state, &inputs, 1);
    for (int i = 0; i < LAB_EVENTS; i++) {
        struct ev_field value;
        char id[16];
        struct ev_event e = lab_event(l, i, &value, id, lab_users[i % 6]);
        rk_labels_event(labels, &e);
        feat_state_apply(l->state, &e, 1, NULL);
    }
    struct moe_examples *x = rk_labels_finish(labels);
    rk_labels_free(labels);
    bool ok = CHECK_OK(lab_train(l->conf, &tasks, x, &model));
    moe_examples_free(x);
    if (ok)
        moe_model_meta_set(model, "plan", l->conf->plan->json);
    return ok && CHECK_OK(rk_bundle_new(model, "lab", l->conf->plan, l->conf, &l->bundle));
}

static inline void lab_deinit(struct lab *l) {
    rk_bundle_release(l->bundle);
    feat_state_free(l->state);
    rk_config_free(l->conf);
}

static inline struct rpc_rank_request lab_request(const struct lab *l) {
    return (struct rpc_rank_request){.request_id = SLICE_LIT("r"),
                                     .user = SLICE_LIT("u1"),
                                     .items = l->items,
                                     .n_items = LAB_ITEMS,
                                     .now_us = LAB_NOW};
}
