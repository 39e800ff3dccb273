/* bench_score.h: what `bench score` measures with: one model in every form it can be served in,
 * and slates drawn from a pool of items. */
#pragma once
#include "moe/data/examples.h"
#include "moe/model.h"
#include "moe/score/scorer_packed.h"

enum { BENCH_FORMS = 7 };

struct bench_form {
    const char *name; /* "int8+cache"; "reference": the path that every model can take */
    enum moe_precision precision;
    bool cache;
    struct moe_packed *p; /* NULL: not possible here, or the reference */
    void *reference;      /* state of moe_scorer_path_reference */
    void *scratch;
};
struct bench_score {
    struct moe_model *m;
    struct bench_form forms[BENCH_FORMS];
    int rows_max, pool_rows;
    struct moe_batch pool;  /* [pool_rows] candidates, one query */
    struct moe_batch slate; /* [rows_max] copied from the pool, outside all timing */
    float *scores;          /* [n_tasks x rows_max] */
    struct rng rng;
    struct arena arena;
};

/* Takes the model over. int8 uses the model's units, or, without them, units from drawn requests.
 */
enum status bench_score_init(struct bench_score *b, struct moe_model *m, int rows_max,
                             size_t cache_bytes);
void bench_score_deinit(struct bench_score *b);
static inline bool bench_score_has(const struct bench_form *f) { return f->p || f->reference; }
struct bench_form *bench_score_form(struct bench_score *b, const char *name); /* NULL: unknown */
/* Scores the slate into b->scores. watch may be NULL; the reference has no stages. */
void bench_score_run(struct bench_score *b, const struct bench_form *f,
                     const struct packed_watch *watch);
/* The median of `requests` requests in microseconds, each with a new slate. stage_ns may be NULL.
 */
double bench_score_time(struct bench_score *b, const struct bench_form *f, int rows, int requests,
                        int64_t *stage_ns);
/* MFLOP per candidate that the form really needs. */
double bench_score_mflop(const struct bench_score *b, const struct bench_form *f);
/* The model, a slate's network inputs and each form's scores as raw floats with a description, for
 * a rival that shall compute the same. */
enum status bench_score_export(struct bench_score *b, const char *folder, int rows);
