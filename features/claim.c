/* claim.c: what kinds ask of a plan while they are checked: sources, cells, tables, names. */
#include "features/claim.h"
#include <assert.h>
#include <math.h>

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

enum feat_side feat_source_side(const struct feat_source *s) {
    switch (s->from) {
    case FEAT_FROM_USER:
        return FEAT_USER;
    case FEAT_FROM_ITEM:
        return FEAT_ITEM;
    case FEAT_FROM_CONTEXT:
        return FEAT_CONTEXT;
    default:
        return FEAT_CROSS; /* a column of the request belongs to this user and this item */
    }
}

float feat_scaled(int scale, double v) { return (float)(scale == FEAT_SCALE_LOG ? log1p(v) : v); }

static enum status remember(struct feat_plan *p, enum feat_scope scope, struct slice field,
                            bool as_number, int *slot) {
    int i = 0;
    while (i < p->n_fields[scope] && !slice_equal(p->fields[scope][i].name, field))
        i++;
    if (i == FEAT_FIELDS_MAX)
        return fail(STATUS_INVALID_ARGUMENT,
                    "field '%.*s' is the %dth; a plan remembers at most %d fields per scope",
                    SLICE_ARG(field), i + 1, FEAT_FIELDS_MAX);
    struct feat_field *f = &p->fields[scope][i];
    if (i == p->n_fields[scope]) {
        *f = (struct feat_field){.name = arena_dup(&p->arena, field)};
        p->n_fields[scope]++;
    }
    *(as_number ? &f->as_number : &f->as_ids) = true;
    *slot = i;
    return STATUS_OK;
}

enum status feat_plan_source(struct feat_plan *p, struct slice text, bool as_number,
                             struct feat_source *out) {
    static const char *const froms[] = {[FEAT_FROM_ITEM] = "item",
                                        [FEAT_FROM_USER] = "user",
                                        [FEAT_FROM_CONTEXT] = "context",
                                        [FEAT_FROM_CANDIDATE] = "candidate",
                                        NULL};
    const char *dot = text.n == 0 ? NULL : memchr(text.p, '.', text.n);
    struct slice head = {text.p, dot == NULL ? text.n : (size_t)(dot - text.p)};
    int from = 0;
    while (froms[from] != NULL && !slice_is(head, froms[from]))
        from++;
    if (froms[from] == NULL) {
        const char *near = conf_nearest(head, froms);
        return fail(STATUS_INVALID_ARGUMENT,
                    "'%.*s' starts with none of item. user. context. candidate.%s%s%s",
                    SLICE_ARG(text), near ? "; did you mean '" : "", near ? near : "",
                    near ? ".'?" : "");
    }
    if (dot == NULL || head.n + 1 == text.n)
        return fail(STATUS_INVALID_ARGUMENT, "'%.*s' names no field; write %s.FIELD",
                    SLICE_ARG(text), froms[from]);
    struct feat_source s = {.from = (enum feat_from)from, .slot = -1};
    s.field = arena_dup(&p->arena, (struct slice){dot + 1, text.n - head.n - 1});
    bool is_id = slice_is(s.field, "id");
    bool remembered = from == FEAT_FROM_ITEM || from == FEAT_FROM_USER;
    if (remembered && is_id && as_number)
        return fail(STATUS_INVALID_ARGUMENT, "'%.*s' is a name, no number; use kind category",
                    SLICE_ARG(text));
    if (remembered && !is_id) {
        enum feat_scope scope = from == FEAT_FROM_ITEM ? FEAT_SCOPE_ITEM : FEAT_SCOPE_USER;
        TRY(remember(p, scope, s.field, as_number, &s.slot));
    }
    *out = s;
    return STATUS_OK;
}

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
    return fail_in(feat_match_parse(&p->arena, slice_of(text), out), "%s", key);
}

enum status feat_claim_source(struct feat_plan *p, const char *key, const char *text,
                              bool as_number, struct feat_source *out) {
    return fail_in(feat_plan_source(p, slice_of(text), as_number, out), "%s", key);
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
