/* train_held.c: the validation rows: labels copied together once, logits in batches as large as
 * training's. */
#include <string.h>
#include "base/heap.h"
#include "moe/report/eval.h"
#include "moe/train/loss.h"
#include "moe/train/training.h"

void moe_training_logits(struct moe_training *t, const float *v, const int *groups, int n,
                         float *out) {
    struct moe_worker *w = &t->trainer.workers[0];
    size_t T = (size_t)t->x->n_tasks, done = 0;
    for (int from = 0, to = 0; from < n; from = to) {
        int rows = 0;
        for (; to < n && to - from < t->trainer.groups_max; to++) {
            int more = t->first[groups[to] + 1] - t->first[groups[to]];
            if (rows + more > t->trainer.rows_max && to > from)
                break;
            rows += more;
        }
        struct moe_pass pass = {.batch = &w->batch};
        moe_worker_gather(w, groups + from, to - from);
        moe_forward(t->m, v, &w->batch, w->run, &pass, false);
        memcpy(out + done * T, w->run->logits, (size_t)rows * T * sizeof(float));
        done += (size_t)rows;
    }
}

void moe_training_predict(struct moe_training *t, const float *v) {
    moe_training_logits(t, v, t->held, t->n_held, t->held_p);
}

double moe_training_validate(struct moe_training *t, const float *v) {
    int T = t->x->n_tasks, n = t->held_rows;
    float scale[64];
    double weight = 0;
    moe_training_predict(t, v);
    for (int r = 0; r < n; r++)
        weight += (double)t->held_w[r];
    for (int k = 0; k < T; k++)
        scale[k] = (float)((double)t->trainer.scale[k] / weight);
    float *p = HEAP_ARRAY(float, n + 1), *y = HEAP_ARRAY(float, n + 1);
    for (int k = 0; k < T; k++) {
        for (int r = 0; r < n; r++) {
            p[r] = t->held_p[(size_t)r * (size_t)T + (size_t)k];
            y[r] = t->held_y[(size_t)r * (size_t)T + (size_t)k];
        }
        t->auc[k] = moe_auc(p, y, n);
    }
    heap_free(p);
    heap_free(y);
    return moe_loss_tasks(n, T, t->m->task_loss, t->held_p, t->held_y, t->held_w, t->held_group,
                          scale, NULL, NULL);
}

void moe_training_keep_held(struct moe_training *t) {
    size_t T = (size_t)t->x->n_tasks, at = 0;
    t->held_p = HEAP_ARRAY(float, (size_t)t->held_rows *T + 1);
    t->held_y = HEAP_ARRAY(float, (size_t)t->held_rows *T + 1);
    t->held_w = HEAP_ARRAY(float, t->held_rows + 1);
    t->held_group = HEAP_ARRAY(int, t->held_rows + 1);
    for (int i = 0; i < t->n_held; i++) {
        size_t from = (size_t)t->first[t->held[i]], n = (size_t)t->first[t->held[i] + 1] - from;
        memcpy(t->held_y + at * T, t->x->labels + from * T, n * T * sizeof(float));
        memcpy(t->held_w + at, t->x->weight + from, n * sizeof(float));
        for (size_t r = 0; r < n; r++)
            t->held_group[at + r] = i;
        at += n;
    }
}
