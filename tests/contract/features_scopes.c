/* Every kind that counts, in every scope and pair of scopes, against one brute force for all of
 * them: which events a scope's parts let through for a row, and what the kind makes of those. In
 * memory and in Redis, events late, repeated and out of order. The kinds one by one, with all their
 * settings, are features_kinds.c's. */
#pragma GCC diagnostic ignored "-Wunused-function" /* most of the oracle is not needed here */
#include "base/heap.h"
#include "tests/contract/features_expect.h"
#include "tests/contract/features_query.h"
#include "tests/support/redis_store.h"

enum { WORLDS = 5, SHARED_WORLDS = 2, QUERIES = 25 };

enum part { USER = 1, SESSION = 2, ITEM = 4, BRAND = 8, QUERY = 16, BRAND_NOW = 32 };
static const struct scope {
    const char *text;
    int parts;
} scopes[] = {{"global", 0},
              {"user", USER},
              {"session", SESSION},
              {"item", ITEM},
              {"item.brand", BRAND_NOW},
              {"event.brand", BRAND},
              {"context.query", QUERY},
              {"[user, session]", USER | SESSION},
              {"[user, item]", USER | ITEM},
              {"[user, event.brand]", USER | BRAND},
              {"[user, context.query]", USER | QUERY},
              {"[session, item]", SESSION | ITEM},
              {"[session, event.brand]", SESSION | BRAND},
              {"[session, context.query]", SESSION | QUERY},
              {"[item, event.brand]", ITEM | BRAND},
              {"[item, context.query]", ITEM | QUERY},
              {"[event.brand, context.query]", BRAND | QUERY},
              {"[user, event.brand, context.query]", USER | BRAND | QUERY}};
enum { SCOPES = sizeof scopes / sizeof scopes[0] };

/* What a kind makes of a row's events; window_s 0: of all. */
struct of_row {
    const struct oracle *o;
    int row, parts, window_s;
};

/* ---- which events are a row's ---- */

static const struct ev_value *asked_query(const struct oracle *o) {
    return value_in(o->q->context, o->q->n_context, "query");
}

static bool has_all_parts(const struct of_row *r) {
    const struct oracle *o = r->o;
    return !((r->parts & USER) && o->q->user.n == 0) &&
           !((r->parts & SESSION) && o->q->session.n == 0) &&
           !((r->parts & QUERY) && asked_query(o) == NULL) &&
           !((r->parts & BRAND) && item_field(o, r->row, "brand") == NULL) &&
           !((r->parts & BRAND_NOW) && !bears_any(o, r->row, "brand"));
}

/* How often it counts: of a field that an item bears, once per value shared. */
static double weight_of(const struct of_row *r, const struct happening *h, const char *what) {
    const struct oracle *o = r->o;
    if (!is_here(o, h) || !is_a(h, what) ||
        ((r->parts & USER) && !happened_to(o, h, FEAT_SCOPE_USER, r->row)) ||
        ((r->parts & SESSION) && !happened_to(o, h, FEAT_SCOPE_SESSION, r->row)) ||
        ((r->parts & ITEM) && !happened_to(o, h, FEAT_SCOPE_ITEM, r->row)) ||
        ((r->parts & QUERY) && !carries(h, "query", asked_query(o))) ||
        ((r->parts & BRAND) && !carries(h, "brand", item_field(o, r->row, "brand"))))
        return 0;
    return r->parts & BRAND_NOW ? shared_now(o, r->row, h, "brand") : 1;
}

/* ---- what the kinds make of them ---- */

