/* labels.c: the running join of examples and what came of them. An example is opened when its event
 * passes, with rows extracted from the state as it is then; interactions within the window set its
 * marks; when the window has passed by the stream's own clock it is closed and handed over.
 *
 * Open examples stand in a ring in order of opening. Two maps find them: by the ranking's id, and
 * by (user, item) or (session, item) for interactions that name no ranking. What names none of the
 * three is nobody's, and answers nothing: the item alone would give it to a stranger. An
 * interaction that comes before the ranking it names waits in a ring of its own, as the marks it
 * will make; which of the two comes first then makes no difference. What is remembered is bounded
 * by open_max, in both rings. */
#include <math.h>
#include "base/hash.h"
#include "base/heap.h"
#include "base/log.h"
#include "base/map.h"
#include "base/rng.h"
#include "features/kind.h"
#include "ranker/labels_parts.h"

enum { MARK_POSITIVE = 1, MARK_GIVEN = 2, MARK_ANSWERED = 4 };

struct open_example {
    int64_t time_us;
    uint64_t id_key, user_key, session_key;
    int n_rows, n_shown;    /* rows beyond n_shown are sampled negatives */
    uint64_t *item_keys;    /* [n_shown] */
    uint8_t *marks;         /* [n_shown x n_tasks] */
    struct moe_batch batch; /* its arrays, and the ones above, are one heap block */
    void *block;
};

/* An interaction that waits for the ranking it names. */
struct early {
    int64_t time_us;
    uint64_t id_key, item_key;
    uint64_t before; /* 1 + number of another one for that ranking; 0: none */
    uint8_t marks[RK_TASKS_MAX];
};

struct rk_labels {
    const struct rk_tasks *tasks;
    struct feat_state *state;
    const struct moe_inputs *inputs;
    struct moe_examples *examples;
    struct rng rng;
    struct arena arena; /* of one event */

    struct open_example *ring; /* [cap], number i at i % cap */
    uint64_t first, next, cap;
    struct map by_id, by_pair; /* -> 1 + number */
    int64_t clock_us;
    int64_t lateness_us;
    int64_t seen;
    int64_t of_nobody; /* interactions */
    bool as_served;
    bool from_log; /* examples come from rk_labels_served, not from ranking events */

    struct early *early; /* [cap] ring, number i at i % cap; NULL until there is one */
    uint64_t early_first, early_next;
    struct map early_by_id; /* -> 1 + number of the newest */

    struct arena names; /* ids of all items met, for negatives */
    struct map known;
    struct slice *items;
    uint32_t n_items, items_cap;
};

struct rk_labels *rk_labels_new(const struct rk_tasks *tasks, struct feat_state *state,
                                const struct moe_inputs *inputs, uint64_t seed) {
    struct rk_labels *l = HEAP_NEW(struct rk_labels);
    l->tasks = tasks;
    l->state = state;
    l->inputs = inputs;
    l->examples = moe_examples_new(inputs, tasks->n);
    l->cap = (uint64_t)tasks->examples.open_max;
    l->ring = HEAP_ARRAY(struct open_example, l->cap);
    rng_init(&l->rng, seed);
    arena_init(&l->arena, 1 << 20);
    arena_init(&l->names, 1 << 16);
    return l;
}

void rk_labels_free(struct rk_labels *l) {
    if (!l)
        return;
    for (uint64_t i = l->first; i < l->next; i++)
        heap_free(l->ring[i % l->cap].block);
    moe_examples_free(l->examples);
    heap_free(l->ring);
    heap_free(l->early);
    map_deinit(&l->early_by_id);
    heap_free(l->items);
    map_deinit(&l->by_id);
    map_deinit(&l->by_pair);
    map_deinit(&l->known);
    arena_deinit(&l->arena);
    arena_deinit(&l->names);
    heap_free(l);
}

/* ---- items met so far ---- */

static void meet_item(struct rk_labels *l, struct slice item) {
    uint64_t at, key = hash_bytes(item, 0);
    if (l->tasks->examples.negatives == 0 || item.n == 0 || map_get(&l->known, key, &at))
        return;
    if (l->n_items == l->items_cap) {
        l->items_cap = l->items_cap ? 2 * l->items_cap : 1024;
        l->items = heap_grow(l->items, l->items_cap * sizeof *l->items);
    }
    map_put(&l->known, key, l->n_items);
    l->items[l->n_items++] = arena_dup(&l->names, item);
}

