/* category.c: a word, a list of words, or a name: as columns (one-hot, or its index for trees) or
 * as ids of a trained embedding. Known words come from a list or, where no list can be had, from
 * the hash ("feature hashing", Weinberger et al. 2009); rows are then shared by chance. */
#include "features/claim.h"
#include "features/keys.h"
#include "features/kinds/ids.h"

enum { ENCODE_NONE, ENCODE_ONEHOT, ENCODE_INDEX };
#define VALUES_MAX 65536

struct params {
    const char *source_text, *table;
    struct conf_strings values;
    int64_t hash, dim, slots;
    int encode;
    struct feat_source source;
    struct feat_ids ids;
};

static const struct conf_item items[] = {
    CONF_STRING(struct params, source_text, "source", NULL,
                "item.FIELD, user.FIELD, context.FIELD or candidate.COLUMN; FIELD id is the "
                "entity's own name; A or B is the first that has a value."),
    CONF_STRINGS(struct params, values, "values", "[]",
                 "The known words, in the order of their ids. This or hash."),
    CONF_INT(struct params, hash, "hash", "0", 0, 1 << 30, "rows",
             "Hash words into so many rows, the two reserved ones included. This or values."),
    CONF_ENUM(struct params, encode, "encode", "none", "none|onehot|index",
              "Dense output: a column per word, or one column with the first word's id."),
    CONF_INT(struct params, dim, "embed", "0", 0, 4096, "floats",
             "Width of a trained embedding; 0: none. This or encode."),
    CONF_STRING(struct params, table, "table", "",
                "Embedding table; features that name the same one share it. Default: the "
                "feature's name."),
    CONF_INT(struct params, slots, "slots", "1", 1, FEAT_IDS_MAX, "ids",
             "How many words of a list are looked up, the first ones."),
    CONF_END};

static enum status read_vocabulary(struct feat_plan *p, struct params *m) {
    if (m->values.n > VALUES_MAX)
        return fail(STATUS_INVALID_ARGUMENT, "values: %d words; at most %d", m->values.n,
                    VALUES_MAX);
    m->ids.has_vocabulary = m->values.n > 0;
    feat_index_init(&m->ids.vocabulary, &p->arena, (size_t)m->values.n);
    for (int i = 0; i < m->values.n; i++) {
        uint64_t key = feat_text_key(slice_of(m->values.v[i]));
        uint32_t *id = feat_index_at(&m->ids.vocabulary, key);
        if (*id != 0)
            return fail(STATUS_INVALID_ARGUMENT, "values: '%s' stands there twice", m->values.v[i]);
        *id = 2 + (uint32_t)i;
    }
    return STATUS_OK;
}

static enum status check_output(struct feat_plan *p, struct feat *f) {
    struct params *m = f->params;
    if ((m->dim > 0) == (m->encode != ENCODE_NONE))
        return fail(STATUS_INVALID_ARGUMENT, "encode: give either encode or embed");
    if (m->encode == ENCODE_ONEHOT && !m->ids.has_vocabulary)
        return fail(STATUS_INVALID_ARGUMENT, "encode: onehot needs values");
    if (m->encode == ENCODE_NONE) {
        if (m->table[0] == '\0')
            m->table = f->name;
        f->n_slots = (int)m->slots;
        return fail_in(feat_plan_table(p, m->table, m->ids.rows, (int)m->dim, &f->table), "table");
    }
    if (m->table[0] != '\0')
        return fail(STATUS_INVALID_ARGUMENT, "table: only an embedding has one");
    f->n_columns = m->encode == ENCODE_ONEHOT ? m->values.n : 1;
    f->column_names = m->encode == ENCODE_ONEHOT ? m->values.v : NULL;
    return STATUS_OK;
}

static enum status check(struct feat_plan *p, struct feat *f) {
    struct params *m = f->params;
    TRY(feat_claim_source(p, "source", m->source_text, FEAT_AS_IDS, &m->source));
    f->side = feat_source_side(&m->source);
    if ((m->values.n > 0) == (m->hash > 0))
        return fail(STATUS_INVALID_ARGUMENT, "values: give either values or hash");
    if (m->hash > 0 && m->hash < 3)
        return fail(STATUS_INVALID_ARGUMENT, "hash: at least 3 rows: 0 is none, 1 is unknown");
    TRY(read_vocabulary(p, m));
    m->ids.rows = m->hash > 0 ? (uint32_t)m->hash : (uint32_t)m->values.n + 2;
    m->ids.is_name = m->source.slot < 0 &&
                     (m->source.from == FEAT_FROM_ITEM || m->source.from == FEAT_FROM_USER);
    return check_output(p, f);
}

static void extract(const struct feat *f, struct feat_read *r, int row, float *dense,
                    uint32_t *ids) {
    const struct params *m = f->params;
    uint64_t keys[FEAT_IDS_MAX];
    int n = feat_source_ids(&m->source, r, row, keys);
    if (n == 0)
        return;
    if (m->encode == ENCODE_INDEX) {
        dense[0] = (float)feat_ids_of(&m->ids, r->tenant_hash, keys[0]);
    } else if (m->encode == ENCODE_ONEHOT) {
        memset(dense, 0, (size_t)f->n_columns * sizeof *dense);
        for (int i = 0; i < n; i++) {
            uint32_t id = feat_ids_of(&m->ids, r->tenant_hash, keys[i]);
            if (id >= 2)
                dense[id - 2] = 1;
        }
    } else {
        for (int i = 0; i < n && i < f->n_slots; i++)
            ids[i] = feat_ids_of(&m->ids, r->tenant_hash, keys[i]);
    }
}

const struct feat_ids *feat_category_item_ids(const struct feat_plan *p, const char *table,
                                              int *dim) {
    for (int i = 0; i < p->n_features; i++) {
        const struct feat *f = p->features[i]; /* NULL: not read yet */
        if (f == NULL || f->kind != &feat_kind_category || f->table < 0)
            continue;
        const struct params *m = f->params;
        if (m->ids.is_name && m->source.from == FEAT_FROM_ITEM && strcmp(m->table, table) == 0) {
            *dim = (int)m->dim;
            return &m->ids;
        }
    }
    return NULL;
}

const struct feat_kind feat_kind_category = {
    .name = "category",
    .doc = "Words or names: as columns, or as ids of a trained embedding.",
    .params = items,
    .params_bytes = sizeof(struct params),
    .checked_first = true,
    .check = check,
    .extract = extract,
};
