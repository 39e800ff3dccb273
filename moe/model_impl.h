/* model_impl.h: the inside of a model, for the files that run, train, pack and store it. Everything
 * here is immutable once the model is published.
 *
 *   batch -> encode + embed -> rows x -> [cross] -> level 0 -> ... -> towers (+ wide) -> logits
 *
 * x = [query numbers | query embeddings | candidate numbers | candidate embeddings]. */
#pragma once
#include "base/arena.h"
#include "moe/attend.h"
#include "moe/cross.h"
#include "moe/embed.h"
#include "moe/encode.h"
#include "moe/fold.h"
#include "moe/level.h"
#include "moe/train/loss.h"
#include "moe/mlp.h"
#include "moe/model.h"
#include "moe/params.h"
#include "moe/position.h"

enum { MOE_QUERY, MOE_CAND, MOE_SIDES };

struct moe_meta {
    const char *key, *value;
    struct moe_meta *next;
};

struct moe_tower {
    struct moe_mlp mlp;
    int module; /* of the last level, its input */
    int tensor;
};

struct moe_model {
    struct arena arena;       /* names, spec, levels: all that pointers below point to */
    struct moe_inputs inputs; /* deep copy */
    int n_tasks;
    const char **tasks;              /* [n_tasks] */
    float *task_weight;              /* [n_tasks] of the training loss */
    struct moe_loss_conf *task_loss; /* [n_tasks] */
    const char *spec_json;           /* canonical: re-reads to the same model */
    struct moe_meta *meta;           /* heap */
    char version[17];                /* "" until moe_model_stamp */

    struct moe_encode encode[MOE_SIDES];
    struct moe_embed_side embed[MOE_SIDES];
    int *table_tensor;      /* [inputs.n_tables] region MOE_TABLE, [rows x dim] */
    int part[MOE_SIDES];    /* columns of the query part dq and of the candidate part dc */
    int numbers[MOE_SIDES]; /* of these, the first so many are plain numbers: no gradient */

    int fold_inputs[MOE_SIDES]; /* the last so many of embed[side].input have one slot and a short
                                   table */
    bool write_out; /* columns that are folded are written out too: something reads rows itself */

    struct moe_cross
        cross; /* cross.n == 0: none; else level 0 sees dq = 0, dc = part[0] + part[1] */
    int cross_tensor;
    struct moe_level *levels; /* [n_levels] */
    int n_levels;
    int calibrate;        /* enum moe_calibrate: what is fitted after training */
    int calibrate_tensor; /* isotonic: [n_tasks x (n, x[], logit[])]; -1: none */
    struct moe_position position;
    struct moe_attend attend; /* columns of the candidate part before those that may be folded */
    struct moe_tower *towers; /* [n_tasks]; logit_t = tower_t(module) + wide_t */
    int wide_tensor; /* -1: none; W [(dq + dc) x n_tasks], b [1 x n_tasks] over x before cross */
    size_t n_stats;  /* of all gates */
    struct moe_params params;
    bool mixes_rows;
};

/* One worker's run: scratch of a planned size, bound once. */
struct moe_run {
    struct moe_plan plan;
    struct moe_rows x; /* the model's input, filled by forward */
    float *q, *c;      /* [groups x dq], [rows x dc] */
    int *group, *start;
    struct moe_fold fold; /* fields of what may be folded; used when x.fold points here */
    int *fold_index[MOE_SIDES];
    float *dtables; /* [dtable_floats] of all fields, one after the other */
    size_t dtable_floats;
    struct moe_rows_grad dx; /* NULL parts: nobody needs them */
    struct moe_cross_state *cross;
    struct moe_rows crossed;
    struct moe_level_state **levels;
    struct moe_mlp_saved **towers;
    struct moe_attend_state *attend;          /* if there is attention */
    struct moe_position_state *position;      /* training, if there is such a tower */
    float *wide_qy, *wide_qdy, *wide, *dwide; /* [.. x n_tasks] */
    float *tower_out, *tower_dout;            /* [n_tasks][rows] */
    float *tower_din;                         /* [rows x out of the last level] of one task */
    float *logits, *dlogits;                  /* [rows x n_tasks] */
};

/* Floats of scratch a run needs; then the same with memory. */
size_t moe_run_floats(const struct moe_model *m, const struct moe_plan *plan);
struct moe_run *moe_run_bind(const struct moe_model *m, const struct moe_plan *plan, float *memory);
/* Fills run->logits. q_ready: the query part (run->q and what follows from it) is still that of
 * the call before; only the candidates are new. v: values in the layout of m->params. */
void moe_forward(const struct moe_model *m, const float *v, const struct moe_batch *b,
                 struct moe_run *run, struct moe_pass *pass, bool q_ready);
/* From run->dlogits. Adds to n->g, n->stats and embed [n_tables] (NULL: no tables). */
void moe_backward(const struct moe_model *m, const struct moe_numbers *n, const struct moe_batch *b,
                  struct moe_run *run, struct moe_pass *pass, struct moe_embed_grad *embed);

/* The section `numbers` of a spec: how plain numbers become inputs; read before fitting. */
struct moe_numbers_conf {
    struct conf_strings encode;
    int64_t bins;
    double clip;
};
enum status moe_spec_numbers(const struct node *spec, const char *file,
                             struct moe_numbers_conf *out, struct arena *a);
enum status moe_spec_encodings(const struct moe_numbers_conf *c, const char *file, unsigned *kinds);

enum moe_calibrate {
    MOE_CALIBRATE_NONE,
    MOE_CALIBRATE_TEMPERATURE,
    MOE_CALIBRATE_PLATT,
    MOE_CALIBRATE_ISOTONIC,
    MOE_CALIBRATE_PLATT_ALL
};
#define MOE_KNOTS 32 /* of an isotonic map, at most; n 0: the logit as it is */

/* Outputs from logits, both [rows x n_tasks]; in place allowed: probabilities, or of tasks with
 * such a loss the number itself. */
void moe_outputs(const struct moe_model *m, int rows, const float *logits, float *out);
/* The isotonic maps are such that moe_outputs can read them; a loaded file may hold anything. */
bool moe_outputs_good(const struct moe_model *m);
/* Every output is the sigmoid of its logit. */
bool moe_outputs_plain(const struct moe_model *m);

/* Builds a model from its spec. inputs and names are copied. encode: fitted, taken over (moved).
 * Parameters are placed and zero. INVALID_ARGUMENT names file, line and key; so does a model of
 * more than floats_max numbers (0: MOE_FLOATS_MAX), before they are allocated. */
#define MOE_FLOATS_MAX ((size_t)1 << 31)
enum status moe_model_build(const struct node *spec, const char *file,
                            const struct moe_inputs *inputs, const char *const *tasks, int n_tasks,
                            struct moe_encode encode[MOE_SIDES], size_t floats_max,
                            struct moe_model **out);
/* The version from spec and floats; call once the floats are final. */
void moe_model_stamp(struct moe_model *m);
