/* safetensors.c: the format of huggingface/safetensors, little-endian, checked as its reference
 * reader does: header size, types, shapes, offsets in order, without gaps or overlaps. Views into
 * the file's bytes are not aligned; readers copy. */
#include "moe/safetensors.h"
#include <math.h>
#include <stdint.h>
#include <string.h>
#include "base/io.h"

static const struct {
    const char *word;
    size_t bytes;
} types[] = {{"F32", 4}, {"BF16", 2}, {"F16", 2}, {"F64", 8}, {"I64", 8},
             {"I32", 4}, {"U8", 1},   {"I8", 1},  {"BOOL", 1}};
#define N_TYPES ((int)(sizeof types / sizeof *types))

/* A whole number of at most 2^53; false else. */
static bool whole(const struct node *n, size_t *out) {
    if (!n || n->type != NODE_NUMBER || !(n->number >= 0 && n->number <= 9007199254740992.0) ||
        n->number != floor(n->number))
        return false;
    *out = (size_t)n->number;
    return true;
}

static enum status parse_shape(const struct node *shape, const char *name,
                               struct moe_st_tensor *t) {
    if (!shape || shape->type != NODE_LIST || shape->n > MOE_ST_DIMS_MAX)
        return fail(STATUS_DATA_LOSS, "%s: tensor '%s': bad shape", name, t->name);
    t->count = 1;
    for (const struct node *d = shape->first; d; d = d->next) {
        size_t v;
        if (!whole(d, &v) || (v && t->count > SIZE_MAX / 16 / v))
            return fail(STATUS_DATA_LOSS, "%s: tensor '%s': bad shape", name, t->name);
        t->dims[t->n_dims++] = v;
        t->count *= v;
    }
    return STATUS_OK;
}

static enum status parse_tensor(const struct node *n, struct slice data, const char *name,
                                size_t *at, struct moe_st_tensor *t) {
    const struct node *type, *range;
    size_t from, to;
    int k = 0;
    t->name = n->key.p;
    if (n->type != NODE_MAP)
        return fail(STATUS_DATA_LOSS, "%s: tensor '%s': not a description", name, t->name);
    type = node_get(n, "dtype");
    while (k < N_TYPES &&
           !(type && type->type == NODE_STRING && slice_is(type->text, types[k].word)))
        k++;
    if (k == N_TYPES)
        return fail(STATUS_DATA_LOSS, "%s: tensor '%s': unknown dtype", name, t->name);
    t->type = (enum moe_st_type)k;
    TRY(parse_shape(node_get(n, "shape"), name, t));
    range = node_get(n, "data_offsets");
    if (!range || range->type != NODE_LIST || range->n != 2 || !whole(range->first, &from) ||
        !whole(range->first->next, &to) || from > to || to > data.n)
        return fail(STATUS_DATA_LOSS,
                    "%s: tensor '%s': data_offsets beyond the file's %zu bytes of data", name,
                    t->name, data.n);
    if (from != *at)
        return fail(STATUS_DATA_LOSS, "%s: tensor '%s': begins at byte %zu of the data, not at %zu",
                    name, t->name, from, *at);
    if (to - from != t->count * types[k].bytes)
        return fail(STATUS_DATA_LOSS, "%s: tensor '%s': %zu bytes do not fit its shape", name,
                    t->name, to - from);
    t->data = data.p + from;
    t->bytes = to - from;
    *at = to;
    return STATUS_OK;
}

static enum status parse_meta(const struct node *n, const char *name) {
    if (n->type != NODE_MAP)
        return fail(STATUS_DATA_LOSS, "%s: __metadata__ is not a map", name);
    for (const struct node *v = n->first; v; v = v->next)
        if (v->type != NODE_STRING)
            return fail(STATUS_DATA_LOSS, "%s: __metadata__.%s is not a string", name, v->key.p);
    return STATUS_OK;
}

