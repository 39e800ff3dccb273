/* table_texts.c: the words behind ids. A model file keeps hashes only, so they are looked up in a
 * file that has them. */
#include "base/hash.h"
#include "moe/data/table_impl.h"

static void name_row(const struct moe_table *t, const struct moe_cells *cells,
                     void (*named)(void *context, int slot, uint32_t id, struct slice text),
                     void *context) {
    for (int i = 0; i < t->n_columns; i++) {
        const struct moe_table_column *c = &t->columns[i];
        if (c->kind != MOE_COLUMN_CATEGORY || c->n_parts || c->bins || c->hash || c->cell < 0)
            continue;
        struct slice cell = cells->cell[c->cell];
        uint32_t id = cell.n ? moe_dict_find(&c->dict, hash_bytes(cell, 11)) : MOE_TABLE_RARE;
        if (id >= MOE_TABLE_FIRST_ID)
            named(context, c->input, id, cell);
    }
}

enum status moe_table_texts(const struct moe_table *t, const char *path,
                            void (*named)(void *context, int slot, uint32_t id, struct slice text),
                            void *context) {
    struct moe_cells cells;
    enum status status;
    TRY(moe_cells_open(t, path, &cells));
    while ((status = moe_cells_next(&cells)) == STATUS_OK || status == STATUS_INVALID_ARGUMENT)
        if (status == STATUS_OK)
            name_row(t, &cells, named, context);
    moe_cells_close(&cells);
    return status == STATUS_OUT_OF_RANGE ? STATUS_OK : status;
}