/* Draws up to `n` items that are none of the first `n_shown`; returns how many. */
static int draw_negatives(struct rk_labels *l, struct slice *items, int n_shown, int n) {
    int drawn = 0;
    for (int tries = 0; l->n_items > 0 && drawn < n && tries < 4 * n; tries++) {
        struct slice item = l->items[rng_below(&l->rng, l->n_items)];
        bool shown = false;
        for (int i = 0; i < n_shown && !shown; i++)
            shown = slice_equal(items[i], item);
        if (!shown)
            items[n_shown + drawn++] = item;
    }
    return drawn;
}

/* ---- closing ---- */

/* How many of the shown rows count: with cascade those down to the last one that was answered. */
static int rows_examined(const struct rk_labels *l, const struct open_example *x) {
    int n = x->n_shown;
    while (l->tasks->examples.cascade && n > 0 &&
           !(x->marks[(n - 1) * l->tasks->n] & MARK_ANSWERED))
        n--;
    return n;
}

static void write_labels(const struct rk_labels *l, const struct open_example *x, float *labels) {
    int n_tasks = l->tasks->n, examined = rows_examined(l, x);
    for (int i = 0; i < x->n_rows; i++) {
        for (int t = 0; t < n_tasks; t++) {
            const struct rk_task_rule *rule = &l->tasks->rules[t];
            float *label = &labels[i * n_tasks + t];
            if (i >= x->n_shown) {
                *label = rule->space_all ? 0 : NAN;
                continue;
            }
            int marks = x->marks[i * n_tasks + t];
            bool counts = i < examined && (!rule->has_given || (marks & MARK_GIVEN));
            *label = counts ? (float)((marks & MARK_POSITIVE) != 0) : NAN;
        }
    }
}

static void forget(struct map *m, uint64_t key, uint64_t number) {
    uint64_t at;
    if (map_get(m, key, &at) && at == number + 1)
        map_remove(m, key);
}

/* Hands the oldest open example over. */
static void close_first(struct rk_labels *l) {
    uint64_t number = l->first++;
    struct open_example *x = &l->ring[number % l->cap];
    forget(&l->by_id, x->id_key, number);
    for (int i = 0; i < x->n_shown; i++) {
        forget(&l->by_pair, hash_mix(x->user_key, x->item_keys[i]), number);
        forget(&l->by_pair, hash_mix(x->session_key, x->item_keys[i]), number);
    }
    bool is_one = !l->tasks->examples.cascade || rows_examined(l, x) > 0;
    if (is_one && l->seen++ >= l->tasks->examples.skip) {
        float *labels = HEAP_ARRAY(float, x->n_rows * l->tasks->n);
        write_labels(l, x, labels);
        moe_examples_add(l->examples, &x->batch, labels, NULL, x->time_us, x->user_key);
        heap_free(labels);
    }
    heap_free(x->block);
    x->block = NULL;
}

static void forget_first_early(struct rk_labels *l) {
    uint64_t number = l->early_first++;
    forget(&l->early_by_id, l->early[number % l->cap].id_key, number);
}

/* Nothing that may still come can concern them. */
static void close_old(struct rk_labels *l) {
    int64_t until_us = l->clock_us - l->tasks->examples.window_us - l->lateness_us;
    while (l->first < l->next && l->ring[l->first % l->cap].time_us < until_us)
        close_first(l);
    while (l->early_first < l->early_next && l->early[l->early_first % l->cap].time_us < until_us)
        forget_first_early(l);
}

/* ---- opening ---- */

/* Copies rows, keys and marks into one block. */
static void keep_rows(const struct rk_labels *l, const struct feat_rows *rows,
                      const uint64_t *item_keys, struct open_example *x) {
    const struct moe_inputs *in = l->inputs;
    size_t n = (size_t)rows->n_rows, shown = (size_t)x->n_shown;
    size_t query = (size_t)in->query_columns * sizeof(float);
    size_t cand = n * (size_t)in->cand_columns * sizeof(float);
    size_t query_ids = (size_t)in->query_slots * sizeof(uint32_t);
    size_t cand_ids = n * (size_t)in->cand_slots * sizeof(uint32_t);
    size_t keys = shown * sizeof(uint64_t), marks = shown * (size_t)l->tasks->n;
    char *p = heap_alloc(keys + query + cand + query_ids + cand_ids + marks + 1);
    x->block = p;
    x->item_keys = (uint64_t *)(void *)p;
    memcpy(p, item_keys, keys);
    x->batch = (struct moe_batch){.n_groups = 1, .n_rows = rows->n_rows};
    x->batch.query = memcpy(p += keys, rows->query, query);
    x->batch.cand = memcpy(p += query, rows->cand, cand);
    x->batch.query_ids = memcpy(p += cand, rows->query_ids, query_ids);
    x->batch.cand_ids = memcpy(p += query_ids, rows->cand_ids, cand_ids);
    x->marks = (uint8_t *)(p + cand_ids);
}

