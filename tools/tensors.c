/* tensors.c: the safetensors format: 8 bytes of length, a JSON header, the data.
 * https://github.com/huggingface/safetensors */
#include "tools/tensors.h"
#include <math.h>
#include <stdlib.h>
#include "base/io.h"

#define FILE_BYTES_MAX ((size_t)1 << 36)
enum { HEAD_BYTES = 8 };

bool tensors_is_file(struct slice head) { return head.n > HEAD_BYTES && head.p[HEAD_BYTES] == '{'; }

/* One entry of the header: {"dtype": ..., "shape": [...], "data_offsets": [begin, end]}. */
static enum status read_entry(const char *path, const struct node *n, struct slice data,
                              struct tensor *t) {
    const struct node *dtype = node_get(n, "dtype"), *shape = node_get(n, "shape"),
                      *offsets = node_get(n, "data_offsets");
    if (!dtype || !shape || !offsets || offsets->n != 2 || shape->n > TENSOR_DIMS_MAX)
        return fail(STATUS_DATA_LOSS, "%s: tensor '%.*s' has no dtype, shape or data_offsets", path,
                    SLICE_ARG(n->key));
    *t = (struct tensor){.name = n->key, .dtype = dtype->text, .n = 1};
    for (const struct node *d = shape->first; d; d = d->next) {
        t->shape[t->n_dims++] = (int64_t)d->number;
        t->n *= (int64_t)d->number;
    }
    double begin = offsets->first->number, end = offsets->first->next->number;
    if (begin < 0 || end < begin || end > (double)data.n)
        return fail(STATUS_DATA_LOSS, "%s: tensor '%.*s' ends beyond the file; fetch it again",
                    path, SLICE_ARG(n->key));
    if (!slice_is(t->dtype, "F32"))
        return STATUS_OK;
    if (t->n < 0 || (double)t->n * 4 != end - begin)
        return fail(STATUS_DATA_LOSS, "%s: tensor '%.*s': %.0f bytes are not its shape", path,
                    SLICE_ARG(n->key), end - begin);
    t->v = (const float *)(const void *)(data.p + (size_t)begin);
    return STATUS_OK;
}

static enum status read_header(const char *path, struct arena *a, struct tensors *t) {
    struct cursor c = cursor_of(t->bytes.p, t->bytes.n);
    uint64_t length = cursor_u64(&c);
    if (c.bad || length > t->bytes.n - HEAD_BYTES)
        return fail(STATUS_DATA_LOSS, "%s: the header is cut short; fetch it again", path);
    struct node *root;
    struct slice text = {t->bytes.p + HEAD_BYTES, (size_t)length};
    struct slice data = {text.p + length, t->bytes.n - HEAD_BYTES - (size_t)length};
    TRY(node_parse_json(a, text, path, &root));
    t->list = ARENA_ARRAY(a, struct tensor, root->n + 1);
    for (const struct node *n = root->first; n; n = n->next) {
        if (slice_is(n->key, "__metadata__"))
            t->metadata = n;
        else
            TRY(read_entry(path, n, data, &t->list[t->n++]));
    }
    return STATUS_OK;
}

enum status tensors_load(const char *path, struct arena *a, struct tensors *out) {
    struct tensors t = {0};
    enum status status = io_read_file(path, FILE_BYTES_MAX, &t.bytes);
    if (status == STATUS_OK)
        status = read_header(path, a, &t);
    if (status != STATUS_OK) {
        tensors_deinit(&t);
        return status;
    }
    *out = t;
    return STATUS_OK;
}

void tensors_deinit(struct tensors *t) { buf_deinit(&t->bytes); }

double tensor_norm(const float *v, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)v[i] * (double)v[i];
    return sqrt(sum);
}
