/* known.c: what a reader can ask besides rows: offsets, epochs, known items, a user's items. */
#include "features/keys.h"
#include "features/index.h"
#include "features/kinds/last_n.h"
#include "features/state_parts.h"

int feat_state_applied(struct feat_state *s, struct arena *a, const struct feat_applied **out) {
    if (feat_state_is_shared(s)) {
        int n = 0;
        *out = NULL;
        return s->ops->applied(s->store, a, out, &n) == STATUS_OK ? n : 0;
    }
    struct feat_applied *copy = ARENA_ARRAY(a, struct feat_applied, s->n_applied);
    if (s->n_applied > 0)
        memcpy(copy, s->applied, (size_t)s->n_applied * sizeof *copy);
    *out = copy;
    return s->n_applied;
}

/* Scope, key and epoch only: no view is made. */
static uint64_t epoch_of(struct slice bytes) {
    struct cursor c = cursor_of(bytes.p, bytes.n);
    cursor_bytes(&c, 9);
    return feat_get_varint(&c);
}

uint64_t feat_state_user_epoch(struct feat_state *s, struct slice tenant, struct slice user) {
    struct slice bytes = feat_state_bytes(s, FEAT_SCOPE_USER, feat_user_key(tenant, user));
    if (bytes.n == 0 && s->ops->failed != NULL && s->ops->failed(s->store))
        return FEAT_EPOCH_UNKNOWN;
    return bytes.n == 0 ? 0 : epoch_of(bytes);
}

struct known {
    uint64_t epoch, key;
    struct slice id;
};

/* Is `a` the lesser of two: fewer events, or the greater key? */
static bool lesser(const struct known *a, const struct known *b) {
    return a->epoch != b->epoch ? a->epoch < b->epoch : a->key > b->key;
}

/* Restores the heap (least on top) below `i`. */
static void sift_down(struct known *heap, int n, int i) {
    for (;;) {
        int least = i;
        for (int child = 2 * i + 1; child <= 2 * i + 2 && child < n; child++)
            if (lesser(&heap[child], &heap[least]))
                least = child;
        if (least == i)
            return;
        struct known swap = heap[i];
        heap[i] = heap[least];
        heap[least] = swap;
        i = least;
    }
}

static bool read_known(struct slice bytes, struct slice tenant, struct known *out) {
    struct cursor c = cursor_of(bytes.p, bytes.n);
    cursor_u8(&c);
    out->key = cursor_u64(&c);
    out->epoch = feat_get_varint(&c);
    bool same = slice_equal(cursor_bytes(&c, (size_t)feat_get_varint(&c)), tenant);
    out->id = cursor_bytes(&c, (size_t)feat_get_varint(&c));
    return same && !c.bad;
}

/* The items with the most events so far. */
struct top {
    struct arena *a;
    struct slice tenant;
    struct known *heap; /* [n of max] a heap from when it is full */
    int n, max;
    bool copies; /* ids do not outlive the call */
};

static void top_add(struct top *t, struct slice bytes) {
    struct known k;
    if (t->max == 0 || !read_known(bytes, t->tenant, &k))
        return;
    if (t->n == t->max && !lesser(&t->heap[0], &k))
        return;
    if (t->copies)
        k.id = arena_dup(t->a, k.id);
    if (t->n == t->max) {
        t->heap[0] = k;
        sift_down(t->heap, t->n, 0);
        return;
    }
    t->heap[t->n++] = k;
    for (int i = t->n / 2 - 1; t->n == t->max && i >= 0; i--)
        sift_down(t->heap, t->n, i);
}

/* Their ids, most events first. A scan may have met an item twice: it counts once. */
static int top_ids(struct top *t, const struct slice **out) {
    struct known *heap = t->heap;
    int n = t->n, n_ids = 0;
    for (int i = n / 2 - 1; n < t->max && i >= 0; i--)
        sift_down(heap, n, i);
    struct slice *ids = ARENA_ARRAY(t->a, struct slice, n);
    for (int left = n; left > 0; left--) {
        struct known least = heap[0];
        heap[0] = heap[left - 1];
        sift_down(heap, left - 1, 0);
        heap[left - 1] = least; /* behind the heap: sorted, the least last */
    }
    for (int i = 0; i < n; i++)
        if (i == 0 || heap[i].key != heap[i - 1].key)
            ids[n_ids++] = t->copies ? heap[i].id : arena_dup(t->a, heap[i].id);
    *out = ids;
    return n_ids;
}