/* Of sessions, apart from users'; 0: it names none. */
static uint64_t session_key(const struct ev_event *e) {
    uint64_t key = feat_user_key(e->tenant, e->session);
    return key == 0 ? 0 : hash_mix(key, 0x73657373696f6eull);
}

/* A place in the ring, found by the id, and by item and user or session. keys [n_shown], in the
 * arena. */
static struct open_example *enter(struct rk_labels *l, const struct ev_event *e,
                                  const uint64_t *keys, int n_shown, int n_rows) {
    if (l->next - l->first == l->cap) {
        log_warn("labels", "more than %lld examples are open; the oldest is closed early",
                 (long long)l->cap);
        close_first(l);
    }
    uint64_t number = l->next++;
    struct open_example *x = &l->ring[number % l->cap];
    *x = (struct open_example){.time_us = e->event_time_us,
                               .id_key = hash_bytes(e->id, 0),
                               .user_key = feat_user_key(e->tenant, e->user),
                               .session_key = session_key(e),
                               .n_rows = n_rows,
                               .n_shown = n_shown};
    for (int i = 0; i < n_shown; i++) {
        if (x->user_key != 0)
            map_put(&l->by_pair, hash_mix(x->user_key, keys[i]), number + 1);
        if (x->session_key != 0)
            map_put(&l->by_pair, hash_mix(x->session_key, keys[i]), number + 1);
    }
    map_put(&l->by_id, x->id_key, number + 1);
    return x;
}

static void mark_row(const struct rk_labels *l, struct open_example *x, uint64_t item_key,
                     const uint8_t *marks) {
    for (int i = 0; i < x->n_shown; i++)
        for (int t = 0; t < l->tasks->n && x->item_keys[i] == item_key; t++)
            x->marks[i * l->tasks->n + t] |= marks[t];
}

static bool in_window(const struct rk_labels *l, const struct open_example *x, int64_t time_us) {
    return time_us >= x->time_us && time_us <= x->time_us + l->tasks->examples.window_us;
}

/* What came before it. */
static void take_early(struct rk_labels *l, struct open_example *x) {
    uint64_t at;
    if (!map_get(&l->early_by_id, x->id_key, &at))
        return;
    for (; at > l->early_first; at = l->early[(at - 1) % l->cap].before) {
        const struct early *e = &l->early[(at - 1) % l->cap];
        if (in_window(l, x, e->time_us))
            mark_row(l, x, e->item_key, e->marks);
    }
}

static struct open_example *open_example(struct rk_labels *l, const struct ev_event *e,
                                         struct feat_request *request, struct slice *items,
                                         int n_shown) {
    int n = n_shown + draw_negatives(l, items, n_shown, (int)l->tasks->examples.negatives);
    request->items = items;
    request->n_items = n;
    struct feat_rows rows;
    feat_state_read_begin(l->state);
    feat_state_extract(l->state, &l->arena, request, e->event_time_us, &rows);
    feat_state_read_end(l->state);

    uint64_t *keys = ARENA_ARRAY(&l->arena, uint64_t, n_shown);
    for (int i = 0; i < n_shown; i++)
        keys[i] = feat_item_key(e->tenant, items[i]);
    struct open_example *x = enter(l, e, keys, n_shown, n);
    keep_rows(l, &rows, keys, x);
    return x;
}

/* Per-candidate numbers of a ranking, as the columns a request would have. */
static void shown_columns(struct rk_labels *l, const struct ev_event *e,
                          struct feat_request *request) {
    struct slice *names = ARENA_ARRAY(&l->arena, struct slice, EV_FIELDS_MAX);
    float **values = ARENA_ARRAY(&l->arena, float *, EV_FIELDS_MAX);
    int n = 0, rows = e->n_shown + (int)l->tasks->examples.negatives;
    for (int i = 0; i < e->n_shown; i++) {
        for (int f = 0; f < e->shown[i].n_fields; f++) {
            const struct ev_field *field = &e->shown[i].fields[f];
            double v;
            int c = 0;
            while (c < n && !slice_equal(names[c], field->name))
                c++;
            if (!ev_value_number(&field->value, &v) || (c == n && n == EV_FIELDS_MAX))
                continue;
            if (c == n) {
                names[n] = field->name;
                values[n] = ARENA_ARRAY(&l->arena, float, rows);
                for (int k = 0; k < rows; k++)
                    values[n][k] = NAN;
                n++;
            }
            values[c][i] = (float)v;
        }
    }
    request->column_names = names;
    request->column_values = (const float *const *)values;
    request->n_columns = n;
}

