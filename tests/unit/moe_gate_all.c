/* Every kind of gate of the table alone on a bench, with its default settings and with others:
 * gradients of route and auxiliary losses towards parameters and inputs, nothing random in
 * inference, equal seeds equal results, rows independent unless the kind says otherwise, groups
 * never mixed, degenerate sizes. tests/contract/moe_gradients.c runs the same kinds in whole
 * models. */
#include "moe/math/blas.h"
#include "tests/support/moe_gate_lab.h"

struct variant {
    const char *kind, *settings;
};
/* Settings that switch on what the defaults leave out. Kinds without a line run with defaults. */
static const struct variant variants[] = {
    {"softmax", "{\"dropout\":0.3}"},
    {"sigmoid", "{\"normalise\":true,\"scale\":3,\"dropout\":0.2,\"z_loss\":0.1}"},
    {"noisy_topk", "{\"k\":3,\"importance_loss\":2,\"load_loss\":3,\"dropout\":0.2}"},
    {"noisy_topk", "{\"importance_loss\":0,\"load_loss\":5,\"capacity\":1}"},
    {"deepseek", "{\"normalise\":false,\"k\":1,\"rule\":\"proportional\",\"dropout\":0.3}"},
    {"deepseek", "{\"scale\":2.5,\"groups\":3,\"groups_kept\":1,\"capacity\":0.7}"},
    {"topk", "{\"order\":\"topk_softmax\",\"scale\":2.5,\"z_loss\":0.01,\"jitter\":0.1}"},
    {"topk", "{\"renormalise\":false,\"k\":3,\"groups\":3,\"groups_kept\":2,"
             "\"temperature\":0.5}"},
    {"topk", "{\"capacity\":1,\"priority\":\"weight\",\"dropout\":0.3}"},
    {"topk", "{\"capacity\":0.8,\"capacity_in\":\"always\",\"aux_over\":\"step\"}"},
    {"cosine", "{\"renormalise\":true,\"k\":3,\"dim\":3,\"aux_loss\":1}"},
    {"cosine", "{\"temperature\":0.1,\"order\":\"topk_softmax\",\"scale\":0.5}"},
    {"relu", "{\"lambda\":0.5,\"bias\":true,\"k\":1.5}"},
    {"relu", "{\"lambda\":0.3,\"balance\":false,\"bias\":false}"},
    {"dselectk", "{\"gamma\":2,\"entropy_loss\":0.7,\"reach_loss\":0.4,\"k\":3}"},
    {"dselectk", "{\"gamma\":1.2,\"entropy_loss\":0.7,\"reach_loss\":0.4,"
                 "\"per_example\":false}"},
    {"hash", "{\"input\":\"item\",\"buckets\":16}"},
    {"segment", "{\"input\":\"segment\",\"values\":[10,20,40]}"},
    {"expert_choice", "{\"capacity\":1.2,\"z_loss\":0.1,\"dropout\":0.2}"},
    {"base_assign", "{\"dropout\":0.2,\"temperature\":0.5}"},
    {"sinkhorn", "{\"k\":3,\"dropout\":0.2,\"z_loss\":0.1}"},
    {"soft", "{\"slots\":2,\"scale\":3}"},
    {"smear", "{\"z_loss\":0.2,\"dropout\":0.3,\"jitter\":0.2}"},
    {"switch", "{\"jitter\":0.2,\"z_loss\":0.1,\"capacity\":1.25,\"aux_loss\":1}"},
    {"gshard", "{\"capacity\":1,\"aux_loss\":1,\"random_second\":false}"},
};
#define N_VARIANTS ((int)(sizeof variants / sizeof *variants))

static const struct lab_size usual = {3, 4, 6, 4, 22};

static void each(void (*run)(struct lab *l, const char *what), struct lab_size size) {
    char what[512];
    struct lab l;
    for (int i = 0; moe_gates[i]; i++) {
        snprintf(what, sizeof what, "%s", moe_gates[i]->name);
        if (CHECK_OK(lab_open(&l, moe_gates[i]->name, "{}", size, 5)))
            run(&l, what);
        lab_close(&l);
    }
    for (int i = 0; i < N_VARIANTS; i++) {
        snprintf(what, sizeof what, "%s %s", variants[i].kind, variants[i].settings);
        if (strstr(variants[i].settings, "groups") && size.n_experts != usual.n_experts)
            continue;
        if (CHECK_OK(lab_open(&l, variants[i].kind, variants[i].settings, size, 5)))
            run(&l, what);
        lab_close(&l);
    }
}