static double count_in(const struct of_row *r, const char *what, int bucket_s) {
    double n = 0;
    for (int i = 0; i < r->o->n; i++)
        if (r->window_s == 0 || in_window(r->o, &r->o->all[i], bucket_s, r->window_s))
            n += weight_of(r, &r->o->all[i], what);
    return n;
}
static double k_count(const struct of_row *r) { return count_in(r, "any", 0); }
static double k_window(const struct of_row *r) { return count_in(r, "click", 10); }
static double k_rate(const struct of_row *r) {
    return (count_in(r, "click", 20) + 2 * 0.25) / (count_in(r, "impression", 20) + 2);
}
static double k_decayed(const struct of_row *r) {
    double sum = 0;
    for (int i = 0; i < r->o->n; i++)
        sum += weight_of(r, &r->o->all[i], "click") * decayed(r->o, &r->o->all[i], 90);
    return sum;
}
static double k_mean(const struct of_row *r) {
    double sum = 0, n = 0;
    for (int i = 0; i < r->o->n; i++) {
        double value = own_value(&r->o->all[i]), weight = weight_of(r, &r->o->all[i], "rating");
        sum += isnan(value) ? 0 : weight * value;
        n += isnan(value) ? 0 : weight;
    }
    return (sum + 3 * 2.5) / (n + 3);
}
static double k_since(const struct of_row *r) {
    for (int i = r->o->n - 1; i >= 0; i--)
        if (weight_of(r, &r->o->all[i], "any") > 0)
            return log_seconds(r->o, (double)r->o->all[i].e->event_time_us);
    return (double)NAN;
}

static const struct {
    const char *settings;
    double (*value)(const struct of_row *r);
    int but; /* not with these parts */
} kinds[] = {{"count, on: any", k_count, 0},
             {"window_count, on: click, bucket: 10s, windows: [50s, 290s]", k_window, 0},
             {"rate, top: click, bottom: impression, prior: 0.25, prior_weight: 2", k_rate, 0},
             {"rate, top: click, bottom: impression, prior: 0.25, prior_weight: 2, bucket: 20s,\n"
              "     windows: [100s, 290s]",
              k_rate, 0},
             {"decayed_count, on: click, half_life: 90s", k_decayed, 0},
             {"mean, on: rating, value_field: value, prior: 2.5, prior_weight: 3", k_mean, 0},
             {"time_since, on: any", k_since, BRAND_NOW}};
enum { KINDS = sizeof kinds / sizeof kinds[0] };

/* Features are called k<kind>s<scope>. */
static struct feat_plan *plan_of_all(void) {
    struct buf text = {0};
    buf_printf(&text, "lateness: 60s\nfeatures:\n");
    for (int k = 0; k < KINDS; k++)
        for (int s = 0; s < SCOPES; s++)
            if ((scopes[s].parts & kinds[k].but) == 0)
                buf_printf(&text, "  - {name: k%ds%d, scope: %s, kind: %s}\n", k, s, scopes[s].text,
                           kinds[k].settings);
    buf_add_byte(&text, 0);
    struct feat_plan *p = plan_of((const char *)text.p);
    CU_ASSERT_PTR_NOT_NULL_FATAL(p);
    buf_deinit(&text);
    return p;
}

/* ---- comparing ---- */

static int others[KINDS][SCOPES]; /* values that were not what a row without events has */

static double expected(const struct oracle *o, int row, const char *name, int *kind, int *scope) {
    int window_s = 0;
    char unit = 's';
    CU_ASSERT_FATAL(sscanf(name, "k%ds%d.%d%c", kind, scope, &window_s, &unit) >= 2);
    struct of_row r = {o, row, scopes[*scope].parts, unit == 'm' ? 60 * window_s : window_s};
    return has_all_parts(&r) ? kinds[*kind].value(&r) : (double)NAN;
}

static int compare(const struct oracle *o, int row, const float *got, const char *const *names,
                   int n, bool print) {
    int wrong = 0;
    for (int i = 0; i < n; i++) {
        int kind, scope;
        double want = expected(o, row, names[i], &kind, &scope);
        const float without = kind == 2 || kind == 3 ? 0.25f : kind == 5 ? 2.5f : 0;
        others[kind][scope] += !isnan(got[i]) && fabsf(got[i] - without) > 1e-4f;
        if (close_enough(got[i], want))
            continue;
        if (wrong++ < 3 && print)
            printf("%s, scope %s, row %d: got %g, want %g\n", kinds[kind].settings,
                   scopes[scope].text, row, (double)got[i], want);
    }
    return wrong;
}

