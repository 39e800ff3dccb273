/* scorer.c: picks a way to score and stands in front of it. */
#include "moe/score/scorer.h"
#include <stdlib.h>
#include <string.h>
#include "base/heap.h"
#include "moe/model_impl.h"
#include "moe/score/scorer_path.h"

struct moe_scorer {
    const struct moe_scorer_path_ops *ops;
    void *state;
};

const struct moe_scorer_path_ops *const moe_scorer_paths[] = {
#define SCORER_PATH(name) &moe_scorer_path_##name,
#include "moe/score/scorers.def"
#undef SCORER_PATH
    NULL};

enum status moe_scorer_new(const struct moe_model *m, const struct moe_scorer_conf *conf,
                           struct moe_scorer **out) {
    const char *forced = getenv("MOERANK_SCORER");
    enum status status = STATUS_UNIMPLEMENTED;
    void *state = NULL;
    int i = 0, known = 0;
    if (conf->rows_max < 1)
        return fail(STATUS_INVALID_ARGUMENT, "scorer: rows_max %d; at least one row",
                    conf->rows_max);
    for (; moe_scorer_paths[i]; i++) {
        if (forced && *forced && strcmp(forced, moe_scorer_paths[i]->name) != 0)
            continue;
        known = 1;
        if (!moe_scorer_paths[i]->any_output && !moe_outputs_plain(m)) {
            status = fail(STATUS_UNIMPLEMENTED, "scorer: path %s scores probabilities only",
                          moe_scorer_paths[i]->name);
            continue;
        }
        status = moe_scorer_paths[i]->open(m, conf, &state);
        if (status != STATUS_UNIMPLEMENTED)
            break;
    }
    if (!known)
        return fail(STATUS_INVALID_ARGUMENT, "MOERANK_SCORER=%s: there is no such path", forced);
    if (status != STATUS_OK)
        return status;
    struct moe_scorer *s = HEAP_NEW(struct moe_scorer);
    s->ops = moe_scorer_paths[i];
    s->state = state;
    *out = s;
    return STATUS_OK;
}

void moe_scorer_free(struct moe_scorer *s) {
    if (!s)
        return;
    s->ops->close(s->state);
    heap_free(s);
}
size_t moe_scorer_scratch_bytes(const struct moe_scorer *s) {
    return s->ops->scratch_bytes(s->state);
}
const char *moe_scorer_path(const struct moe_scorer *s) { return s->ops->label(s->state); }
const struct moe_item_cache *moe_scorer_cache(const struct moe_scorer *s) {
    return s->ops->cache ? s->ops->cache(s->state) : NULL;
}
void moe_scorer_score(const struct moe_scorer *s, const struct moe_batch *b, void *scratch,
                      float *probabilities) {
    s->ops->score(s->state, b, scratch, probabilities);
}
