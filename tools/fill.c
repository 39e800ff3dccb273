/* fill.c: which events a plan counts is told by its own canonical text: the conditions ("rating
 * where value >= 4") and the fields that conditions and scopes name. Values are drawn evenly, so
 * items are equally popular: the real world's skew makes the mean a little smaller. */
#include "tools/fill.h"
#include <stdio.h>
#include "base/rng.h"
#include "tools/tally.h"

enum { TYPES_MAX = 32, FIELDS_MAX = 48 };

struct maker {
    const struct fill *f;
    struct arena *a; /* of one event */
    struct rng rng;
    struct feat_match matches[TYPES_MAX]; /* of interactions: one of each condition */
    int n_matches;
    struct ev_field carried[FIELDS_MAX]; /* by interactions and rankings */
    int n_carried;
    int64_t offset;
};

static struct slice word(struct maker *k, const char *stem, uint32_t of) {
    return slice_of(arena_printf(k->a, "%s%u", stem, rng_below(&k->rng, of)));
}

/* ---- what the plan asks for -------------------------------------------------------------------
 */

static void carry(struct maker *k, struct slice field, struct ev_value v) {
    for (int i = 0; i < k->n_carried; i++)
        if (slice_equal(k->carried[i].name, field))
            return;
    if (k->n_carried < FIELDS_MAX)
        k->carried[k->n_carried++] = (struct ev_field){field, v};
}

static void take_match(struct maker *k, struct arena *a, struct slice text) {
    struct feat_match m;
    if (feat_match_parse(a, text, &m) != STATUS_OK)
        return;
    if (m.op != FEAT_MATCH_ALL) {
        double off = m.op == FEAT_MATCH_GT || m.op == FEAT_MATCH_NE ? 1
                     : m.op == FEAT_MATCH_LT                        ? -1
                                                                    : 0;
        carry(k, m.field,
              m.is_number ? (struct ev_value){EV_NUMBER, .number = m.number + off}
                          : (struct ev_value){EV_STRING, .string = m.text});
    }
    for (int i = 0; i < k->n_matches; i++)
        if (slice_equal(k->matches[i].type, m.type))
            return;
    if (!m.is_impression && k->n_matches < TYPES_MAX)
        k->matches[k->n_matches++] = m;
}

static void read_node(struct maker *k, struct arena *a, const struct node *n) {
    static const char *const conditions[] = {"on", "top", "bottom", NULL};
    for (int i = 0; n->type == NODE_STRING && conditions[i] != NULL; i++)
        if (slice_is(n->key, conditions[i]))
            take_match(k, a, n->text);
    if (n->type == NODE_STRING && slice_is(n->key, "value_field") && n->text.n > 0)
        carry(k, n->text, (struct ev_value){EV_NUMBER, .number = 4});
    size_t dot =
        n->type == NODE_STRING && n->text.n > 8 && memcmp(n->text.p, "context.", 8) == 0 ? 8
        : n->type == NODE_STRING && n->text.n > 6 && memcmp(n->text.p, "event.", 6) == 0 ? 6
                                                                                         : 0;
    if (dot > 0)
        carry(k, (struct slice){n->text.p + dot, n->text.n - dot},
              (struct ev_value){EV_STRING, .string = {NULL, 0}}); /* drawn anew each time */
    for (const struct node *c = n->first; c != NULL; c = c->next)
        read_node(k, a, c);
}

/* ---- events -----------------------------------------------------------------------------------
 */

/* A value that has every form the plan keeps the field in. */
static struct ev_value field_value(struct maker *k, const struct feat_field *f) {
    if (feat_field_has(f, FEAT_AS_VECTOR)) {
        double *v = ARENA_ARRAY(k->a, double, 16);
        for (int i = 0; i < 16; i++)
            v[i] = (double)rng_float(&k->rng);
        return (struct ev_value){EV_NUMBERS, .numbers = {v, 16}};
    }
    if (feat_field_has(f, FEAT_AS_TERMS) || feat_field_has(f, FEAT_AS_GRAMS2) ||
        feat_field_has(f, FEAT_AS_GRAMS3) || feat_field_has(f, FEAT_AS_GRAMS4) ||
        feat_field_has(f, FEAT_AS_WORDS))
        return (struct ev_value){
            EV_STRING,
            .string = slice_of(arena_printf(k->a, "w%u of w%u and w%u", rng_below(&k->rng, 5000),
                                            rng_below(&k->rng, 5000), rng_below(&k->rng, 5000)))};
    if (feat_field_has(f, FEAT_AS_IDS) || feat_field_has(f, FEAT_AS_SIZE)) {
        struct slice *v = ARENA_ARRAY(k->a, struct slice, 2);
        for (int i = 0; i < 2; i++)
            v[i] = word(k, "v", 20);
        return (struct ev_value){EV_STRINGS, .strings = {v, 2}};
    }
    return (struct ev_value){EV_NUMBER, .number = (double)(rng_below(&k->rng, 10000)) / 100};
}

