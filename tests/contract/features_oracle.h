/* What every feature should be, from nothing but the list of accepted events: slow, plain, and
 * sharing no code with features/ but the hash of names. */
#pragma once
#include "base/hash.h"
#include "tests/contract/features_world.h"

struct query {
    struct slice tenant, user, session;
    struct slice items[16];
    int n_items;
    struct ev_field context[8];
    int n_context;
    float scores[16];
    int n_placed;
    int64_t now_us;
};

/* One thing that happened to an item: an interaction, or one impression of a ranking. */
struct happening {
    const struct ev_event *e;
    const struct ev_shown *shown;
    struct slice item;
    uint64_t item_key, user_key;
};

/* A field's newest value, once looked up. */
struct looked_up {
    enum ev_kind kind;
    char id[8], name[16];
    const struct ev_value *value;
};

struct oracle {
    const struct world *w;
    const struct query *q;
    struct happening *all; /* oldest first by (time, partition, offset, place on the page) */
    /* oldest first as a list keeps them: by (time, item's or user's key, value) */
    struct happening *by_item, *by_user;
    int n;
    struct looked_up *memo; /* [n_memo of MEMO_MAX] */
    int *n_memo;
};
enum { MEMO_MAX = 1024 };

static int by_stamp(const void *a, const void *b) {
    const struct happening *x = a, *y = b;
    if (x->e->event_time_us != y->e->event_time_us)
        return x->e->event_time_us < y->e->event_time_us ? -1 : 1;
    if (x->e->source.partition != y->e->source.partition)
        return x->e->source.partition < y->e->source.partition ? -1 : 1;
    if (x->e->source.offset != y->e->source.offset)
        return x->e->source.offset < y->e->source.offset ? -1 : 1;
    return x->shown < y->shown ? -1 : x->shown > y->shown;
}

static double own_value(const struct happening *h);

/* Of two at one time for one item or user: by value, of which none is the least. */
static int by_list(const struct happening *x, const struct happening *y, uint64_t key_x,
                   uint64_t key_y) {
    double value_x = own_value(x), value_y = own_value(y);
    if (x->e->event_time_us != y->e->event_time_us)
        return x->e->event_time_us < y->e->event_time_us ? -1 : 1;
    if (key_x != key_y)
        return key_x < key_y ? -1 : 1;
    if (isnan(value_x) || isnan(value_y))
        return isnan(value_y) - isnan(value_x);
    return (value_x > value_y) - (value_x < value_y);
}
static int by_item_list(const void *a, const void *b) {
    const struct happening *x = a, *y = b;
    return by_list(x, y, x->item_key, y->item_key);
}
static int by_user_list(const void *a, const void *b) {
    const struct happening *x = a, *y = b;
    return by_list(x, y, x->user_key, y->user_key);
}

static struct happening *sorted(struct world *w, const struct oracle *o,
                                int (*by)(const void *, const void *)) {
    struct happening *copy = ARENA_ARRAY(&w->arena, struct happening, o->n);
    memcpy(copy, o->all, (size_t)o->n * sizeof *copy);
    qsort(copy, (size_t)o->n, sizeof *copy, by);
    return copy;
}

static struct happening happening_of(const struct ev_event *e, const struct ev_shown *shown) {
    struct slice item = shown != NULL ? shown->item : e->item;
    return (struct happening){e, shown, item, feat_item_key(e->tenant, item),
                              feat_user_key(e->tenant, e->user)};
}

static void oracle_init(struct oracle *o, struct world *w, const struct query *q) {
    *o = (struct oracle){.w = w, .q = q};
    o->all = ARENA_ARRAY(&w->arena, struct happening, EVENTS * SHOWN);
    o->memo = ARENA_ARRAY(&w->arena, struct looked_up, MEMO_MAX);
    o->n_memo = ARENA_NEW(&w->arena, int);
    for (int i = 0; i < EVENTS; i++) {
        const struct ev_event *e = &w->events[i];
        if (!w->accepted[i])
            continue;
        if (e->kind == EV_INTERACTION)
            o->all[o->n++] = happening_of(e, NULL);
        for (int k = 0; e->kind == EV_RANKING && k < e->n_shown; k++)
            o->all[o->n++] = happening_of(e, &e->shown[k]);
    }
    qsort(o->all, (size_t)o->n, sizeof *o->all, by_stamp);
    o->by_item = sorted(w, o, by_item_list);
    o->by_user = sorted(w, o, by_user_list);
}

static bool happened_to(const struct oracle *o, const struct happening *h, enum feat_scope scope,
                        int row) {
    const struct query *q = o->q;
    if (!slice_equal(h->e->tenant, q->tenant))
        return false;
    switch (scope) {
    case FEAT_SCOPE_USER:
        return q->user.n > 0 && slice_equal(h->e->user, q->user);
    case FEAT_SCOPE_SESSION:
        return q->session.n > 0 && slice_equal(h->e->session, q->session);
    case FEAT_SCOPE_ITEM:
        return row >= 0 && slice_equal(h->item, q->items[row]);
    default:
        return true;
    }
}