static int differences(struct world *w, struct feat_state *s, const struct feat_plan *p,
                       uint64_t seed, bool print) {
    struct rng rng;
    struct arena a;
    int wrong = 0;
    rng_init(&rng, seed);
    arena_init(&a, 0);
    for (int i = 0; i < QUERIES; i++) {
        struct query *q = ARENA_NEW(&w->arena, struct query);
        struct oracle o;
        struct feat_rows rows;
        arena_reset(&a);
        random_query(w, &rng, q);
        oracle_init(&o, w, q);
        ask(s, &a, q, false, &rows);
        wrong += compare(&o, -1, rows.query, p->query_names, p->query_columns, print);
        for (int row = 0; row < rows.n_rows; row++)
            wrong += compare(&o, row, rows.cand + row * p->cand_columns, p->cand_names,
                             p->cand_columns, print);
    }
    arena_deinit(&a);
    return wrong;
}

static void apply_all(struct world *w, struct feat_state *s, uint64_t seed) {
    static int order[EVENTS * 8];
    struct rng rng;
    rng_init(&rng, seed);
    int n = world_order(w, &rng, true, order, EVENTS * 8);
    world_apply(w, &rng, s, order, n);
}

/* ---- tests ---- */

static void test_memory(void) {
    struct feat_plan *p = plan_of_all();
    struct world *w = HEAP_NEW(struct world);
    for (uint64_t seed = 200; seed < 200 + WORLDS; seed++) {
        world_init(w, seed);
        struct feat_state *s = feat_state_new(p);
        apply_all(w, s, seed);
        CU_ASSERT_EQUAL(differences(w, s, p, seed, true), 0);
        feat_state_free(s);
        world_deinit(w);
    }
    for (int k = 0; k < KINDS; k++)
        for (int s = 0; s < SCOPES; s++) {
            bool tried = others[k][s] > 0 || (scopes[s].parts & kinds[k].but) != 0;
            if (!tried)
                printf("%s, scope %s: no row had an event\n", kinds[k].settings, scopes[s].text);
            CU_ASSERT(tried);
        }
    heap_free(w);
    feat_plan_free(p);
}

static void test_redis(void) {
    static struct redis_server server;
    struct feat_plan *p = plan_of_all();
    struct world *w = HEAP_NEW(struct world);
    redis_server_start(&server);
    for (uint64_t seed = 300; seed < 300 + SHARED_WORLDS; seed++) {
        char prefix[16];
        snprintf(prefix, sizeof prefix, "s%d:", (int)seed);
        struct feat_store_conf c = redis_store_conf(&server, prefix, 4);
        struct feat_state *s = redis_store_open(p, &c);
        world_init(w, seed);
        apply_all(w, s, seed);
        CU_ASSERT_EQUAL(differences(w, s, p, seed, true), 0);
        feat_state_free(s);
        world_deinit(w);
    }
    redis_server_remove(&server);
    heap_free(w);
    feat_plan_free(p);
}

/* An event less, and rows of every kind differ. */
static void test_control(void) {
    struct feat_plan *p = plan_of_all();
    struct world *w = HEAP_NEW(struct world);
    world_init(w, 400);
    struct feat_state *s = feat_state_new(p);
    apply_all(w, s, 400);
    for (int i = 0; i < EVENTS; i++)
        w->accepted[i] = w->accepted[i] && w->events[i].kind != EV_INTERACTION;
    CU_ASSERT(differences(w, s, p, 400, false) > 100);
    feat_state_free(s);
    world_deinit(w);
    heap_free(w);
    feat_plan_free(p);
}

SUITE("features_scopes", TEST(test_memory), TEST(test_redis), TEST(test_control))
