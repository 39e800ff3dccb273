/* source.c: where a feature's value comes from: the text of a `source:` setting, and reading it at
 * a row. "A or B" is the first that has a value: a candidate's own number in the request, say, or
 * else what item events said. */
#include "features/claim.h"
#include "features/forms.h"
#include "features/keys.h"
#include <math.h>

/* ---- settings ---- */

static enum status remember(struct feat_plan *p, enum feat_scope scope, struct slice field,
                            enum feat_form form, int *slot) {
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
    f->forms |= 1u << form;
    *slot = i;
    return STATUS_OK;
}

static enum status find_from(struct slice text, struct slice head, enum feat_from *out) {
    static const char *const froms[] = {[FEAT_FROM_ITEM] = "item",
                                        [FEAT_FROM_USER] = "user",
                                        [FEAT_FROM_CONTEXT] = "context",
                                        [FEAT_FROM_CANDIDATE] = "candidate",
                                        NULL};
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
    *out = (enum feat_from)from;
    return STATUS_OK;
}

static enum status parse_one(struct feat_plan *p, struct slice text, enum feat_form form,
                             struct feat_source *out) {
    const char *dot = text.n == 0 ? NULL : memchr(text.p, '.', text.n);
    struct slice head = {text.p, dot == NULL ? text.n : (size_t)(dot - text.p)};
    struct feat_source s = {.form = form, .slot = -1};
    TRY(find_from(text, head, &s.from));
    if (dot == NULL || head.n + 1 == text.n)
        return fail(STATUS_INVALID_ARGUMENT, "'%.*s' names no field; write %.*s.FIELD",
                    SLICE_ARG(text), SLICE_ARG(head));
    s.field = arena_dup(&p->arena, (struct slice){dot + 1, text.n - head.n - 1});
    if (s.field.n > 3 && memcmp(s.field.p + s.field.n - 3, " or", 3) == 0)
        return fail(STATUS_INVALID_ARGUMENT, "'%.*s' names nothing after its 'or'",
                    SLICE_ARG(text));
    bool is_id = slice_is(s.field, "id");
    bool remembered = s.from == FEAT_FROM_ITEM || s.from == FEAT_FROM_USER;
    if (remembered && is_id && form != FEAT_AS_IDS)
        return fail(STATUS_INVALID_ARGUMENT, "'%.*s' is a name, no number; use kind category",
                    SLICE_ARG(text));
    if (remembered && !is_id) {
        enum feat_scope scope = s.from == FEAT_FROM_ITEM ? FEAT_SCOPE_ITEM : FEAT_SCOPE_USER;
        TRY(remember(p, scope, s.field, form, &s.slot));
    }
    *out = s;
    return STATUS_OK;
}

enum status feat_plan_source(struct feat_plan *p, struct slice text, enum feat_form form,
                             struct feat_source *out) {
    struct slice first = text;
    for (size_t i = 0; i + 4 < text.n; i++)
        if (memcmp(text.p + i, " or ", 4) == 0) {
            first.n = i;
            break;
        }
    struct feat_source s;
    TRY(parse_one(p, first, form, &s));
    if (first.n < text.n) {
        struct feat_source *other = ARENA_NEW(&p->arena, struct feat_source);
        struct slice rest = {text.p + first.n + 4, text.n - first.n - 4};
        TRY(feat_plan_source(p, rest, form, other));
        s.or_else = other;
    }
    *out = s;
    return STATUS_OK;
}

enum feat_side feat_side_join(enum feat_side a, enum feat_side b) {
    if (a == b)
        return a;
    bool query = a <= FEAT_CONTEXT && b <= FEAT_CONTEXT;
    return query ? FEAT_CONTEXT : FEAT_CROSS;
}

enum feat_side feat_source_side(const struct feat_source *s) {
    static const enum feat_side sides[] = {
        [FEAT_FROM_ITEM] = FEAT_ITEM,
        [FEAT_FROM_USER] = FEAT_USER,
        [FEAT_FROM_CONTEXT] = FEAT_CONTEXT,
        [FEAT_FROM_CANDIDATE] = FEAT_CROSS /* belongs to this user and this item */
    };
    enum feat_side side = sides[s->from];
    return s->or_else == NULL ? side : feat_side_join(side, feat_source_side(s->or_else));
}