enum status moe_st_parse(struct slice bytes, const char *name, struct arena *a,
                         struct moe_st *out) {
    struct cursor c = cursor_of(bytes.p, bytes.n);
    uint64_t length = cursor_u64(&c);
    struct node *root;
    struct moe_st st = {0};
    if (c.bad || length > bytes.n - 8 || length > MOE_ST_HEADER_MAX)
        return fail(STATUS_DATA_LOSS, "%s: %zu bytes, cut short or not a model file", name,
                    bytes.n);
    if (node_parse_json(a, (struct slice){bytes.p + 8, length}, name, &root) != STATUS_OK)
        return fail_in(STATUS_DATA_LOSS, "header");
    if (root->type != NODE_MAP)
        return fail(STATUS_DATA_LOSS, "%s: header is not a map", name);
    struct slice data = {bytes.p + 8 + length, bytes.n - 8 - length};
    st.t = ARENA_ARRAY(a, struct moe_st_tensor, root->n + 1);
    size_t at = 0;
    for (const struct node *n = root->first; n; n = n->next) {
        if (slice_is(n->key, "__metadata__")) {
            TRY(parse_meta(n, name));
            st.meta = n;
            continue;
        }
        TRY(parse_tensor(n, data, name, &at, &st.t[st.n]));
        st.n++;
    }
    if (at != data.n)
        return fail(STATUS_DATA_LOSS, "%s: %zu bytes of data, of which tensors use %zu", name,
                    data.n, at);
    *out = st;
    return STATUS_OK;
}

const struct moe_st_tensor *moe_st_find(const struct moe_st *s, const char *name) {
    for (int i = 0; i < s->n; i++)
        if (strcmp(s->t[i].name, name) == 0)
            return &s->t[i];
    return NULL;
}

const char *moe_st_meta(const struct moe_st *s, const char *key) {
    const struct node *n = s->meta ? node_get(s->meta, key) : NULL;
    return n ? n->text.p : NULL;
}

void moe_st_begin(struct moe_st_writer *w) {
    memset(w, 0, sizeof *w);
    json_begin(&w->json, &w->header);
    json_object(&w->json);
    json_key(&w->json, "__metadata__");
    json_object(&w->json);
    w->in_meta = true;
}

void moe_st_put_meta(struct moe_st_writer *w, const char *key, const char *value) {
    json_key(&w->json, key);
    json_cstr(&w->json, value);
}

void moe_st_put(struct moe_st_writer *w, const char *name, const size_t *dims, int n_dims,
                const float *v) {
    size_t count = 1, from = w->data.n;
    if (w->in_meta)
        json_object_end(&w->json);
    w->in_meta = false;
    json_key(&w->json, name);
    json_object(&w->json);
    json_key(&w->json, "dtype");
    json_cstr(&w->json, "F32");
    json_key(&w->json, "shape");
    json_array(&w->json);
    for (int i = 0; i < n_dims; i++) {
        json_int(&w->json, (int64_t)dims[i]);
        count *= dims[i];
    }
    json_array_end(&w->json);
    if (count)
        buf_add(&w->data, v, count * sizeof *v);
    json_key(&w->json, "data_offsets");
    json_array(&w->json);
    json_int(&w->json, (int64_t)from);
    json_int(&w->json, (int64_t)w->data.n);
    json_array_end(&w->json);
    json_object_end(&w->json);
}

enum status moe_st_end(struct moe_st_writer *w, const char *path) {
    struct buf all = {0};
    if (w->in_meta)
        json_object_end(&w->json);
    json_object_end(&w->json);
    while (w->header.n % 8)
        buf_add_byte(&w->header, ' '); /* data aligned, as readers that map files like it */
    buf_reserve(&all, 8 + w->header.n + w->data.n);
    buf_add_u64(&all, w->header.n);
    buf_add(&all, w->header.p, w->header.n);
    if (w->data.n)
        buf_add(&all, w->data.p, w->data.n);
    enum status status = io_write_file(path, buf_slice(&all));
    buf_deinit(&all);
    buf_deinit(&w->header);
    buf_deinit(&w->data);
    return status;
}
