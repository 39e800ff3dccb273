/* known.c: what a reader can ask besides rows: offsets, epochs, known items, a user's items. */
#include "features/keys.h"
#include "features/index.h"
#include "features/kinds/last_n.h"
#include "features/state_parts.h"

int feat_state_applied(struct feat_state *s, struct arena *a, const struct feat_applied **out) {
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
    uint64_t key = feat_user_key(tenant, user);
    struct slice bytes;
    s->ops->fetch(s->store, FEAT_SCOPE_USER, &key, 1, &bytes);
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

int feat_state_items(struct feat_state *s, struct arena *a, struct slice tenant, int max,
                     const struct slice **out) {
    uint64_t count = s->ops->count(s->store, FEAT_SCOPE_ITEM);
    if ((uint64_t)max > count)
        max = (int)count;
    struct known *heap = ARENA_ARRAY(a, struct known, max);
    int n = 0;
    struct slice bytes;
    for (uint64_t at = 0; max > 0 && s->ops->next(s->store, FEAT_SCOPE_ITEM, &at, &bytes);) {
        struct known k;
        if (!read_known(bytes, tenant, &k))
            continue;
        if (n < max) {
            heap[n++] = k;
            for (int i = n / 2 - 1; n == max && i >= 0; i--)
                sift_down(heap, n, i);
        } else if (lesser(&heap[0], &k)) {
            heap[0] = k;
            sift_down(heap, n, 0);
        }
    }
    for (int i = n / 2 - 1; n < max && i >= 0; i--)
        sift_down(heap, n, i);
    struct slice *ids = ARENA_ARRAY(a, struct slice, n);
    for (int left = n; left > 0; left--) {
        ids[left - 1] = arena_dup(a, heap[0].id); /* the least goes last */
        heap[0] = heap[left - 1];
        sift_down(heap, left - 1, 0);
    }
    *out = ids;
    return n;
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
