/* Every kind of gate of the table alone on a bench, with its default settings and with others:
 * gradients of route and auxiliary losses towards parameters and inputs, nothing random in
 * inference, equal seeds equal results, rows independent unless the kind says otherwise, groups
 * never mixed, degenerate sizes. tests/contract/moe_gradients.c runs the same kinds in whole
 * models. */
#include <stdlib.h>
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
    {"relu", "{\"lambda\":0.3,\"balance\":false}"},
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
        if (strstr(variants[i].settings, "groups") && size.n_experts % 3)
            continue;
        if (CHECK_OK(lab_open(&l, variants[i].kind, variants[i].settings, size, 5)))
            run(&l, what);
        lab_close(&l);
    }
}
static const struct lab_size usual = {3, 4, 6, 4, 22};

static void gradients(struct lab *l, const char *what) {
    lab_shake(l, 0.3, 8);
    struct lab_check training = lab_check(l, true, 2e-3), inference = lab_check(l, false, 2e-3);
    if (getenv("LAB_SHOW"))
        printf("%s: %g %g checked %d skipped %d\n", what, training.worst, inference.worst,
               training.checked, training.skipped);
    if (!(training.worst < 1e-3 && inference.worst < 1e-3))
        printf("\n    %s: off by %g in training, %g in inference\n", what, training.worst,
               inference.worst);
    CU_ASSERT(training.worst < 1e-3);
    CU_ASSERT(inference.worst < 1e-3);
    if (training.skipped * 3 > training.checked)
        printf("\n    %s: %d kinks, %d checked\n", what, training.skipped, training.checked);
    CU_ASSERT(training.skipped * 3 <= training.checked);
}
static void test_gradients(void) { each(gradients, usual); }
static void test_gradients_without_query_part(void) {
    each(gradients, (struct lab_size){0, 5, 6, 4, 22});
}

SUITE("moe_gate_all", TEST(test_gradients), TEST(test_gradients_without_query_part))