static bool is_named(const struct oracle *o, enum feat_scope scope) {
    return scope == FEAT_SCOPE_USER      ? o->q->user.n > 0
           : scope == FEAT_SCOPE_SESSION ? o->q->session.n > 0
                                         : true;
}

static const struct ev_value *value_in(const struct ev_field *f, int n, const char *name) {
    for (int i = 0; i < n; i++)
        if (slice_is(f[i].name, name))
            return &f[i].value;
    return NULL;
}

/* The happening's field `value`; NaN when it has none. */
static double own_value(const struct happening *h) {
    const struct ev_value *v = h->shown != NULL
                                   ? value_in(h->shown->fields, h->shown->n_fields, "value")
                                   : value_in(h->e->fields, h->e->n_fields, "value");
    return v == NULL ? (double)NAN : v->number;
}

static const struct ev_value *search_field(const struct oracle *o, enum ev_kind kind,
                                           struct slice id, const char *name) {
    const struct ev_value *best = NULL;
    struct happening best_at = {0};
    for (int i = 0; i < EVENTS; i++) {
        const struct ev_event *e = &o->w->events[i];
        const struct ev_value *v = value_in(e->fields, e->n_fields, name);
        struct happening at = {.e = e};
        if (!o->w->accepted[i] || e->kind != kind || v == NULL ||
            !slice_equal(e->tenant, o->q->tenant) ||
            !slice_equal(kind == EV_ITEM ? e->item : e->user, id))
            continue;
        if (best == NULL || by_stamp(&at, &best_at) > 0) {
            best = v;
            best_at = at;
        }
    }
    return best;
}

/* The newest value of a field of an item or user. */
static const struct ev_value *newest_field(const struct oracle *o, enum ev_kind kind,
                                           struct slice id, const char *name) {
    for (int i = 0; i < *o->n_memo; i++)
        if (o->memo[i].kind == kind && slice_is(id, o->memo[i].id) &&
            strcmp(o->memo[i].name, name) == 0)
            return o->memo[i].value;
    const struct ev_value *v = search_field(o, kind, id, name);
    if (*o->n_memo < MEMO_MAX && id.n < 8) {
        struct looked_up *m = &o->memo[(*o->n_memo)++];
        *m = (struct looked_up){.kind = kind, .value = v};
        memcpy(m->id, id.p == NULL ? "" : id.p, id.n);
        snprintf(m->name, sizeof m->name, "%s", name);
    }
    return v;
}

static double number_of_value(const struct ev_value *v) {
    char text[32];
    if (v == NULL || v->type == EV_STRINGS)
        return (double)NAN;
    if (v->type == EV_NUMBER)
        return v->number;
    snprintf(text, sizeof text, "%.*s", SLICE_ARG(v->string));
    char *end;
    double d = strtod(text, &end);
    return *end == '\0' ? d : (double)NAN;
}

/* The words of a value, [32]. */
static int words_of_value(const struct ev_value *v, struct slice *out, char text[32]) {
    if (v == NULL)
        return 0;
    if (v->type == EV_STRINGS) {
        for (int i = 0; i < v->strings.n; i++)
            out[i] = v->strings.v[i];
        return v->strings.n;
    }
    out[0] = v->string;
    if (v->type == EV_NUMBER) {
        snprintf(text, 32, "%.10g", v->number);
        out[0] = slice_of(text);
    }
    return 1;
}

static bool share_a_word(const struct ev_value *a, const struct ev_value *b) {
    struct slice x[32], y[32];
    char tx[32], ty[32];
    int nx = words_of_value(a, x, tx), ny = words_of_value(b, y, ty);
    for (int i = 0; i < nx; i++)
        for (int k = 0; k < ny; k++)
            if (slice_equal(x[i], y[k]))
                return true;
    return false;
}

/* The last `n` ratings of the query's user or session, newest first. */
static int last_ratings(const struct oracle *o, enum feat_scope scope, int n,
                        const struct happening **out) {
    int found = 0;
    for (int i = o->n - 1; i >= 0 && found < n; i--)
        if (happened_to(o, &o->by_item[i], scope, -1) && slice_is(o->by_item[i].e->type, "rating"))
            out[found++] = &o->by_item[i];
    return found;
}

static double log_seconds(const struct oracle *o, double at_us) {
    double seconds = ((double)o->q->now_us - at_us) / 1e6;
    return log1p(seconds > 0 ? seconds : 0);
}

static bool close_enough(float got, double want) {
    if (isnan(got) || isnan(want))
        return isnan(got) && isnan(want);
    return fabs((double)got - want) <= 1e-5 * (1 + fabs(want));
}
