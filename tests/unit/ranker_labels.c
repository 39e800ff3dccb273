/* ranker_labels: examples hold what was known just before them, and labels what came of them
 * within the window; sample spaces, sampled negatives, and bounds. */
#include <math.h>
#include <stdio.h>
#include "ranker/config.h"
#include "ranker/labels.h"
#include "tests/support/suite.h"

#define SECOND INT64_C(1000000)
#define START  (INT64_C(1700000000) * SECOND)

/* One candidate column: interactions with the item so far. One query column: of the user. */
static const char plan[] = "features:\n"
                           "  - {name: seen, kind: count, scope: item, on: any}\n"
                           "  - {name: active, kind: count, scope: user, on: any}\n"
                           "  - {name: rank_score, kind: number, source: candidate.score}\n"
                           "  - {name: place, kind: position, serving: 9}\n";

struct lab {
    struct rk_config *conf;
    struct rk_tasks tasks;
    struct moe_inputs inputs;
    struct feat_state *state;
    struct rk_labels *labels;
    int n_events;
};

static bool lab_init(struct lab *l, const char *yaml, uint64_t seed) {
    char text[2048];
    *l = (struct lab){0};
    snprintf(text, sizeof text, "%s%s", plan, yaml);
    if (!CHECK_OK(rk_config_parse(slice_of(text), "l.yaml", NULL, 0, &l->conf)) ||
        !CHECK_OK(rk_tasks_read(l->conf->root, "l.yaml", &l->conf->arena, &l->tasks)))
        return false;
    rk_inputs_from_plan(l->conf->plan, &l->conf->arena, &l->inputs);
    l->state = feat_state_new(l->conf->plan);
    l->labels = rk_labels_new(&l->tasks, l->state, &l->inputs, seed);
    return true;
}

static void lab_deinit(struct lab *l) {
    rk_labels_free(l->labels);
    feat_state_free(l->state);
    rk_config_free(l->conf);
}

/* As training does: looked at first, then applied. */
static void happens(struct lab *l, struct ev_event e) {
    static char ids[10000][16];
    char *id = ids[l->n_events % 10000];
    snprintf(id, 16, "e%d", l->n_events);
    if (e.id.n == 0)
        e.id = slice_of(id);
    e.source = (struct ev_source){0, l->n_events++};
    CHECK_OK(ev_check(&e));
    rk_labels_event(l->labels, &e);
    feat_state_apply(l->state, &e, 1, NULL);
}

static struct ev_event interaction(const char *type, const char *user, const char *item, int at_s) {
    return (struct ev_event){.kind = EV_INTERACTION,
                             .event_time_us = START + at_s * SECOND,
                             .user = slice_of(user),
                             .item = slice_of(item),
                             .type = slice_of(type)};
}

static void rates(struct lab *l, const char *user, const char *item, int at_s, double value) {
    const struct ev_field field = {SLICE_LIT("value"), {.type = EV_NUMBER, .number = value}};
    struct ev_event e = interaction("rating", user, item, at_s);
    e.fields = &field;
    e.n_fields = 1;
    happens(l, e);
}

static void does_in(struct lab *l, const char *tenant, const char *type, const char *user,
                    const char *item, int at_s, const char *ranking) {
    struct ev_event e = interaction(type, user, item, at_s);
    e.tenant = slice_of(tenant);
    e.ranking = slice_of(ranking);
    happens(l, e);
}
static void does(struct lab *l, const char *type, const char *user, const char *item, int at_s,
                 const char *ranking) {
    does_in(l, "", type, user, item, at_s, ranking);
}

static void is_shown(struct lab *l, const char *id, const char *user, int at_s, const char *a,
                     const char *b, const char *c) {
    const struct ev_field score = {SLICE_LIT("score"), {.type = EV_NUMBER, .number = 0.5}};
    const struct ev_shown shown[] = {{.item = slice_of(a), .fields = &score, .n_fields = 1},
                                     {.item = slice_of(b)},
                                     {.item = slice_of(c)}};
    happens(l, (struct ev_event){.kind = EV_RANKING,
                                 .id = slice_of(id),
                                 .event_time_us = START + at_s * SECOND,
                                 .user = slice_of(user),
                                 .shown = shown,
                                 .n_shown = 3});
}

