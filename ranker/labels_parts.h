/* labels_parts.h: what tasks.c reads and labels.c joins. */
#pragma once
#include "ranker/labels.h"

#define RK_TASKS_MAX 32

struct rk_task_conf {
    const char *name, *positive, *given, *esmm;
    int space;
    double weight;
};
struct rk_task_rule {
    struct feat_match positive, given;
    bool has_given, space_all;
};
