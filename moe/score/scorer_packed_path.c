/* scorer_packed_path.c: packed scoring as one of scorer.h's paths: it takes what it covers, for the
 * CPU as MOERANK_ISA leaves it. */
#include <stdio.h>
#include <string.h>
#include "base/heap.h"
#include "base/log.h"
#include "moe/score/calibrate.h"
#include "moe/score/scorer_packed.h"
#include "moe/score/scorer_path.h"

struct path {
    struct moe_packed *p;
    char label[32];
};

static enum status packed_open(const struct moe_model *m, const struct moe_scorer_conf *conf,
                               void **out) {
    struct arena a;
    struct moe_packed *p = NULL;
    const float *units = NULL;
    const char *lacks = moe_packed_lacks(m, conf->precision);
    if (lacks)
        return fail(STATUS_UNIMPLEMENTED, "scorer: %s scoring of this model is not possible: %s",
                    moe_precision_word(conf->precision), lacks);
    arena_init(&a, 0);
    enum status status = STATUS_OK;
    if (conf->precision == MOE_INT8 && moe_cpu_has(moe_cpu(), MOE_INT8))
        status = moe_calibrate_units(m, &a, &units);
    if (status == STATUS_OK)
        status = moe_packed_new(m, moe_cpu(), conf->precision, conf->rows_max, units, &p);
    arena_deinit(&a);
    TRY(status);
    if (conf->cache_bytes && moe_packed_keep_halves(p, conf->cache_bytes) != STATUS_OK)
        log_debug("scorer", "%s; going without", status_message());
    struct path *s = HEAP_NEW(struct path);
    s->p = p;
    snprintf(s->label, sizeof s->label, "%s-%s", p->k->name, moe_precision_word(conf->precision));
    *out = s;
    return STATUS_OK;
}

static void packed_close(void *state) {
    struct path *s = state;
    moe_packed_free(s->p);
    heap_free(s);
}

static const char *packed_label(const void *state) { return ((const struct path *)state)->label; }

static size_t packed_scratch_bytes(const void *state) {
    return ((const struct path *)state)->p->scratch_bytes;
}

static void packed_score(const void *state, const struct moe_batch *b, void *scratch,
                         float *probabilities) {
    moe_packed_score(((const struct path *)state)->p, b, scratch, probabilities, NULL);
}

static const struct moe_item_cache *packed_cache(const void *state) {
    return ((const struct path *)state)->p->halves.cache;
}

const struct moe_scorer_path_ops moe_scorer_path_packed = {
    .name = "packed",
    .open = packed_open,
    .close = packed_close,
    .label = packed_label,
    .scratch_bytes = packed_scratch_bytes,
    .score = packed_score,
    .cache = packed_cache,
};