static float label(const struct moe_examples *x, int row, int task) {
    return x->labels[row * x->n_tasks + task];
}

static int column(const struct lab *l, const char *name) {
    for (int i = 0; i < l->inputs.cand_columns; i++)
        if (strcmp(l->inputs.cand_names[i], name) == 0)
            return i;
    CU_FAIL("no such column");
    return 0;
}

static float cell(const struct lab *l, const struct moe_examples *x, int row, const char *name) {
    return x->cand[row * l->inputs.cand_columns + column(l, name)];
}

static void test_rows_hold_what_was_known_before(void) {
    struct lab l;
    if (!lab_init(&l,
                  "examples: {from: rating}\n"
                  "tasks:\n"
                  "  - {name: like, positive: rating where value >= 4}\n"
                  "  - {name: love, positive: rating where value >= 5}\n",
                  1))
        return;
    for (int i = 0; i < 6; i++)
        rates(&l, i % 2 ? "u1" : "u2", "a", i, i);
    struct moe_examples *x = rk_labels_finish(l.labels);
    CU_ASSERT_EQUAL_FATAL(x->n_rows, 6);
    CU_ASSERT_EQUAL(x->n_groups, 6);
    for (int i = 0; i < 6; i++) {
        CU_ASSERT_EQUAL(cell(&l, x, i, "seen"), (float)i); /* ratings of the item before */
        CU_ASSERT_EQUAL(x->query[i], (float)(i / 2));      /* of the user before */
        CU_ASSERT(isnan(cell(&l, x, i, "rank_score")));
        CU_ASSERT_EQUAL(label(x, i, 0), (float)(i >= 4));
        CU_ASSERT_EQUAL(label(x, i, 1), (float)(i >= 5));
        CU_ASSERT_EQUAL(x->time_us[i], START + i * SECOND);
    }
    moe_examples_free(x);
    lab_deinit(&l);
}

static const char shop[] = "examples: {from: ranking, window: 60s}\n"
                           "tasks:\n"
                           "  - {name: click, positive: click}\n"
                           "  - {name: order, positive: order, given: click}\n";

static void test_rankings_join_what_answered_them(void) {
    struct lab l;
    if (!lab_init(&l, shop, 1))
        return;
    is_shown(&l, "r1", "u1", 0, "a", "b", "c");
    does(&l, "click", "u1", "b", 5, "r1");
    does(&l, "click", "u1", "c", 6, "r1");
    does(&l, "order", "u1", "c", 7, "r1");
    does(&l, "click", "u1", "a", 61, "r1"); /* a second too late */
    does(&l, "click", "u1", "b", 10, "r9"); /* answers another */
    does(&l, "click", "u1", "z", 10, "r1"); /* was not shown */
    struct moe_examples *x = rk_labels_finish(l.labels);
    CU_ASSERT_EQUAL_FATAL(x->n_rows, 3);
    CU_ASSERT_EQUAL(x->n_groups, 1);
    const float clicks[] = {0, 1, 1};
    for (int i = 0; i < 3; i++) {
        CU_ASSERT_EQUAL(label(x, i, 0), clicks[i]);
        CU_ASSERT_EQUAL(cell(&l, x, i, "seen"), 0); /* the clicks came after */
    }
    CU_ASSERT(isnan(label(x, 0, 1))); /* not clicked: outside the sample space */
    CU_ASSERT_EQUAL(label(x, 1, 1), 0);
    CU_ASSERT_EQUAL(label(x, 2, 1), 1);
    CU_ASSERT_EQUAL(cell(&l, x, 0, "rank_score"), 0.5f); /* of the ranking, as a request's column */
    CU_ASSERT(isnan(cell(&l, x, 1, "rank_score")));
    CU_ASSERT_EQUAL(x->group_key[0], feat_user_key((struct slice){0}, SLICE_LIT("u1")));
    moe_examples_free(x);
    lab_deinit(&l);
}

