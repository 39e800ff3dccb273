/* claim.c: what kinds ask of a plan while they are checked: cells, tables, names. Sources are in
 * source.c, crossed scopes in places.c. */
#include "features/claim.h"
#include <assert.h>
#include <math.h>
#include <stdlib.h>

enum feat_side feat_scope_side(enum feat_scope scope) {
    switch (scope) {
    case FEAT_SCOPE_USER:
        return FEAT_USER;
    case FEAT_SCOPE_ITEM:
        return FEAT_ITEM;
    default:
        return FEAT_CONTEXT; /* a session is not the user's alone: nothing of it is cached */
    }
}

float feat_scaled(int scale, double v) { return (float)(scale == FEAT_SCALE_LOG ? log1p(v) : v); }

void feat_plan_cell(struct feat_plan *p, struct feat *f, enum feat_scope scope) {
    assert(f->n_cells < FEAT_CELLS_MAX);
    f->cells[f->n_cells++] = (struct feat_cell_ref){scope, p->n_cells[scope]++};
}

enum status feat_plan_table(struct feat_plan *p, const char *name, uint32_t rows, int dim,
                            int *out) {
    for (int i = 0; i < p->n_tables; i++) {
        const struct feat_table *t = &p->tables[i];
        if (strcmp(t->name, name) != 0)
            continue;
        if (t->rows != rows || t->dim != dim)
            return fail(STATUS_INVALID_ARGUMENT,
                        "table '%s' has %u rows of %d where an earlier feature gives it; here %u "
                        "rows of %d",
                        name, t->rows, t->dim, rows, dim);
        *out = i;
        return STATUS_OK;
    }
    p->tables[p->n_tables] = (struct feat_table){name, rows, dim};
    *out = p->n_tables++;
    return STATUS_OK;
}

/* While a plan is read, features not read yet are NULL. */
const struct feat *feat_plan_find(const struct feat_plan *p, const char *name) {
    for (int i = 0; i < p->n_features; i++)
        if (p->features[i] != NULL && strcmp(p->features[i]->name, name) == 0)
            return p->features[i];
    return NULL;
}

enum status feat_claim_match(struct feat_plan *p, const char *key, const char *text,
                             struct feat_match *out) {
    TRY(fail_in(feat_match_parse(&p->arena, slice_of(text), out), "%s", key));
    p->wanted |= out->is_impression ? FEAT_WANTS_IMPRESSIONS : FEAT_WANTS_INTERACTIONS;
    if (out->op != FEAT_MATCH_ALL)
        p->wanted |= FEAT_WANTS_FIELDS;
    return STATUS_OK;
}

enum status feat_claim_source(struct feat_plan *p, const char *key, const char *text,
                              enum feat_form form, struct feat_source *out) {
    return fail_in(feat_plan_source(p, slice_of(text), form, out), "%s", key);
}

enum status feat_claim_number(const char *key, const char *text, double *out) {
    char *end;
    double v = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(v))
        return fail(STATUS_INVALID_ARGUMENT, "%s: '%s' is not a number", key, text);
    *out = v;
    return STATUS_OK;
}

enum status feat_claim_feature(const struct feat_plan *p, const char *key, const char *name,
                               const char *kind, const struct feat **out) {
    const struct feat *f = feat_plan_find(p, name);
    if (f == NULL || strcmp(f->kind->name, kind) != 0)
        return fail(STATUS_INVALID_ARGUMENT, "%s: '%s' is no earlier feature of kind %s", key, name,
                    kind);
    *out = f;
    return STATUS_OK;
}

const char *feat_time_word(struct feat_plan *p, int64_t time_us) {
    static const struct {
        int64_t us;
        const char *word;
    } units[] = {
        {86400000000, "d"}, {3600000000, "h"}, {60000000, "m"}, {1000000, "s"}, {1000, "ms"}};
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++)
        if (time_us >= units[i].us && time_us % units[i].us == 0)
            return arena_printf(&p->arena, "%lld%s", (long long)(time_us / units[i].us),
                                units[i].word);
    return arena_printf(&p->arena, "%lldus", (long long)time_us);
}
