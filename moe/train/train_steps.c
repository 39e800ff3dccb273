/* train_steps.c: the trainer without what moe_train does between epochs. Batches are runs of
 * batch_rows groups' worth of rows in one shuffled order, which is kept: how long a step takes does
 * not depend on the order. */
#include "moe/train/train_steps.h"
#include "base/heap.h"
#include "moe/train/training.h"

struct moe_train_steps {
    struct moe_training t;
    struct moe_train_conf conf;
    int at; /* next group of t.train */
};

/* Steps are cheap to plan for: the rate's schedule must not end while somebody measures. */
#define STEPS_PLANNED 10000000

enum status moe_train_steps_new(const struct node *spec, const char *file,
                                const struct moe_task_spec *tasks,
                                const struct moe_examples *examples,
                                const struct moe_train_conf *conf, struct arena *a,
                                struct moe_train_steps **out) {
    struct moe_train_steps *s = HEAP_NEW(struct moe_train_steps);
    struct rng rng;
    s->conf = *conf;
    s->conf.warmup = 0;
    s->conf.pairwise = 0; /* its runs of one user are shuffle's, which is not here */
    s->t = (struct moe_training){.x = examples, .conf = &s->conf};
    enum status status = moe_training_split(&s->t);
    if (status == STATUS_OK)
        status = moe_training_model(&s->t, spec, file, tasks, a);
    if (status != STATUS_OK) {
        moe_train_steps_free(s);
        return status;
    }
    rng_init(&rng, (uint64_t)s->conf.seed);
    rng_shuffle_u32(&rng, (uint32_t *)s->t.train, (uint32_t)s->t.n_train);
    int most =
        s->t.group_rows_max > s->conf.batch_rows ? s->t.group_rows_max : (int)s->conf.batch_rows;
    moe_trainer_init(&s->t.trainer, s->t.m, examples, &s->conf, s->t.first, most,
                     s->t.group_rows_max, STEPS_PLANNED);
    moe_training_weigh(&s->t);
    moe_training_start(&s->t);
    *out = s;
    return STATUS_OK;
}

void moe_train_steps_free(struct moe_train_steps *s) {
    if (!s)
        return;
    if (s->t.trainer.workers)
        moe_trainer_deinit(&s->t.trainer);
    moe_model_free(s->t.m);
    heap_free(s->t.first);
    heap_free(s->t.train);
    heap_free(s->t.held);
    heap_free(s);
}

static int batch_end(const struct moe_train_steps *s, int from) {
    const int *first = s->t.first, *groups = s->t.train;
    int64_t rows = 0;
    int to = from;
    for (; to < s->t.n_train; to++) {
        int more = first[groups[to] + 1] - first[groups[to]];
        if (to > from && rows + more > s->conf.batch_rows)
            break;
        rows += more;
    }
    return to;
}

double moe_train_steps_run(struct moe_train_steps *s, int n) {
    double loss = 0;
    for (int i = 0; i < n; i++) {
        int to = batch_end(s, s->at);
        if (to == s->t.n_train && s->at > 0) { /* the last batch of an epoch may be short */
            s->at = 0;
            to = batch_end(s, 0);
        }
        loss = moe_trainer_step(&s->t.trainer, s->t.train + s->at, to - s->at);
        s->at = to < s->t.n_train ? to : 0;
    }
    return loss;
}

const struct moe_model *moe_train_steps_model(const struct moe_train_steps *s) { return s->t.m; }