static void visit(struct lab *l, const char *id, const char *session, int at_s) {
    const struct ev_shown shown[] = {{.item = SLICE_LIT("a")}, {.item = SLICE_LIT("b")}};
    happens(l, (struct ev_event){.kind = EV_RANKING,
                                 .id = slice_of(id),
                                 .event_time_us = START + at_s * SECOND,
                                 .session = slice_of(session),
                                 .shown = shown,
                                 .n_shown = 2});
}

static void clicks_in(struct lab *l, const char *session, const char *item, int at_s) {
    struct ev_event e = interaction("click", "", item, at_s);
    e.session = slice_of(session);
    happens(l, e);
}

/* Without a user a session identifies; without a session nothing does, and a click is not given to
 * a stranger who was shown the same item. */
static void test_who_names_nobody_answers_nothing(void) {
    struct lab l;
    if (!lab_init(&l, shop, 1))
        return;
    visit(&l, "r1", "", 0);
    visit(&l, "r2", "s1", 1);
    visit(&l, "r3", "s2", 2);
    clicks_in(&l, "", "a", 5);
    clicks_in(&l, "s1", "a", 6);
    clicks_in(&l, "s9", "b", 7);
    does(&l, "click", "s1", "b", 8, ""); /* a user of a session's name */
    does(&l, "click", "", "b", 9, "r1"); /* the ranking it names is enough */
    CU_ASSERT_EQUAL(rk_labels_of_nobody(l.labels), 1);
    struct moe_examples *x = rk_labels_finish(l.labels);
    CU_ASSERT_EQUAL_FATAL(x->n_rows, 6);
    const float clicks[] = {0, 1, 1, 0, 0, 0};
    for (int i = 0; i < 6; i++)
        CU_ASSERT_EQUAL(label(x, i, 0), clicks[i]);
    moe_examples_free(x);
    lab_deinit(&l);
}

/* What stands below the last answered item was not looked at, for any task. */
static void test_cascade(void) {
    struct lab l;
    if (!lab_init(&l,
                  "examples: {from: ranking, window: 1h, cascade: true}\n"
                  "tasks: [{name: click, positive: click}, {name: like, positive: like}]\n",
                  1))
        return;
    is_shown(&l, "r1", "u1", 10, "a", "b", "c");
    is_shown(&l, "r2", "u2", 11, "a", "b", "c"); /* not answered: no example */
    is_shown(&l, "r3", "u3", 12, "a", "b", "c");
    does(&l, "click", "u1", "b", 20, "r1");
    does(&l, "click", "u1", "a", 21, "r1");
    does(&l, "view", "u3", "c", 22, "r3"); /* an answer, though no task's */
    struct moe_examples *x = rk_labels_finish(l.labels);
    CU_ASSERT_EQUAL_FATAL(x->n_rows, 6);
    CU_ASSERT(label(x, 0, 0) == 1 && label(x, 1, 0) == 1 && isnan(label(x, 2, 0)));
    CU_ASSERT(label(x, 0, 1) == 0 && label(x, 1, 1) == 0 && isnan(label(x, 2, 1)));
    for (int i = 3; i < 6; i++)
        CU_ASSERT_EQUAL(label(x, i, 0), 0);
    moe_examples_free(x);
    lab_deinit(&l);
}

/* Training knows where an item stood, a server does not. */
static void test_positions(void) {
    for (int served = 0; served < 2; served++) {
        struct lab l;
        if (!lab_init(&l,
                      "examples: {from: ranking, negatives: 1}\n"
                      "tasks: [{name: click, positive: click, space: all}]\n",
                      1))
            return;
        if (served)
            rk_labels_as_served(l.labels);
        rates(&l, "u", "d", 1, 3);
        is_shown(&l, "r1", "u1", 10, "a", "b", "c");
        struct moe_examples *x = rk_labels_finish(l.labels);
        CU_ASSERT_EQUAL_FATAL(x->n_rows, 4);
        for (int i = 0; i < 3; i++)
            CU_ASSERT_EQUAL(cell(&l, x, i, "place"), served ? 9 : i);
        CU_ASSERT_EQUAL(cell(&l, x, 3, "place"), 9); /* was not shown */
        moe_examples_free(x);
        lab_deinit(&l);
    }
}