static void send(struct maker *k, struct feat_state *s, struct ev_event *e, int64_t time_us) {
    if (e->id.n == 0)
        e->id = SLICE_LIT("x");
    e->event_time_us = 1700000000000000 + time_us - time_us % 1000; /* milliseconds */
    e->source = (struct ev_source){0, k->offset += 3};
    feat_state_apply(s, e, 1, NULL);
    arena_reset(k->a);
}

static void facts(struct maker *k, struct feat_state *s, enum feat_scope scope, int64_t n) {
    const struct feat_plan *p = k->f->plan;
    for (int64_t i = 0; i < n; i++) {
        struct ev_field *fields = ARENA_ARRAY(k->a, struct ev_field, p->n_fields[scope]);
        struct slice id = slice_of(
            arena_printf(k->a, "%c%lld", scope == FEAT_SCOPE_ITEM ? 'i' : 'u', (long long)i));
        struct ev_event e = {.kind = scope == FEAT_SCOPE_ITEM ? EV_ITEM : EV_USER,
                             .fields = fields,
                             .n_fields = p->n_fields[scope]};
        for (int f = 0; f < p->n_fields[scope]; f++)
            fields[f] =
                (struct ev_field){p->fields[scope][f].name, field_value(k, &p->fields[scope][f])};
        *(scope == FEAT_SCOPE_ITEM ? &e.item : &e.user) = id;
        send(k, s, &e, 0);
    }
}

/* One visit: a list is shown, and an interaction of each type answers it, as long as `acts`. */
static void visit(struct maker *k, struct feat_state *s, struct slice user, int64_t at_us,
                  int64_t slate, bool acts) {
    const struct fill *f = k->f;
    char name[24], session[40], id[48], middle[24]; /* an item of the list, if anybody asks */
    struct slice answered = {middle, 0};
    memcpy(name, user.p, user.n);
    struct slice who = {name, user.n};
    snprintf(session, sizeof session, "%.*s-%lld", SLICE_ARG(who), (long long)(at_us / 1800000000));
    snprintf(id, sizeof id, "%.*s-r%lld", SLICE_ARG(who), (long long)at_us);
    struct ev_field carried[FIELDS_MAX];
    for (int turn = 0; turn <= (acts ? k->n_matches : 0); turn++) {
        struct ev_event e = {.kind = turn == 0 ? EV_RANKING : EV_INTERACTION,
                             .user = who,
                             .session = slice_of(session),
                             .fields = carried,
                             .n_fields = k->n_carried};
        for (int i = 0; i < k->n_carried; i++) {
            carried[i] = k->carried[i];
            if (carried[i].value.type == EV_STRING && carried[i].value.string.p == NULL)
                carried[i].value.string = word(k, "c", 20);
        }
        struct ev_shown *shown = ARENA_ARRAY(k->a, struct ev_shown, slate);
        for (int64_t i = 0; i < slate; i++)
            shown[i].item = word(k, "i", (uint32_t)f->items);
        if (turn == 0) {
            e.id = slice_of(id);
            e.shown = shown;
            e.n_shown = (int)slate;
            if (slate == 0)
                continue;
            if (f->plan->joins)
                answered.n = (size_t)snprintf(middle, sizeof middle, "%.*s",
                                              SLICE_ARG(shown[slate / 2].item));
        } else {
            e.ranking = slice_of(id);
            e.item = word(k, "i", (uint32_t)f->items);
            if (answered.n > 0)
                e.item = answered;
            e.type = k->matches[turn - 1].is_any ? SLICE_LIT("event") : k->matches[turn - 1].type;
        }
        send(k, s, &e, at_us + turn * 7000000);
    }
}

void fill_state(const struct fill *f, struct feat_state *s) {
    struct maker k = {.f = f};
    struct arena event, plan;
    struct node *root;
    arena_init(&event, 0);
    arena_init(&plan, 0);
    k.a = &event;
    rng_init(&k.rng, 1);
    if (node_parse_json(&plan, slice_of(f->plan->json), "plan", &root) == STATUS_OK)
        read_node(&k, &plan, root);
    facts(&k, s, FEAT_SCOPE_ITEM, f->items);
    facts(&k, s, FEAT_SCOPE_USER, f->users);
    int64_t lists = f->slate > 0 ? (f->impressions + f->slate - 1) / f->slate : 0;
    int64_t visits = lists > f->actions ? lists : f->actions;
    for (int64_t v = 0; v < visits; v++)
        for (int64_t u = 0; u < f->users; u++) {
            char name[24];
            struct slice user = {name, (size_t)snprintf(name, sizeof name, "u%lld", (long long)u)};
            int64_t at_us = (int64_t)((double)f->span_us *
                                      ((double)v + (double)u / (double)f->users) / (double)visits);
            bool acts = v * f->actions / visits != (v + 1) * f->actions / visits;
            bool shows = v * lists / visits != (v + 1) * lists / visits;
            visit(&k, s, user, at_us, shows ? f->slate : 0, acts);
        }
    arena_deinit(&event);
    arena_deinit(&plan);
}
