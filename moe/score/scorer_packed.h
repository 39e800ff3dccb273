/* scorer_packed.h: a model compiled for one CPU and precision: packed weights, planned scratch.
 * The fast path behind scorer.h; this header is for the files that build, run, calibrate and test
 * it.
 *
 *   once a request   query part -> start vectors of every first layer that reads the input
 *   per block        gather + encode -> [gates' logits, wide] -> softmax
 *                    per level: experts' layers (the first starts from its vector), side by side
 *                    modules: experts' outputs weighed by the gates
 *                    towers: layers, last one a dot in registers -> + wide -> sigmoid
 *
 * Types: activations of experts are in the scorer's precision, those of gates and towers in fp32
 * or, under bf16 and int8, in bf16. Sums over experts are always fp32. */
#pragma once
#include "moe/score/item_cache.h"
#include "moe/model_impl.h"
#include "moe/score/pack.h"
#include "moe/score/scorer.h"

/* Rows that go through all layers together: their activations stay in L2. Sparse models take
 * more, so that an expert gets two whole tiles, and the more the more experts there are to choose
 * among: 126 up to 16, 252 up to 32. Models that mix rows take the request. */
#define MOE_BLOCK        56
#define MOE_BLOCK_SPARSE 126
#define MOE_BLOCK_MOST   504

/* A product with packed weights: y = act(x W + start). */
struct packed_layer {
    struct moe_pack w;
    const float *start; /* [columns]; NULL: from the request's vector */
    size_t start_at;    /* column of the query's product */
    enum moe_act act;   /* of its output */
    int in, out;
    size_t unit_at; /* of its input, in the order of moe_packed_units; hidden layers only */
    /* int8: how its input is quantised: u8 = round(x * per_unit) + zero */
    const float *per_unit; /* [in, padded] */
    int zero;
};

/* Rows to be multiplied: the model's input or modules of the level before, side by side. */
struct packed_source {
    int n;              /* modules; 0: the input */
    const int *modules; /* [n] */
    int columns;        /* candidate part only */
    size_t unit_at;
    const float *per_unit;
    int zero;
    size_t at_low, at_side;         /* bytes of scratch; equal to each other when the types are */
    size_t low_stride, side_stride; /* bytes */
    bool direct;                    /* fp32, one part: no copy, read in place */
    bool has_own;                   /* a gate's own code reads it */
    size_t at_own;                  /* bytes: floats [block x columns] without gaps, if n > 0 */
    bool has_side;
    struct packed_layer side; /* logits of the gates that read it (and wide): [columns x lanes] */
    size_t at_logits;         /* bytes; [block x logits_stride] */
    size_t logits_stride;     /* floats */
    /* The same in fp32, of gates that choose: who gets a row should not hang on rounding. */
    struct packed_layer choice; /* out 0: none */
    size_t at_choice, choice_stride;
};

/* An expert that a gate blends of others, once a request. */
struct packed_merge {
    const struct moe_gate_use *use; /* its experts stand in the level */
    size_t at_work, at_share;       /* bytes: what bind() takes; floats [n_experts] */
    size_t at_w[MOE_MLP_LAYERS_MAX], at_start[MOE_MLP_LAYERS_MAX]; /* bytes, by layer */
};

struct packed_expert {
    int source, n_layers;
    bool idle;                   /* only blended into others */
    struct packed_merge *merge;  /* NULL: an expert of its own */
    struct packed_layer *layers; /* [n_layers] */
    bool sparse;                 /* runs on the rows that some gate sends */
    int *weights_at;             /* [n_uses] columns of the level's weights */
    int n_uses;
};
enum packed_gate_kind {
    PACKED_ONE,     /* a single expert: weight 1 */
    PACKED_SOFTMAX, /* logits beside the other gates', softmax in registers */
    PACKED_TOP,     /* fp32 logits beside the others', the best k in registers */
    PACKED_CHOICE,  /* the same logits, the choice by the gate's own code (mix.h) */
    PACKED_MERGE,   /* one blended expert, behind the level's own: weight 1 */
    PACKED_OWN,     /* the gate's own code, by rows in fp32 */
};
struct packed_gate {
    enum packed_gate_kind kind;
    int source, n_experts;
    int logits_at; /* SOFTMAX, TOP, CHOICE: column of the source's logits */
    struct moe_top top;
    int at; /* column of the level's weights, a multiple of MOE_LANES */
    const struct moe_gate_use *use;
    /* CHOICE, OWN: bytes: [block x n_experts], what bind() takes; CHOICE: logits without gaps */
    size_t at_route, at_work, at_dense;
};
struct packed_level {
    struct packed_source *sources;
    struct packed_gate *gates;
    struct packed_expert *experts;
    struct moe_module_terms *modules; /* [n_modules] terms in the order of the level's gates */
    int n_sources, n_gates, n_modules, out;
    int n_experts, n_own; /* of them the model's, the others are blends */
    bool sparse;
    size_t at_weights, weights_stride; /* bytes, floats: the gates' weights [block x stride] */
    /* bytes: [n_experts][block] rows of output_bytes. Experts are a row further apart than that, so
     * that mixing does not find all of a row's in the same few sets of the cache. */
    size_t at_outputs, output_bytes, expert_bytes;
    enum moe_precision sum_type;
    size_t at_sums, sums_stride; /* bytes: [n_modules][block x stride] */
};
struct packed_tower {
    int module, n_layers;
    struct packed_layer *layers; /* [n_layers - 1]: the last is the dot */
    const float *dot;            /* [padded width of its input] */
    float dot_base;
};

/* The products of the query part, one column range per first layer that reads the input. */
struct packed_query {
    int columns; /* 0: none */
    struct moe_pack w;
    const float *start; /* the layers' biases (and int8 corrections) */
    size_t at;          /* bytes of scratch: [columns] */
    const float *per_unit;
    int zero;
};