static void test_an_interaction_before_its_ranking_answers_nothing(void) {
    struct lab l;
    if (!lab_init(&l, shop, 1))
        return;
    is_shown(&l, "r1", "u1", 100, "a", "b", "c");
    does(&l, "click", "u1", "a", 99, "r1"); /* its time is before: a clock was wrong */
    struct moe_examples *x = rk_labels_finish(l.labels);
    CU_ASSERT_EQUAL(label(x, 0, 0), 0);
    moe_examples_free(x);
    lab_deinit(&l);
}

static void test_negatives_are_known_items_in_open_spaces_only(void) {
    struct lab l;
    if (!lab_init(&l,
                  "examples: {from: rating, negatives: 3}\n"
                  "tasks:\n"
                  "  - {name: like, positive: rating where value >= 4}\n"
                  "  - {name: pick, positive: rating, space: all}\n",
                  7))
        return;
    const char *const names[] = {"a", "b", "c", "d", "e", "f", "g", "h"};
    for (int i = 0; i < 8; i++)
        rates(&l, "u1", names[i], i, 5);
    struct moe_examples *x = rk_labels_finish(l.labels);
    CU_ASSERT_EQUAL(x->n_groups, 8);
    int row = 0, negatives = 0;
    for (int g = 0; g < 8; g++) {
        CU_ASSERT_EQUAL(label(x, row, 0), 1);
        CU_ASSERT_EQUAL(label(x, row, 1), 1);
        CU_ASSERT_EQUAL(cell(&l, x, row, "seen"), 0); /* each film is rated once */
        for (row++; row < x->n_rows && x->group[row] == g; row++, negatives++) {
            CU_ASSERT(isnan(label(x, row, 0)));
            CU_ASSERT_EQUAL(label(x, row, 1), 0);
            CU_ASSERT_EQUAL(cell(&l, x, row, "seen"), 1); /* known: met before, and not this one */
        }
        CU_ASSERT(g > 0 || row == 1); /* nothing was known before the first */
        CU_ASSERT(g < 4 || negatives > 0);
    }
    moe_examples_free(x);
    lab_deinit(&l);
}

static struct moe_examples *draw(uint64_t seed) {
    struct lab l;
    struct moe_examples *x = NULL;
    if (!lab_init(&l,
                  "examples: {from: rating, negatives: 2}\n"
                  "tasks: [{name: pick, positive: rating, space: all}]\n",
                  seed))
        return NULL;
    char names[100][16];
    for (int i = 0; i < 100; i++) {
        snprintf(names[i], sizeof names[i], "i%d", i % 40);
        rates(&l, "u", names[i], i, 3);
    }
    x = rk_labels_finish(l.labels);
    x->inputs = (struct moe_inputs){.cand_columns = l.inputs.cand_columns};
    lab_deinit(&l);
    return x;
}

static void test_equal_seeds_draw_equally(void) {
    struct moe_examples *a = draw(3), *b = draw(3), *c = draw(4);
    CU_ASSERT_EQUAL_FATAL(a->n_rows, b->n_rows);
    size_t bytes = (size_t)a->n_rows * (size_t)a->inputs.cand_columns * sizeof(float);
    CU_ASSERT_EQUAL(memcmp(a->cand, b->cand, bytes), 0);
    CU_ASSERT(c->n_rows != a->n_rows || memcmp(a->cand, c->cand, bytes) != 0);
    moe_examples_free(a);
    moe_examples_free(b);
    moe_examples_free(c);
}

static void test_open_examples_are_bounded(void) {
    struct lab l;
    if (!lab_init(&l,
                  "examples: {from: ranking, window: 1h, open_max: 10}\n"
                  "tasks: [{name: click, positive: click}]\n",
                  1))
        return;
    char ids[50][16];
    for (int i = 0; i < 50; i++) {
        snprintf(ids[i], sizeof ids[i], "r%d", i);
        is_shown(&l, ids[i], "u1", i, "a", "b", "c");
    }
    does(&l, "click", "u1", "a", 51, "r0"); /* closed early, to make room */
    does(&l, "click", "u1", "a", 51, "r49");
    struct moe_examples *x = rk_labels_finish(l.labels);
    CU_ASSERT_EQUAL_FATAL(x->n_rows, 150);
    CU_ASSERT_EQUAL(label(x, 0, 0), 0);
    CU_ASSERT_EQUAL(label(x, 147, 0), 1);
    moe_examples_free(x);
    lab_deinit(&l);
}

