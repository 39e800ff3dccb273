/* cooccur.c: do people who dealt with what this user dealt with also deal with this item? For each
 * of the user's newest items i, its newest users are looked up, and their items j counted: the part
 * of them that had j is how strongly i leads to j (item-to-item neighbours by conditional
 * probability, Deshpande and Karypis 2004). Columns: the mean over the user's items, and the
 * greatest.
 *
 * A table of pairs per item could not be kept up from events alone: it would have to read a user
 * while an item is written. So nothing is kept but two last_n lists, and a request walks user ->
 * items -> users -> items: last x n lists are read, whatever the number of candidates. In a shared
 * store that is two more round trips. */
#include "features/claim.h"
#include "features/index.h"
#include "features/kinds/last_n.h"
#include "features/state_parts.h"

#define LISTS_MAX 4096 /* last x n: so many users are read for one request */

struct params {
    const char *of_text, *users_text;
    int64_t last;
    const struct feat *of, *users;
};

static const struct conf_item items[] = {
    CONF_STRING(struct params, of_text, "of", NULL,
                "An earlier last_n of scope user: what a user dealt with."),
    CONF_STRING(struct params, users_text, "users", NULL,
                "An earlier last_n of scope item: who dealt with an item."),
    CONF_INT(struct params, last, "last", "10", 1, 100, "items",
             "How many of the user's newest items are followed."),
    CONF_END};

static enum status check(struct feat_plan *p, struct feat *f) {
    static const char *const names[] = {"mean", "best"};
    struct params *m = f->params;
    TRY(feat_claim_feature(p, "of", m->of_text, "last_n", &m->of));
    TRY(feat_claim_feature(p, "users", m->users_text, "last_n", &m->users));
    if (feat_last_scope(m->of) != FEAT_SCOPE_USER)
        return fail(STATUS_INVALID_ARGUMENT, "of: '%s' is not of scope user", m->of_text);
    if (feat_last_scope(m->users) != FEAT_SCOPE_ITEM)
        return fail(STATUS_INVALID_ARGUMENT, "users: '%s' is not of scope item", m->users_text);
    if (m->last * feat_last_n(m->users) > LISTS_MAX)
        return fail(STATUS_INVALID_ARGUMENT,
                    "last: %lld items with %lld users each; at most %d lists are read",
                    (long long)m->last, (long long)feat_last_n(m->users), LISTS_MAX);
    f->side = FEAT_CROSS;
    f->n_columns = 2;
    f->column_names = names;
    return STATUS_OK;
}

/* Distinct keys of a list, at most `max`; `but` is left out. */
static int keys_of(const struct feat *f, struct slice cell, int64_t max, uint64_t but,
                   uint64_t *out) {
    struct feat_last_reader reader;
    struct feat_last_entry e;
    int n = 0;
    feat_last_open(f, cell, &reader);
    while (n < max && feat_last_next(&reader, &e)) {
        int i = 0;
        while (i < n && out[i] != e.item)
            i++;
        if (i == n && e.item != but)
            out[n++] = e.item;
    }
    return n;
}

struct work {
    struct feat_index at; /* candidate's key -> 1 + first row with it */
    float *mean, *best;   /* [n_rows] by that row */
    int n;                /* items followed; 0: nothing is known */
};

/* Adds how strongly one item, dealt with by these users, leads to each candidate. */
static void follow(const struct params *m, uint64_t item, const struct feat_record *const *users,
                   int n_users, uint32_t *hits, uint32_t *touched, struct work *w) {
    uint64_t keys[FEAT_LAST_MAX];
    int n_touched = 0;
    for (int u = 0; u < n_users; u++) {
        struct slice cell = feat_record_cell(users[u], m->of->cells[0].index);
        int n = keys_of(m->of, cell, FEAT_LAST_MAX, item, keys);
        for (int i = 0; i < n; i++) {
            uint32_t at = feat_index_get(&w->at, keys[i]);
            if (at > 0 && hits[at - 1]++ == 0)
                touched[n_touched++] = at - 1;
        }
    }
    for (int i = 0; i < n_touched; i++) {
        float part = (float)hits[touched[i]] / (float)n_users;
        w->mean[touched[i]] += part;
        if (part > w->best[touched[i]])
            w->best[touched[i]] = part;
        hits[touched[i]] = 0;
    }
}

static void begin(const struct feat *f, struct feat_read *r) {
    const struct params *m = f->params;
    struct work *w = ARENA_NEW(r->arena, struct work);
    size_t rows = (size_t)r->n_rows;
    r->scratch[f->number] = w;
    feat_index_init(&w->at, r->arena, rows);
    w->mean = ARENA_ARRAY(r->arena, float, rows);
    w->best = ARENA_ARRAY(r->arena, float, rows);
    uint32_t *hits = ARENA_ARRAY(r->arena, uint32_t, rows);
    uint32_t *touched = ARENA_ARRAY(r->arena, uint32_t, rows);
    for (int row = r->n_rows - 1; row >= 0; row--)
        *feat_index_at(&w->at, r->item_keys[row]) = (uint32_t)row + 1;

    uint64_t own[100], *users = arena_alloc(r->arena, LISTS_MAX * sizeof *users);
    int n = keys_of(m->of, feat_last_cell(m->of, r), m->last, 0, own), from[101] = {0};
    const struct feat_record **records =
        arena_alloc(r->arena, (size_t)n * sizeof(const struct feat_record *));
    feat_state_records(r->state, r->arena, FEAT_SCOPE_ITEM, own, n, records);
    for (int i = 0; i < n; i++) {
        struct slice cell = feat_record_cell(records[i], m->users->cells[0].index);
        from[i + 1] =
            from[i] + keys_of(m->users, cell, feat_last_n(m->users), r->user_key, users + from[i]);
    }
    const struct feat_record **lists =
        arena_alloc(r->arena, (size_t)from[n] * sizeof(const struct feat_record *));
    feat_state_records(r->state, r->arena, FEAT_SCOPE_USER, users, from[n], lists);
    for (int i = 0; i < n; i++)
        follow(m, own[i], lists + from[i], from[i + 1] - from[i], hits, touched, w);
    w->n = n;
}

static void extract(const struct feat *f, struct feat_read *r, int row, float *dense,
                    uint32_t *ids) {
    (void)ids;
    const struct work *w = r->scratch[f->number];
    if (w->n == 0)
        return;
    uint32_t at = feat_index_get(&w->at, r->item_keys[row]) - 1;
    dense[0] = w->mean[at] / (float)w->n;
    dense[1] = w->best[at];
}

const struct feat_kind feat_kind_cooccur = {
    .name = "cooccur",
    .doc = "How often people with the user's items also dealt with the candidate.",
    .params = items,
    .params_bytes = sizeof(struct params),
    .check = check,
    .begin = begin,
    .extract = extract,
};