/* --- gradients ----------------------------------------------------------------------------------
 */

static void gradients(struct lab *l, const char *what) {
    lab_shake(l, 0.3, 8);
    struct lab_check training = lab_check(l, true, 2e-3), inference = lab_check(l, false, 2e-3);
    if (!(training.worst < 1e-3 && inference.worst < 1e-3))
        printf("\n    %s: off by %g in training, %g in inference\n", what, training.worst,
               inference.worst);
    CU_ASSERT(training.worst < 1e-3);
    CU_ASSERT(inference.worst < 1e-3);
    if (training.skipped * 2 > training.checked)
        printf("\n    %s: %d kinks, %d checked\n", what, training.skipped, training.checked);
    CU_ASSERT(training.skipped * 2 <= training.checked);
}
static void test_gradients(void) { each(gradients, usual); }
static void test_gradients_without_query_part(void) {
    each(gradients, (struct lab_size){0, 5, 6, 4, 22});
}
static void test_gradients_without_candidate_part(void) {
    each(gradients, (struct lab_size){5, 0, 6, 7, 22});
}
static void test_gradients_of_few(void) {
    static const struct lab_size sizes[] = {
        {3, 4, 1, 2, 9}, {3, 4, 2, 2, 9}, {3, 4, 3, 1, 1}, {2, 2, 5, 6, 6}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        each(gradients, sizes[i]);
}

/* Backward passes that are a little wrong: in a parameter, in an input. */
static void wrong_parameters(const struct moe_gate *g, const struct moe_gate_io *io,
                             const struct moe_rows *x, struct moe_pass *pass,
                             const struct moe_route *route, struct moe_route *d, float *dw,
                             float *stats, const struct moe_rows_grad *dx) {
    moe_gate_topk.backward(g, io, x, pass, route, d, dw, stats, dx);
    dw[0] += 0.01f;
}
static void wrong_inputs(const struct moe_gate *g, const struct moe_gate_io *io,
                         const struct moe_rows *x, struct moe_pass *pass,
                         const struct moe_route *route, struct moe_route *d, float *dw,
                         float *stats, const struct moe_rows_grad *dx) {
    moe_gate_topk.backward(g, io, x, pass, route, d, dw, stats, dx);
    dx->q[1] += 0.01f;
}
static void test_the_check_can_fail(void) {
    for (int i = 0; i < 3; i++) {
        struct moe_gate_ops ops = moe_gate_topk;
        struct lab l;
        ops.backward = i == 0 ? ops.backward : i == 1 ? wrong_parameters : wrong_inputs;
        if (CHECK_OK(lab_open(&l, "topk", "{\"k\":2,\"z_loss\":0.3}", usual, 5))) {
            l.g.ops = &ops;
            double worst = lab_check(&l, true, 2e-3).worst;
            CU_ASSERT(i == 0 ? worst < 1e-3 : worst > 3e-3);
        }
        lab_close(&l);
    }
}

/* --- one row and its rivals ---------------------------------------------------------------------
 */

/* Runs the gate on rows [from, to), all of one group or of several, as if there were no others;
 * reversed: the last first. The route lands in l->d. */
static void run_part(struct lab *l, int from, int to, bool reversed) {
    struct moe_rows x = lab_rows(l);
    int rows = to - from, first = l->group[from], group[64];
    float *c = HEAP_ARRAY(float, rows * l->size.dc + 1);
    uint32_t *ids = HEAP_ARRAY(uint32_t, rows * 2 + 1);
    for (int i = 0; i < rows; i++) {
        int row = reversed ? to - 1 - i : from + i;
        memcpy(c + i * l->size.dc, l->c + row * l->size.dc, sizeof(float) * (size_t)l->size.dc);
        memcpy(ids + 2 * i, l->cand_ids + 2 * row, 2 * sizeof *ids);
        group[i] = l->group[from + i] - first;
    }
    x.n_rows = rows;
    x.n_groups = group[rows - 1] + 1;
    x.q = l->q + first * l->size.dq;
    x.c = c;
    x.group = group;
    x.start = NULL; /* the gates here find borders in group[] */
    struct moe_batch batch = {.n_groups = x.n_groups,
                              .n_rows = rows,
                              .query = l->query + 2 * first,
                              .query_ids = l->query_ids + first,
                              .cand_ids = ids,
                              .group = group};
    struct moe_pass pass = {.batch = &batch};
    struct moe_gate_io io = {lab_w(l), lab_buffers(l), l->saved};
    l->d.n_rows = rows;
    l->d.n_groups = x.n_groups;
    l->g.ops->forward(&l->g, &io, &x, &pass, &l->d);
    heap_free(c);
    heap_free(ids);
}

/* Row (of MERGE: group) `a` of the full route against `b` of the part. */
static bool equal_rows(const struct lab *l, int a, int b) {
    size_t n = (size_t)(l->g.ops->kind == MOE_ROUTE_SLOTS ? l->g.n_slots : l->g.n_experts);
    for (int i = 0; i < 2; i++) {
        const float *full = lab_part(l, &l->route, i), *part = lab_part(l, &l->d, i);
        if (full && memcmp(full + (size_t)a * n, part + (size_t)b * n, n * sizeof(float)) != 0)
            return false;
    }
    return true;
}

static void independent(struct lab *l, const char *what) {
    bool merge = l->g.ops->kind == MOE_ROUTE_MERGE, mixes = l->g.flags & MOE_GATE_MIXES_ROWS;
    int was = moe_gemm_set_exact(1), alone_differs = 0, group_differs = 0, order_differs = 0;
    lab_shake(l, 0.5, 4);
    lab_loss(l, false);
    for (int r = 0; r < l->size.n_rows; r++) {
        run_part(l, r, r + 1, false);
        alone_differs += !equal_rows(l, merge ? l->group[r] : r, 0);
    }
    for (int g = 0; g < l->size.n_groups; g++)
        for (int order = 0; order < 2; order++) {
            int from = l->start[g], to = l->start[g + 1];
            if (from == to)
                continue;
            run_part(l, from, to, order);
            for (int r = from; r < to; r++) {
                int at = merge ? 0 : order ? to - 1 - r : r - from;
                bool same = equal_rows(l, merge ? g : r, at);
                *(order ? &order_differs : &group_differs) += !same;
            }
        }
    moe_gemm_set_exact(was);
    if (group_differs || (!mixes && (alone_differs || order_differs)))
        printf("\n    %s: %d rows differ alone, %d reversed, %d without other groups\n", what,
               alone_differs, order_differs, group_differs);
    CU_ASSERT(group_differs == 0); /* nobody looks over a group's border */
    CU_ASSERT(mixes || (alone_differs == 0 && order_differs == 0));
    CU_ASSERT(!mixes || alone_differs > 0); /* the flag is not raised for nothing */
}
static void test_rows_are_independent_or_say_so(void) { each(independent, usual); }

/* --- randomness, statistics ---------------------------------------------------------------------
 */

static bool same_route(struct lab *l, uint64_t a, uint64_t b, bool training) {
    size_t n = lab_route_floats(l);
    double loss[2];
    bool same = true;
    for (int i = 0; i < 2; i++) {
        l->noise = i ? b : a;
        loss[i] = lab_loss(l, training);
        for (int k = 0; k < 2; k++) {
            float *now = lab_part(l, &l->route, k), *kept = lab_part(l, &l->d, k);
            if (now && i == 0)
                memcpy(kept, now, n * sizeof *now);
            else if (now)
                same &= memcmp(kept, now, n * sizeof *now) == 0;
        }
    }
    return same && loss[0] == loss[1];
}
static void randomness(struct lab *l, const char *what) {
    CU_ASSERT(same_route(l, 3, 3, true));
    CU_ASSERT(same_route(l, 3, 4, false));
    bool differs = !same_route(l, 3, 4, true), says = l->g.flags & MOE_GATE_STOCHASTIC;
    if (differs != says)
        printf("\n    %s: %s\n", what, says ? "draws nothing" : "draws, but is not STOCHASTIC");
    CU_ASSERT(differs == says);
}
static void test_noise_only_in_training(void) { each(randomness, usual); }

static void statistics(struct lab *l, const char *what) {
    (void)what;
    lab_backward(l, false);
    CU_ASSERT(l->aux == 0);
    for (int i = 0; i < l->g.n_stats; i++)
        CU_ASSERT(l->stats[i] == 0);
    float *before = HEAP_ARRAY(float, l->g.buffers.floats + 1);
    memcpy(before, lab_buffers(l) ? lab_buffers(l) : before, l->g.buffers.floats * sizeof(float));
    /* a step that saw no rows leaves the buffers alone, but for counters of steps */
    if (l->g.ops->after_step && l->g.buffers.floats && strcmp(l->g.ops->name, "hash") != 0) {
        l->g.ops->after_step(&l->g, l->stats, lab_buffers(l));
        CU_ASSERT(memcmp(before, lab_buffers(l), l->g.buffers.floats * sizeof(float)) == 0);
    }
    heap_free(before);
}
static void test_statistics_only_in_training(void) { each(statistics, usual); }

/* Scratch planned for serving holds nothing of training, and is enough. */
static void serving_plan(struct lab *l, const char *what) {
    struct moe_plan plan = {l->size.n_rows, l->size.n_groups, false};
    struct moe_work work = {0};
    if (!l->g.ops->bind)
        return;
    lab_loss(l, false);
    l->g.ops->bind(&l->g, &plan, &work);
    float *memory = heap_alloc_aligned((work.used + 1) * sizeof(float));
    work = (struct moe_work){.base = memory};
    struct moe_gate_io io = {lab_w(l), lab_buffers(l), l->g.ops->bind(&l->g, &plan, &work)};
    struct moe_rows x = lab_rows(l);
    struct moe_pass pass = {.batch = &l->batch};
    l->g.ops->forward(&l->g, &io, &x, &pass, &l->d);
    for (int i = 0; i < 2; i++)
        if (lab_part(l, &l->route, i))
            CU_ASSERT(memcmp(lab_part(l, &l->route, i), lab_part(l, &l->d, i),
                             lab_route_floats(l) * sizeof(float)) == 0);
    heap_free(memory);
    (void)what;
}
static void test_serving_needs_no_training_scratch(void) { each(serving_plan, usual); }

/* --- sizes --------------------------------------------------------------------------------------
 */

static void sane(struct lab *l, const char *what) {
    bool fine = true;
    for (int training = 0; training < 2; training++) {
        lab_backward(l, training);
        for (int i = 0; i < 2; i++)
            for (size_t k = 0; lab_part(l, &l->route, i) && k < lab_route_floats(l); k++)
                fine &= isfinite(lab_part(l, &l->route, i)[k]) && lab_part(l, &l->route, i)[k] >= 0;
        for (size_t i = 0; i < l->g.params.floats; i++)
            fine &= isfinite(l->grad[i]);
    }
    if (!fine)
        printf("\n    %s: not finite, or negative\n", what);
    CU_ASSERT(fine);
}
static void huge(struct lab *l, const char *what) {
    for (int i = 0; i < l->size.n_groups * l->size.dq; i++)
        l->q[i] *= 3e3f;
    for (int i = 0; i < l->size.n_rows * l->size.dc; i++)
        l->c[i] *= 3e3f;
    lab_shake(l, 1, 3);
    sane(l, what);
}
static void test_sizes(void) {
    static const struct lab_size sizes[] = {{3, 4, 1, 1, 1}, {3, 4, 1, 3, 0}, {3, 4, 5, 1, 0},
                                            {0, 1, 2, 1, 1}, {1, 0, 3, 2, 5}, {2, 3, 33, 5, 9},
                                            {2, 3, 3, 9, 4}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        each(sane, sizes[i]);
}
static void test_logits_of_ten_thousand(void) { each(huge, usual); }

/* Not-a-number in, nothing worse than not-a-number out: the trainer sees it in the loss. */
static void poisoned(struct lab *l, const char *what) {
    (void)what;
    l->c[0] = NAN;
    l->c[l->size.dc * 3] = INFINITY;
    lab_backward(l, true);
    lab_backward(l, false);
}
static void test_nan_does_no_harm(void) { each(poisoned, usual); }

SUITE("moe_gate_all", TEST(test_gradients), TEST(test_gradients_without_query_part),
      TEST(test_gradients_without_candidate_part), TEST(test_gradients_of_few),
      TEST(test_the_check_can_fail), TEST(test_rows_are_independent_or_say_so),
      TEST(test_noise_only_in_training), TEST(test_statistics_only_in_training),
      TEST(test_serving_needs_no_training_scratch), TEST(test_sizes),
      TEST(test_logits_of_ten_thousand), TEST(test_nan_does_no_harm))
