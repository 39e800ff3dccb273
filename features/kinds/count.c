/* count.c: how many matching events an entity has had, ever. Cell: one varint. */
#include "features/claim.h"
#include "features/codec.h"

struct params {
    const char *on_text;
    int scope, scale;
    struct feat_match on;
};

static const struct conf_item items[] = {
    CONF_ENUM(struct params, scope, "scope", NULL, FEAT_SCOPE_CHOICES, "Whose events."),
    CONF_STRING(struct params, on_text, "on", NULL,
                "Which events: TYPE [where FIELD OP VALUE]; TYPE may be impression or any."),
    CONF_ENUM(struct params, scale, "scale", "raw", FEAT_SCALE_CHOICES, "log: log(1 + count)."),
    CONF_END};

static enum status check(struct feat_plan *p, struct feat *f) {
    struct params *m = f->params;
    TRY(feat_claim_match(p, "on", m->on_text, &m->on));
    feat_plan_cell(p, f, (enum feat_scope)m->scope);
    f->side = feat_scope_side((enum feat_scope)m->scope);
    f->n_columns = 1;
    return STATUS_OK;
}

static bool apply(const struct feat *f, const struct feat_update *u, struct slice old,
                  struct buf *out) {
    const struct params *m = f->params;
    if (!feat_match_event(&m->on, u->event, u->shown))
        return false;
    struct cursor c = cursor_of(old.p, old.n);
    buf_add_varint(out, (old.n == 0 ? 0 : feat_get_varint(&c)) + 1);
    return true;
}

static void extract(const struct feat *f, struct feat_read *r, int row, float *dense,
                    uint32_t *ids) {
    (void)ids;
    const struct params *m = f->params;
    enum feat_scope scope = (enum feat_scope)m->scope;
    if (!feat_read_names(r, scope, row))
        return;
    struct slice cell = feat_record_cell(feat_read_record(r, scope, row), f->cells[0].index);
    struct cursor c = cursor_of(cell.p, cell.n);
    dense[0] = feat_scaled(m->scale, cell.n == 0 ? 0 : (double)feat_get_varint(&c));
}

const struct feat_kind feat_kind_count = {
    .name = "count",
    .doc = "Number of matching events so far.",
    .params = items,
    .params_bytes = sizeof(struct params),
    .check = check,
    .apply = apply,
    .extract = extract,
};
