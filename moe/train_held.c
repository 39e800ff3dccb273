/* train_held.c: the validation rows: labels copied together once, logits in runs of groups that
 * stand next to each other. */
#include <string.h>
#include "base/heap.h"
#include "moe/eval.h"
#include "moe/loss.h"
#include "moe/training.h"

/* Logits of groups in runs of consecutive ones, by worker 0's scratch. */
void moe_training_predict(struct moe_training *t, const float *v) {
    struct moe_worker *w = &t->trainer.workers[0];
    size_t T = (size_t)t->x->n_tasks, done = 0;
    for (int i = 0, j; i < t->n_held; i = j) {
        int rows = 0;
        for (j = i;
             j < t->n_held && j - i < t->trainer.groups_max && t->held[j] == t->held[i] + (j - i);
             j++) {
            int more = t->first[t->held[j] + 1] - t->first[t->held[j]];
            if (rows + more > t->trainer.rows_max && j > i)
                break;
            rows += more;
        }
        struct moe_batch b;
        struct moe_pass pass = {.batch = &b};
        moe_examples_view(t->x, t->held[i], j - i, &b);
        moe_forward(t->m, v, &b, w->run, &pass, false);
        memcpy(t->held_p + done * T, w->run->logits, (size_t)rows * T * sizeof(float));
        done += (size_t)rows;
    }
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