static enum status take_items(void *context, const struct slice *records, int n) {
    for (int i = 0; i < n; i++)
        top_add(context, records[i]);
    return STATUS_OK;
}

int feat_state_items(struct feat_state *s, struct arena *a, struct slice tenant, int max,
                     const struct slice **out) {
    bool shared = feat_state_is_shared(s);
    uint64_t count = shared ? (uint64_t)max : s->ops->count(s->store, FEAT_SCOPE_ITEM);
    if ((uint64_t)max > count)
        max = (int)count;
    struct top top = {.a = a, .tenant = tenant, .max = max, .copies = shared};
    top.heap = ARENA_ARRAY(a, struct known, max);
    struct slice bytes;
    if (shared) {
        if (s->ops->scan(s->store, FEAT_SCOPE_ITEM, &top, take_items) != STATUS_OK)
            top.n = 0;
    } else {
        for (uint64_t at = 0; max > 0 && s->ops->next(s->store, FEAT_SCOPE_ITEM, &at, &bytes);)
            top_add(&top, bytes);
    }
    return top_ids(&top, out);
}

int feat_state_ahead(struct feat_state *s, struct arena *a, const struct feat_ahead **out) {
    *out = NULL;
    return s->ops->ahead != NULL ? s->ops->ahead(s->store, a, out) : 0;
}

int feat_state_user_items(struct feat_state *s, struct arena *a, struct slice tenant,
                          struct slice user, const uint64_t **out) {
    const struct feat_record *rec =
        feat_state_record(s, a, FEAT_SCOPE_USER, feat_user_key(tenant, user));
    size_t most = 0;
    for (int i = 0; i < s->plan->n_features; i++)
        most += s->plan->features[i]->kind == &feat_kind_last_n ? FEAT_LAST_MAX : 0;
    uint64_t *keys = arena_alloc(a, most * sizeof *keys);
    struct feat_index known;
    feat_index_init(&known, a, most);
    int n = 0;
    for (int i = 0; rec != NULL && i < s->plan->n_features; i++) {
        const struct feat *f = s->plan->features[i];
        if (f->kind != &feat_kind_last_n || feat_last_scope(f) != FEAT_SCOPE_USER)
            continue;
        struct feat_last_reader r;
        struct feat_last_entry e;
        feat_last_open(f, feat_record_cell(rec, f->cells[0].index), &r);
        while (feat_last_next(&r, &e)) {
            uint32_t *slot = feat_index_at(&known, e.item);
            if (*slot == 0)
                keys[n++] = e.item;
            *slot = 1;
        }
    }
    *out = keys;
    return n;
}

/* ---- what things take ---- */

struct feat_scope_bytes feat_state_scope_bytes(struct feat_state *s, enum feat_scope scope) {
    struct feat_scope_bytes out = {0, 0, 0};
    struct slice bytes;
    for (uint64_t at = 0; s->ops->next != NULL && s->ops->next(s->store, scope, &at, &bytes);) {
        out.entities++;
        out.records += bytes.n;
        out.memory += feat_store_memory_entity(bytes.n);
    }
    return out;
}

void feat_state_cell_bytes(struct feat_state *s, uint64_t *cells) {
    memset(cells, 0, (size_t)s->plan->n_features * sizeof *cells);
    for (int scope = 0; scope < FEAT_SCOPES; scope++) {
        struct slice bytes;
        for (uint64_t at = 0;
             s->ops->next != NULL && s->ops->next(s->store, (enum feat_scope)scope, &at, &bytes);) {
            const struct feat_record *r =
                feat_record_cells(s->plan, (enum feat_scope)scope, bytes, s->views[scope]);
            for (int i = 1; r != NULL && i < s->plan->n_cells[scope]; i++)
                cells[s->cells[scope][i]->number] += feat_record_cell(r, i).n;
        }
    }
}

void feat_state_watch(struct feat_state *s, int64_t (*now_ns)(void), int64_t *ns) {
    s->watch.now_ns = now_ns;
    s->watch.ns = ns;
}
