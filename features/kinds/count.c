/* count.c: how many matching events an entity has had, ever. Cell: one varint. */
#include "features/claim.h"
#include "features/codec.h"

struct params {
    const char *on_text;
    struct conf_strings scope_text;
    int scale;
    enum feat_scope scope;
    struct feat_match on;
};

static const struct conf_item items[] = {
    FEAT_CONF_SCOPE(struct params, scope_text, NULL, "Whose events."),
    CONF_STRING(struct params, on_text, "on", NULL,
                "Which events: TYPE [where FIELD OP VALUE]; TYPE may be impression or any."),
    CONF_ENUM(struct params, scale, "scale", "raw", FEAT_SCALE_CHOICES, "log: log(1 + count)."),
    CONF_END};

static enum status check(struct feat_plan *p, struct feat *f) {
    struct params *m = f->params;
    TRY(feat_claim_match(p, "on", m->on_text, &m->on));
    TRY(feat_claim_scope(p, f, &m->scope_text, &m->scope));
    feat_claim_cell(p, f, m->scope);
    f->n_columns = 1;
    return STATUS_OK;
}

static bool apply(const struct feat *f, const struct feat_update *u, struct slice old,
                  struct buf *out) {
    const struct params *m = f->params;
    uint64_t n = feat_match_count(&m->on, u);
    if (n == 0)
        return false;
    struct cursor c = cursor_of(old.p, old.n);
    buf_add_varint(out, (old.n == 0 ? 0 : feat_get_varint(&c)) + n);
    return true;
}

static void merge(const struct feat *f, struct slice cell, struct slice other, int sign,
                  struct buf *out) {
    (void)f;
    feat_merge_varints(cell, other, sign, 1, out);
}

static void extract(const struct feat *f, struct feat_read *r, int row, float *dense,
                    uint32_t *ids) {
    (void)ids;
    const struct params *m = f->params;
    struct slice cells[FEAT_SPOTS_MAX];
    int n = feat_read_cells(r, f, 0, row, cells);
    double count = 0;
    for (int i = 0; i < n; i++) {
        struct cursor c = cursor_of(cells[i].p, cells[i].n);
        count += cells[i].n == 0 ? 0 : (double)feat_get_varint(&c);
    }
    if (n > 0)
        dense[0] = feat_scaled(m->scale, count);
}

const struct feat_kind feat_kind_count = {
    .name = "count",
    .doc = "Number of matching events so far.",
    .params = items,
    .params_bytes = sizeof(struct params),
    .matches_only = true,
    .check = check,
    .apply = apply,
    .merge = merge,
    .extract = extract,
};