static void test_mistakes_name_the_place(void) {
    static const struct {
        const char *yaml, *says;
    } wrong[] = {
        {"examples: {from: rating}\n", "'tasks'"},
        {"tasks: [{name: like, positive: rating}]\n", "examples.from"},
        {"examples: {from: rating}\ntasks: [{name: like}]\n", "tasks[0].positive"},
        {"examples: {from: r}\ntasks: [{name: a, positive: rating where value >< 4}]\n",
         "tasks[0]"},
        {"examples: {from: r}\ntasks: [{name: a, positive: r}, {name: a, positive: r}]\n", "both"},
        {"examples: {form: r}\ntasks: [{name: a, positive: r}]\n", "did you mean 'from'?"},
        {"examples: {from: r}\ntasks: [{name: a, positiv: r}]\n", "did you mean 'positive'?"},
        {"examples: {from: r}\ntasks: [{name: a, positive: r, space: al}]\n", "observed|all"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct rk_config *c = NULL;
        struct rk_tasks tasks;
        if (!CHECK_OK(rk_config_parse(slice_of(wrong[i].yaml), "l.yaml", NULL, 0, &c)))
            continue;
        CHECK_FAILS(rk_tasks_read(c->root, "l.yaml", &c->arena, &tasks), STATUS_INVALID_ARGUMENT,
                    wrong[i].says);
        rk_config_free(c);
    }
}

/* ---- which of the two comes first ---- */

/* A ranking at 0 s and its answers, in an order of arrival; some outside the window. */
static struct moe_examples *joined(struct lab *l, const int *order) {
    if (!lab_init(l, shop, 1))
        return NULL;
    rk_labels_lateness(l->labels, 600 * SECOND);
    for (int i = 0; i < 6; i++)
        switch (order[i]) {
        case 0:
            is_shown(l, "r1", "u1", 0, "a", "b", "c");
            break;
        case 1:
            does(l, "click", "u1", "b", 5, "r1");
            break;
        case 2:
            does(l, "order", "u1", "b", 60, "r1"); /* the window's last moment */
            break;
        case 3:
            does(l, "click", "u1", "a", 61, "r1"); /* beyond it */
            break;
        case 4:
            does(l, "click", "u1", "c", -1, "r1"); /* before it was shown */
            break;
        default:
            does(l, "click", "u2", "c", 30, "r2"); /* of a ranking that never comes */
        }
    return rk_labels_finish(l->labels);
}

static void check_joined(const int *order) {
    struct lab l;
    struct moe_examples *x = joined(&l, order);
    if (x == NULL)
        return;
    CU_ASSERT_EQUAL_FATAL(x->n_rows, 3);
    CU_ASSERT_EQUAL(label(x, 0, 0), 0);
    CU_ASSERT_EQUAL(label(x, 1, 0), 1);
    CU_ASSERT_EQUAL(label(x, 2, 0), 0);
    CU_ASSERT(isnan(label(x, 0, 1)));
    CU_ASSERT_EQUAL(label(x, 1, 1), 1);
    moe_examples_free(x);
    lab_deinit(&l);
}

static void permute(int *order, int n) {
    if (n == 1)
        check_joined(order);
    for (int i = 0; i < n && n > 1; i++) {
        int last = order[n - 1];
        order[n - 1] = order[i];
        order[i] = last;
        permute(order, n - 1);
        order[i] = order[n - 1];
        order[n - 1] = last;
    }
}

static void test_the_join_does_not_hang_on_the_order(void) {
    int order[] = {0, 1, 2, 3, 4, 5};
    permute(order, 6);
}

static void test_what_never_joins_is_forgotten(void) {
    struct lab l;
    if (!lab_init(&l,
                  "examples: {from: ranking, window: 60s, open_max: 4}\n"
                  "tasks:\n"
                  "  - {name: click, positive: click}\n",
                  1))
        return;
    for (int i = 0; i < 10; i++) { /* more than may wait */
        char id[16];
        snprintf(id, sizeof id, "r%d", i);
        does(&l, "click", "u1", "a", 5, id);
    }
    is_shown(&l, "r5", "u1", 0, "a", "b", "c"); /* its click was the oldest but three */
    is_shown(&l, "r9", "u1", 0, "a", "b", "c");
    struct moe_examples *x = rk_labels_finish(l.labels);
    CU_ASSERT_EQUAL_FATAL(x->n_rows, 6);
    CU_ASSERT_EQUAL(label(x, 0, 0), 0);
    CU_ASSERT_EQUAL(label(x, 3, 0), 1);
    moe_examples_free(x);
    lab_deinit(&l);
}

/* ---- what was served ---- */

static void test_served_rows_become_examples_as_they_were(void) {
    struct lab l;
    if (!lab_init(&l, shop, 1))
        return;
    const struct feat_plan *p = l.conf->plan;
    const struct slice items[] = {SLICE_LIT("a"), SLICE_LIT("b"), SLICE_LIT("c")};
    const uint32_t order[] = {2, 0};
    float query[4] = {41}, cand[12];
    CU_ASSERT_EQUAL_FATAL(p->query_columns, 1);
    CU_ASSERT_EQUAL_FATAL(p->cand_columns, 3);
    for (int i = 0; i < 9; i++)
        cand[i] = (float)i;
    const struct rpc_request_log q = {
        .request = {.request_id = SLICE_LIT("q1"),
                    .tenant = SLICE_LIT("t"),
                    .user = SLICE_LIT("u1"),
                    .items = items,
                    .n_items = 3,
                    .now_us = START},
        .response = {.order = order, .n = 2},
        .rows = {.query = query, .cand = cand, .n_query = 1, .n_cand = 9}};
    rk_labels_from_log(l.labels);
    does_in(&l, "t", "click", "u1", "b", 1, "q1"); /* ranked, but not answered with */
    does_in(&l, "t", "click", "u1", "a", 2, "q1"); /* comes first */
    does(&l, "click", "u1", "c", 2, "q1");         /* another tenant's item */
    rk_labels_served(l.labels, p, &q);
    is_shown(&l, "r1", "u1", 3, "a", "b", "c"); /* makes no example */
    does_in(&l, "t", "order", "u1", "a", 4, "q1");
    struct moe_examples *x = rk_labels_finish(l.labels);
    CU_ASSERT_EQUAL_FATAL(x->n_rows, 2);
    CU_ASSERT_EQUAL(x->query[0], 41);
    CU_ASSERT_EQUAL(x->time_us[0], START);
    int place = column(&l, "place");
    for (int k = 0; k < 2; k++)
        for (int c = 0; c < 3; c++)
            CU_ASSERT_EQUAL(x->cand[3 * k + c],
                            c == place ? (float)k : cand[3 * order[k] + (uint32_t)c]);
    CU_ASSERT(label(x, 0, 0) == 0 && isnan(label(x, 0, 1)));
    CU_ASSERT(label(x, 1, 0) == 1 && label(x, 1, 1) == 1);
    moe_examples_free(x);
    lab_deinit(&l);
}

SUITE("ranker_labels", TEST(test_rows_hold_what_was_known_before), TEST(test_cascade),
      TEST(test_who_names_nobody_answers_nothing), TEST(test_positions),
      TEST(test_rankings_join_what_answered_them),
      TEST(test_an_interaction_before_its_ranking_answers_nothing),
      TEST(test_negatives_are_known_items_in_open_spaces_only), TEST(test_equal_seeds_draw_equally),
      TEST(test_open_examples_are_bounded), TEST(test_mistakes_name_the_place),
      TEST(test_the_join_does_not_hang_on_the_order), TEST(test_what_never_joins_is_forgotten),
      TEST(test_served_rows_become_examples_as_they_were))
