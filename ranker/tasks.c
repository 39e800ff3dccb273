/* tasks.c: the sections `examples` and `tasks`: what an example is, and what makes it positive. The
 * join itself is in labels.c. */
#include "ranker/labels_parts.h"

#define MINUTE_US (60 * 1e6)

const struct conf_item rk_examples_items[] = {
    CONF_STRING(struct rk_examples_conf, from, "from", NULL,
                "An interaction type: each such interaction is an example of its user and item; or "
                "ranking: each shown item of each ranking is one."),
    CONF_INT(struct rk_examples_conf, negatives, "negatives", "0", 0, 1000, "items",
             "Items added to each example, drawn uniformly from those known by then."),
    CONF_TIME(struct rk_examples_conf, window_us, "window", "30m", 0, 366 * 86400e6,
              "How long after an example its interactions count."),
    CONF_INT(struct rk_examples_conf, skip, "skip", "0", 0, 1e12, "examples",
             "The oldest so many only warm the state up."),
    CONF_BOOL(struct rk_examples_conf, cascade, "cascade", "false",
              "Of a ranking, what was shown below the last answered item does not count, and a "
              "ranking without an answer is no example."),
    CONF_INT(struct rk_examples_conf, open_max, "open_max", "100000", 1, 1e8, "examples",
             "How many wait for their window at a time; beyond it the oldest are closed early."),
    CONF_END};

const struct conf_item rk_task_items[] = {
    CONF_STRING(struct rk_task_conf, name, "name", NULL, "Stands in models, answers and figures."),
    CONF_STRING(struct rk_task_conf, positive, "positive", NULL,
                "Which interaction makes an example positive: TYPE [where FIELD OP VALUE]."),
    CONF_STRING(struct rk_task_conf, given, "given", "",
                "Sample space: only examples with such an interaction count; empty: all."),
    CONF_ENUM(struct rk_task_conf, space, "space", "observed", "observed|all",
              "all: sampled negatives count for this task, as label 0."),
    CONF_STRING(struct rk_task_conf, esmm, "esmm", "",
                "This task's event happens only after that task's (an order after a click): its "
                "chance given that is learnt from all examples, by the product of both (ESMM)."),
    CONF_FLOAT(struct rk_task_conf, weight, "weight", "1", 0, 1e6, "", "Of its loss."),
    CONF_END};

static enum status read_task(const struct node *n, int index, const char *file, struct arena *a,
                             struct moe_task_spec *spec, struct rk_task_rule *rule) {
    struct conf_place place = {file, arena_printf(a, "tasks[%d]", index)};
    struct rk_task_conf t;
    TRY(conf_read(rk_task_items, n, place, NULL, &t, a));
    spec->name = t.name;
    spec->weight = t.weight;
    spec->esmm = t.esmm;
    rule->space_all = t.space == 1;
    rule->has_given = t.given[0] != '\0';
    if (*t.esmm && !rule->has_given)
        return fail(STATUS_INVALID_ARGUMENT,
                    "%s:%d: %s: esmm: '%s' needs given: the interaction that task '%s' is about",
                    file, n->line, place.section, t.esmm, t.esmm);
    enum status status = feat_match_parse(a, slice_of(t.positive), &rule->positive);
    if (status == STATUS_OK && rule->has_given)
        status = feat_match_parse(a, slice_of(t.given), &rule->given);
    return fail_in(status, "%s:%d: %s", file, n->line, place.section);
}

static enum status check_names(const struct rk_tasks *t, const char *file) {
    for (int i = 0; i < t->n; i++)
        for (int k = 0; k < i; k++)
            if (strcmp(t->specs[i].name, t->specs[k].name) == 0)
                return fail(STATUS_INVALID_ARGUMENT, "%s: tasks[%d] and tasks[%d] are both '%s'",
                            file, k, i, t->specs[i].name);
    return STATUS_OK;
}

enum status rk_tasks_read(const struct node *root, const char *file, struct arena *a,
                          struct rk_tasks *out) {
    const struct node *list = node_get(root, "tasks");
    if (!list || list->type != NODE_LIST || list->n == 0)
        return fail(STATUS_INVALID_ARGUMENT,
                    "%s: section 'tasks' must be a list of {name, positive}", file);
    if (list->n > RK_TASKS_MAX)
        return fail(STATUS_INVALID_ARGUMENT, "%s:%d: %d tasks; at most %d", file, list->line,
                    list->n, RK_TASKS_MAX);
    struct rk_tasks t = {.n = list->n};
    t.specs = ARENA_ARRAY(a, struct moe_task_spec, t.n);
    t.rules = ARENA_ARRAY(a, struct rk_task_rule, t.n);
    int i = 0;
    for (const struct node *n = list->first; n; n = n->next, i++)
        TRY(read_task(n, i, file, a, &t.specs[i], &t.rules[i]));
    TRY(check_names(&t, file));
    struct conf_place place = {file, "examples"};
    TRY(conf_read(rk_examples_items, node_get(root, "examples"), place, NULL, &t.examples, a));
    *out = t;
    return STATUS_OK;
}