static void open_ranking(struct rk_labels *l, const struct ev_event *e) {
    size_t room = (size_t)e->n_shown + (size_t)l->tasks->examples.negatives;
    struct slice *items = ARENA_ARRAY(&l->arena, struct slice, room);
    struct feat_request request = {.tenant = e->tenant,
                                   .user = e->user,
                                   .session = e->session,
                                   .context = e->fields,
                                   .n_context = e->n_fields};
    for (int i = 0; i < e->n_shown; i++)
        items[i] = e->shown[i].item;
    shown_columns(l, e, &request);
    request.n_placed = l->as_served ? 0 : e->n_shown;
    take_early(l, open_example(l, e, &request, items, e->n_shown));
}

/* ---- opening what was served ---- */

/* n words of four bytes; of none there may be no address. */
static void copy_words(void *to, const void *from, size_t n) {
    if (n > 0)
        memcpy(to, from, 4 * n);
}

/* Candidate rows in the order shown; kind position then says where, as it does of a ranking. */
static void put_in_order(const struct rk_labels *l, const struct feat_plan *p,
                         const struct rpc_request_log *q, struct feat_rows *rows) {
    size_t columns = (size_t)p->cand_columns, slots = (size_t)p->cand_slots;
    for (int k = 0; k < q->response.n; k++) {
        size_t from = q->response.order[k], to = (size_t)k;
        copy_words(rows->cand + to * columns, q->rows.cand + from * columns, columns);
        copy_words(rows->cand_ids + to * slots, q->rows.cand_ids + from * slots, slots);
    }
    for (int i = 0; i < p->n_features && !l->as_served; i++)
        for (int k = 0; k < q->response.n && p->features[i]->kind == &feat_kind_position; k++)
            rows->cand[(size_t)k * columns + (size_t)p->features[i]->column] = (float)k;
}

/* Copies, since what was decoded need not be aligned as rows are. */
static struct feat_rows served_rows(struct rk_labels *l, const struct feat_plan *p,
                                    const struct rpc_request_log *q) {
    size_t n = (size_t)q->response.n;
    struct feat_rows rows = {.n_rows = q->response.n};
    rows.query = ARENA_ARRAY(&l->arena, float, q->rows.n_query);
    rows.query_ids = ARENA_ARRAY(&l->arena, uint32_t, q->rows.n_query_ids);
    rows.cand = ARENA_ARRAY(&l->arena, float, n *(size_t)p->cand_columns);
    rows.cand_ids = ARENA_ARRAY(&l->arena, uint32_t, n * (size_t)p->cand_slots);
    copy_words(rows.query, q->rows.query, (size_t)q->rows.n_query);
    copy_words(rows.query_ids, q->rows.query_ids, (size_t)q->rows.n_query_ids);
    put_in_order(l, p, q, &rows);
    return rows;
}

void rk_labels_from_log(struct rk_labels *l) { l->from_log = true; }

void rk_labels_served(struct rk_labels *l, const struct feat_plan *p,
                      const struct rpc_request_log *q) {
    const struct ev_event e = {.id = q->request.request_id,
                               .event_time_us = q->request.now_us,
                               .tenant = q->request.tenant,
                               .user = q->request.user,
                               .session = q->request.session};
    arena_reset(&l->arena);
    uint64_t *keys = ARENA_ARRAY(&l->arena, uint64_t, q->response.n);
    for (int k = 0; k < q->response.n; k++)
        keys[k] = feat_item_key(e.tenant, q->request.items[q->response.order[k]]);
    if (e.event_time_us > l->clock_us)
        l->clock_us = e.event_time_us;
    close_old(l);
    struct feat_rows rows = served_rows(l, p, q);
    struct open_example *x = enter(l, &e, keys, q->response.n, q->response.n);
    keep_rows(l, &rows, keys, x);
    take_early(l, x);
}

