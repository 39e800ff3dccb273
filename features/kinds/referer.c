/* referer.c: what led here: search, social, mail, an advertisement, the site itself, told from the
 * address in a Referer field (features/agent.h), as a column each. Of the request alone, or of
 * everything that came with the user's or session's rankings and interactions so far: then several
 * columns may be 1. Cell: one bit per medium; bits are only ever set, so order does not matter. */
#include "features/agent.h"
#include "features/claim.h"
#include "features/codec.h"

enum { REMEMBER_NONE, REMEMBER_USER, REMEMBER_SESSION };

struct params {
    const char *source_text;
    struct conf_strings internal;
    int remember;
    struct feat_source source;
};

static const struct conf_item items[] = {
    CONF_STRING(struct params, source_text, "source", NULL,
                "context.FIELD, or user.FIELD; the address of the page before."),
    CONF_STRINGS(struct params, internal, "internal", "[]",
                 "The site's own hosts, those below them included; not for user.FIELD."),
    CONF_ENUM(struct params, remember, "remember", "none", "none|user|session",
              "Also what came in FIELD of the user's or session's rankings and interactions."),
    CONF_END};

static enum status check(struct feat_plan *p, struct feat *f) {
    struct params *m = f->params;
    TRY(feat_claim_source(p, "source", m->source_text, FEAT_AS_MEDIUM, &m->source));
    bool of_user = m->source.from == FEAT_FROM_USER;
    if ((m->source.from != FEAT_FROM_CONTEXT && !of_user) || m->source.or_else != NULL)
        return fail(STATUS_INVALID_ARGUMENT, "source: '%s' is neither context.FIELD nor user.FIELD",
                    m->source_text);
    if (of_user && (m->remember != REMEMBER_NONE || m->internal.n > 0))
        return fail(STATUS_INVALID_ARGUMENT, "%s: has a meaning only with context.FIELD",
                    m->internal.n > 0 ? "internal" : "remember");
    f->side = m->remember == REMEMBER_USER ? FEAT_CONTEXT : feat_source_side(&m->source);
    if (m->remember != REMEMBER_NONE)
        feat_plan_cell(p, f, m->remember == REMEMBER_USER ? FEAT_SCOPE_USER : FEAT_SCOPE_SESSION);
    f->n_columns = FEAT_MEDIUMS;
    f->column_names = feat_medium_words;
    return STATUS_OK;
}

/* The bit of the address in a field, 0 when it is no text. */
static uint64_t bit_of(const struct params *m, const struct ev_value *v) {
    if (v == NULL || v->type != EV_STRING)
        return 0;
    return 1ull << feat_medium_parse(v->string, m->internal.v, m->internal.n);
}

static bool apply(const struct feat *f, const struct feat_update *u, struct slice old,
                  struct buf *out) {
    const struct params *m = f->params;
    struct cursor c = cursor_of(old.p, old.n);
    uint64_t was = old.n == 0 ? 0 : feat_get_varint(&c);
    uint64_t is =
        was | bit_of(m, ev_field_get(u->event->fields, u->event->n_fields, m->source.field.p));
    if (is == was)
        return false;
    buf_add_varint(out, is);
    return true;
}

static void extract(const struct feat *f, struct feat_read *r, int row, float *dense,
                    uint32_t *ids) {
    (void)ids;
    const struct params *m = f->params;
    uint64_t bits = 0;
    double medium;
    if (m->source.from == FEAT_FROM_CONTEXT)
        bits = bit_of(m, feat_source_context(&m->source, r));
    else if (feat_source_number(&m->source, r, row, &medium))
        bits = 1ull << (int)medium;
    if (f->n_cells > 0) {
        struct slice cell =
            feat_record_cell(feat_read_record(r, f->cells[0].scope, row), f->cells[0].index);
        struct cursor c = cursor_of(cell.p, cell.n);
        bits |= cell.n == 0 ? 0 : feat_get_varint(&c);
    }
    for (int i = 0; bits != 0 && i < FEAT_MEDIUMS; i++)
        dense[i] = (float)(bits >> i & 1);
}

const struct feat_kind feat_kind_referer = {
    .name = "referer",
    .doc = "What led here: search, social, mail, an advertisement, the site itself.",
    .params = items,
    .params_bytes = sizeof(struct params),
    .check = check,
    .apply = apply,
    .extract = extract,
};