/* ---- reading ---- */

const struct ev_value *feat_source_context(const struct feat_source *s, const struct feat_read *r) {
    return ev_field_get(r->request->context, r->request->n_context, s->field.p);
}

/* A request's column, as the value it would be in an event. */
static bool candidate_value(const struct feat_source *s, const struct feat_read *r, int row,
                            struct ev_value *out) {
    for (int i = 0; row >= 0 && i < r->request->n_columns; i++) {
        if (!slice_equal(r->request->column_names[i], s->field))
            continue;
        *out = (struct ev_value){EV_NUMBER, .number = (double)r->request->column_values[i][row]};
        return isfinite(out->number);
    }
    return false;
}

/* A value that the request itself carries, or NULL. */
static const struct ev_value *carried(const struct feat_source *s, const struct feat_read *r,
                                      int row, struct ev_value *memory) {
    if (s->from == FEAT_FROM_CONTEXT)
        return feat_source_context(s, r);
    return s->from == FEAT_FROM_CANDIDATE && candidate_value(s, r, row, memory) ? memory : NULL;
}

static const struct feat_record *source_record(const struct feat_source *s,
                                               const struct feat_read *r, int row) {
    return feat_read_record(r, s->from == FEAT_FROM_ITEM ? FEAT_SCOPE_ITEM : FEAT_SCOPE_USER, row);
}

static bool is_remembered(const struct feat_source *s) {
    return s->from == FEAT_FROM_ITEM || s->from == FEAT_FROM_USER;
}

bool feat_source_number(const struct feat_source *s, const struct feat_read *r, int row,
                        double *out) {
    for (; s != NULL; s = s->or_else) {
        struct ev_value memory;
        const struct ev_value *v = carried(s, r, row, &memory);
        if (v != NULL && feat_form_number(s->form, v, out))
            return true;
        if (is_remembered(s) && feat_record_number(source_record(s, r, row), s->slot, s->form, out))
            return true;
    }
    return false;
}

static int own_name(const struct feat_source *s, const struct feat_read *r, int row,
                    uint64_t *out) {
    out[0] = s->from == FEAT_FROM_ITEM ? r->item_keys[row] : r->user_key;
    return out[0] != 0;
}

int feat_source_ids(const struct feat_source *s, const struct feat_read *r, int row,
                    uint64_t *out) {
    for (int n = 0; s != NULL; s = s->or_else) {
        struct ev_value memory;
        const struct ev_value *v = carried(s, r, row, &memory);
        if (v != NULL)
            n = feat_value_keys(v, out);
        else if (is_remembered(s))
            n = s->slot < 0 ? own_name(s, r, row, out)
                            : feat_record_ids(source_record(s, r, row), s->slot, out);
        if (n > 0)
            return n;
    }
    return 0;
}

int feat_source_hashes(const struct feat_source *s, const struct feat_read *r, int row,
                       uint32_t *out) {
    for (int n = 0; s != NULL; s = s->or_else) {
        struct ev_value memory;
        const struct ev_value *v = carried(s, r, row, &memory);
        if (v != NULL)
            n = feat_form_hashes(s->form, v, out);
        else if (is_remembered(s))
            n = feat_record_hashes(source_record(s, r, row), s->slot, s->form, out);
        if (n > 0)
            return n;
    }
    return 0;
}

int feat_source_vector(const struct feat_source *s, const struct feat_read *r, int row,
                       double *out) {
    for (int n = 0; s != NULL; s = s->or_else) {
        struct ev_value memory;
        const struct ev_value *v = carried(s, r, row, &memory);
        if (v != NULL)
            n = feat_form_vector(v, out);
        else if (is_remembered(s))
            n = feat_record_vector(source_record(s, r, row), s->slot, out);
        if (n > 0)
            return n;
    }
    return 0;
}