/* An interaction's own fields are its outcome, not context. */
static struct open_example *open_interaction(struct rk_labels *l, const struct ev_event *e) {
    struct slice *items = ARENA_ARRAY(&l->arena, struct slice, 1 + l->tasks->examples.negatives);
    struct feat_request request = {.tenant = e->tenant, .user = e->user, .session = e->session};
    items[0] = e->item;
    return open_example(l, e, &request, items, 1);
}

/* ---- marking ---- */

/* marks [n_tasks]: what the interaction says of its item. */
static void marks_of(const struct rk_labels *l, const struct ev_event *e, uint8_t *marks) {
    for (int t = 0; t < l->tasks->n; t++) {
        const struct rk_task_rule *rule = &l->tasks->rules[t];
        marks[t] = MARK_ANSWERED;
        if (feat_match_event(&rule->positive, e, NULL))
            marks[t] |= MARK_POSITIVE;
        if (rule->has_given && feat_match_event(&rule->given, e, NULL))
            marks[t] |= MARK_GIVEN;
    }
}

static void mark(const struct rk_labels *l, struct open_example *x, const struct ev_event *e) {
    uint8_t marks[RK_TASKS_MAX];
    marks_of(l, e, marks);
    mark_row(l, x, feat_item_key(e->tenant, e->item), marks);
}

/* The open example that this interaction answers, or NULL. */
static struct open_example *answered(struct rk_labels *l, const struct ev_event *e) {
    uint64_t number, who = e->user.n ? feat_user_key(e->tenant, e->user) : session_key(e);
    bool found =
        e->ranking.n
            ? map_get(&l->by_id, hash_bytes(e->ranking, 0), &number)
            : who != 0 &&
                  map_get(&l->by_pair, hash_mix(who, feat_item_key(e->tenant, e->item)), &number);
    l->of_nobody += e->ranking.n == 0 && who == 0;
    struct open_example *x = found ? &l->ring[(number - 1) % l->cap] : NULL;
    return x && in_window(l, x, e->event_time_us) ? x : NULL;
}

/* It names a ranking that may yet come. */
static void wait_for_ranking(struct rk_labels *l, const struct ev_event *e) {
    uint64_t open, key = hash_bytes(e->ranking, 0);
    if (map_get(&l->by_id, key, &open)) /* it has come: this is outside its window */
        return;
    if (!l->early)
        l->early = HEAP_ARRAY(struct early, l->cap);
    if (l->early_next - l->early_first == l->cap)
        forget_first_early(l);
    uint64_t number = l->early_next++;
    struct early *w = &l->early[number % l->cap];
    *w = (struct early){
        .time_us = e->event_time_us, .id_key = key, .item_key = feat_item_key(e->tenant, e->item)};
    map_get(&l->early_by_id, key, &w->before);
    map_put(&l->early_by_id, key, number + 1);
    marks_of(l, e, w->marks);
}

void rk_labels_lateness(struct rk_labels *l, int64_t lateness_us) { l->lateness_us = lateness_us; }

void rk_labels_hold_compact(struct rk_labels *l) { moe_examples_hold_compact(l->examples); }

void rk_labels_as_served(struct rk_labels *l) { l->as_served = true; }

void rk_labels_event(struct rk_labels *l, const struct ev_event *e) {
    const char *from = l->tasks->examples.from;
    arena_reset(&l->arena);
    if (e->event_time_us > l->clock_us)
        l->clock_us = e->event_time_us;
    close_old(l);
    bool rankings = strcmp(from, "ranking") == 0;
    if (e->kind == EV_RANKING && rankings && !l->from_log)
        open_ranking(l, e);
    if (e->kind == EV_INTERACTION) {
        bool opens = slice_is(e->type, from); /* its own, so it says nothing of an older one */
        struct open_example *x = opens ? open_interaction(l, e) : answered(l, e);
        if (x)
            mark(l, x, e);
        else if (rankings && e->ranking.n > 0)
            wait_for_ranking(l, e);
    }
    meet_item(l, e->item);
    for (int i = 0; i < e->n_shown; i++)
        meet_item(l, e->shown[i].item);
}

int64_t rk_labels_of_nobody(const struct rk_labels *l) { return l->of_nobody; }

struct moe_examples *rk_labels_finish(struct rk_labels *l) {
    while (l->first < l->next)
        close_first(l);
    if (l->of_nobody > 0)
        log_warn("labels",
                 "%lld interactions name no ranking, user or session, and answer no example",
                 (long long)l->of_nobody);
    struct moe_examples *x = l->examples;
    l->examples = moe_examples_new(l->inputs, l->tasks->n);
    return x;
}
