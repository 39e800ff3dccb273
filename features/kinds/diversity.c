/* diversity.c: how much a candidate is like the rest of the slate. Of a number: its difference to
 * the median; of words: the sum, over the candidate's words, of the part that each has among all
 * words of the slate (Metarank's extractor of that name, to the letter). A slate of ten dramas
 * makes a drama common and a comedy rare.
 *
 * Depends on which candidates are ranked together (plan->mixes_rows); see relative.c. */
#include "features/claim.h"
#include "features/index.h"
#include "features/kinds/slate.h"
#include <math.h>

enum { AS_NUMBER, AS_WORDS };

struct params {
    const char *source_text;
    int as;
    int64_t top;
    struct feat_source source;
};

static const struct conf_item items[] = {
    CONF_STRING(struct params, source_text, "source", NULL,
                "item.FIELD or candidate.COLUMN; A or B is the first that has a value."),
    CONF_ENUM(struct params, as, "as", "number", "number|words",
              "number: the difference to the slate's median; words: how common they are in it."),
    CONF_INT(struct params, top, "top", "20", 0, 1000000, "candidates",
             "The slate is the first so many that have a value; 0: all."),
    CONF_END};

static enum status check(struct feat_plan *p, struct feat *f) {
    struct params *m = f->params;
    enum feat_form form = m->as == AS_NUMBER ? FEAT_AS_NUMBER : FEAT_AS_IDS;
    TRY(feat_claim_source(p, "source", m->source_text, form, &m->source));
    enum feat_side side = feat_source_side(&m->source);
    if (side == FEAT_USER || side == FEAT_CONTEXT)
        return fail(STATUS_INVALID_ARGUMENT, "source: '%s' is the same for all candidates",
                    m->source_text);
    f->side = FEAT_CROSS;
    f->n_columns = 1;
    p->mixes_rows = true;
    return STATUS_OK;
}

/* Of words: value key -> its number of times in the slate. */
struct counts {
    struct feat_index at;
    uint64_t total;
};

static void begin(const struct feat *f, struct feat_read *r) {
    const struct params *m = f->params;
    if (m->as == AS_NUMBER) {
        struct feat_slate *s = feat_slate_new(r);
        for (int row = 0; row < r->n_rows; row++)
            if (!feat_source_number(&m->source, r, row, &s->v[row]))
                s->v[row] = NAN;
        feat_slate_sort(s, r, m->top);
        r->scratch[f->number] = s;
        return;
    }
    struct counts *c = ARENA_NEW(r->arena, struct counts);
    uint64_t keys[FEAT_IDS_MAX];
    int counted = 0, n;
    size_t most = 0;
    for (int row = 0; row < r->n_rows; row++)
        most += (size_t)feat_source_ids(&m->source, r, row, keys);
    feat_index_init(&c->at, r->arena, most);
    for (int row = 0; row < r->n_rows && (m->top == 0 || counted < m->top); row++) {
        n = feat_source_ids(&m->source, r, row, keys);
        for (int i = 0; i < n; i++)
            ++*feat_index_at(&c->at, keys[i]);
        c->total += (uint64_t)n;
        counted += n > 0;
    }
    r->scratch[f->number] = c;
}

static void extract(const struct feat *f, struct feat_read *r, int row, float *dense,
                    uint32_t *ids) {
    (void)ids;
    const struct params *m = f->params;
    if (m->as == AS_NUMBER) {
        const struct feat_slate *s = r->scratch[f->number];
        dense[0] = (float)(s->v[row] - feat_slate_median(s));
        return;
    }
    const struct counts *c = r->scratch[f->number];
    uint64_t keys[FEAT_IDS_MAX], shared = 0;
    int n = feat_source_ids(&m->source, r, row, keys);
    for (int i = 0; i < n; i++)
        shared += feat_index_get(&c->at, keys[i]);
    if (n > 0)
        dense[0] = (float)shared / (float)c->total;
}

const struct feat_kind feat_kind_diversity = {
    .name = "diversity",
    .doc = "How much a candidate is like the rest of the slate.",
    .params = items,
    .params_bytes = sizeof(struct params),
    .check = check,
    .begin = begin,
    .extract = extract,
};