/* Plain numbers that are only standardised, column by column. */
struct packed_numbers {
    int n;                     /* 0: not that simple, encode.c does it */
    const float *mean, *scale; /* [n] */
};

/* The candidate half of an expert's first layer, kept by item. */
struct packed_half {
    size_t at;   /* bytes of a kept row */
    int columns; /* to whole vectors */
    size_t unit_at;
    float *start;    /* int8: takes the inputs' zeros off; else zeros. [columns] */
    int16_t *step;   /* int8: see moe_half. [columns] */
    size_t start_at; /* int8: bytes of scratch: the request's int16 start [columns] */
};
/* All of them; the rows also hold the logits' halves. */
struct packed_halves {
    struct moe_item_cache *cache; /* NULL: off */
    struct packed_half *expert;   /* [experts of level 0]; NULL: this model has none */
    size_t row_bytes, side_at;
    float *side_start; /* zeros */
    /* bytes of scratch: keys of all rows; by parity of the block: kept rows and pins; rows to make
     */
    size_t at_keys, at_rows[2], at_pins[2], at_missing, at_made, at_float;
};

struct moe_packed {
    const struct moe_model *m;
    const struct moe_kernels *k;
    enum moe_precision low, side; /* types of experts; of gates, experts' outputs and towers */
    int rows_max, block;
    bool mixes_rows;
    struct packed_query query_low, query_side, query_choice;
    struct packed_level *levels;
    struct packed_tower *towers;
    int n_levels;
    int wide_at; /* column of the logits of level 0's source `wide_source`; -1: none */
    int wide_source;
    struct packed_numbers numbers[MOE_SIDES];
    size_t hidden_stride, tower_stride;           /* bytes */
    size_t at_query, at_query_low, at_query_side; /* bytes of scratch */
    size_t at_x; /* bytes: floats [block x part[MOE_CAND]] without gaps */
    size_t at_hidden[2], at_float, at_tower[2], at_tower_in, at_logits;
    size_t at_list, at_gathered, at_group; /* sparse experts: rows; OWN gates: zeros [block] */
    size_t scratch_bytes;
    struct packed_halves halves;
    void *weights; /* one block: everything packed */
    size_t weights_bytes;
    struct arena arena; /* the structs above */
};

/* Whether the model is covered: WEIGHTS and, but for int8, MERGE routes, mlp experts. NULL: yes;
 * else what is in the way. */
const char *moe_packed_lacks(const struct moe_model *m, enum moe_precision precision);
/* units: int8 only, see packed_units.h. UNIMPLEMENTED: not covered, or the CPU lacks the
 * precision. */
enum status moe_packed_new(const struct moe_model *m, const struct moe_cpu *cpu,
                           enum moe_precision precision, int rows_max, const float *units,
                           struct moe_packed **out);
void moe_packed_free(struct moe_packed *p);
/* For building: a piece of scratch, aligned to cache lines; the places of item halves; their steps.
 */
size_t moe_packed_take(struct moe_packed *p, size_t bytes);
void moe_packed_shape_halves(struct moe_packed *p);
void moe_packed_fill_halves(struct moe_packed *p, const float *units);
/* Room for what a MERGE gate blends; `e` has its layers' shapes. */
void moe_packed_shape_merge(struct moe_packed *p, const struct moe_gate_use *u,
                            struct packed_expert *e);
/* The second half of moe_packed_new: packs the weights. */
void moe_packed_fill(struct moe_packed *p, const float *units);
/* Keeps item halves from now on, at most `bytes` of them. UNIMPLEMENTED, with the reason, when the
 * model's first level is not a plain one. Not while others score. */
enum status moe_packed_keep_halves(struct moe_packed *p, size_t bytes);
/* Floats of `units`: of the query part, then by level: of each source's candidate part, then of
 * each expert's hidden layers, as the layers' inputs come; last the halves that are kept. Each is
 * the value of one step of the column's int8 activation. */
size_t moe_packed_units(const struct moe_model *m);
/* Inputs of the network: x [n x part[side]], and MOE_LANES zeros behind, from numbers [n x columns]
 * and ids [n x slots]. */
void moe_packed_gather(const struct moe_packed *p, int side, const float *numbers,
                       const uint32_t *ids, int n, float *x);
/* Stages of a request, for profiles. */
enum packed_stage {
    PACKED_QUERY,   /* the query part, once */
    PACKED_GATHER,  /* numbers and ids to inputs */
    PACKED_CONVERT, /* inputs to the products' types */
    PACKED_GATES,   /* logits and softmax */
    PACKED_FIRST,   /* experts' layers but the last */
    PACKED_LAST,    /* experts' last layers */
    PACKED_MIX,     /* their outputs, weighed and added */
    PACKED_TOWERS,  /* with sigmoid */
    PACKED_STAGES
};
const char *moe_packed_stage(enum packed_stage s);

/* Looks on. see (may be NULL) is shown activations on their way: rows [n x columns] as the experts'
 * type stores them, of the columns from `unit` on in the order of moe_packed_units; stride in
 * bytes; `which` rows of the block they are, NULL: 0, 1, .. stage_ns [PACKED_STAGES] (may be NULL)
 * is added to. */
struct packed_watch {
    void *to;
    void (*see)(void *to, size_t unit, const void *rows, size_t stride, int n, int columns,
                const int *which);
    int64_t *stage_ns;
};
/* As moe_scorer_score. watch NULL: nobody looks. */
void moe_packed_score(const struct moe_packed *p, const struct moe_batch *b, void *scratch,
                      float *probabilities, const struct packed_watch *watch);
