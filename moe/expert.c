/* expert.c: the table of expert kinds, from experts.def. */
#include "moe/expert.h"
#include <string.h>

const struct moe_expert_ops *const moe_experts[] = {
#define EXPERT(name) &moe_expert_##name,
#include "moe/experts.def"
#undef EXPERT
    NULL};

const struct moe_expert_ops *moe_expert_find(const char *name) {
    for (int i = 0; moe_experts[i]; i++)
        if (strcmp(moe_experts[i]->name, name) == 0)
            return moe_experts[i];
    return NULL;
}
