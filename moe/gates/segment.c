/* segment.c: domain experts (DEMix, Gururangan et al., NAACL 2022; task-level MoE): the value of an
 * id or column (market, device, scenario) names the expert, nothing is learned. With `values`, the
 * i-th listed value goes to expert i (mod N); without, the value mod N does. Rows of an unknown or
 * missing segment mix all experts evenly. */
#include <math.h>
#include "moe/gate_input.h"

struct conf {
    const char *input;
    struct conf_numbers values;
};
static const struct conf_item items[] = {
    CONF_STRING(struct conf, input, "input", "",
                "id or column that names the segment; empty: the first id"),
    CONF_NUMBERS(struct conf, values, "values", "[]", -1e15, 1e15,
                 "the segments, in the order of the experts; empty: value mod N"),
    CONF_END};

static enum status shape(struct moe_gate *g, struct conf_place place, struct arena *a) {
    struct moe_gate_input *in = ARENA_NEW(a, struct moe_gate_input);
    TRY(moe_gate_input_find(g, ((const struct conf *)g->conf)->input, place, in));
    g->shape = in;
    return STATUS_OK;
}

/* -1: unknown */
static int expert_of(const struct conf *c, int n, double value) {
    for (int i = 0; i < c->values.n; i++)
        if (c->values.v[i] == value)
            return i % n;
    if (c->values.n || !isfinite(value))
        return -1;
    double e = fmod(floor(value), n);
    return (int)(e < 0 ? e + n : e);
}

static void forward(const struct moe_gate *g, const struct moe_gate_io *io,
                    const struct moe_rows *x, struct moe_pass *pass, struct moe_route *route) {
    int n = g->n_experts;
    double value;
    (void)io;
    for (int r = 0; r < x->n_rows; r++) {
        float *w = route->w + (size_t)r * (size_t)n;
        bool known = moe_gate_input_read(g->shape, x, pass->batch, r, &value);
        int expert = known ? expert_of(g->conf, n, value) : -1;
        for (int e = 0; e < n; e++)
            w[e] = expert < 0 ? 1 / (float)n : (float)(e == expert);
    }
}

static void backward(const struct moe_gate *g, const struct moe_gate_io *io,
                     const struct moe_rows *x, struct moe_pass *pass, const struct moe_route *route,
                     struct moe_route *d, float *dw, float *stats, const struct moe_rows_grad *dx) {
    (void)g;
    (void)io;
    (void)x;
    (void)pass;
    (void)route;
    (void)d;
    (void)dw;
    (void)stats;
    (void)dx;
}

const struct moe_gate_ops moe_gate_segment = {
    .name = "segment",
    .doc = "an expert for each domain, by id or column; nothing is learned (DEMix, NAACL 2022)",
    .kind = MOE_ROUTE_WEIGHTS,
    .flags = MOE_GATE_SPARSE | MOE_GATE_LINEAR,
    .items = items,
    .conf_bytes = sizeof(struct conf),
    .shape = shape,
    .forward = forward,
    .backward = backward,
};
