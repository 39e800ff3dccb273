/* record.h: an entity's bytes, and the view of them that readers use.
 *
 *     scope u8 | key u64 | epoch varint | of items: tenant, id (varint length + bytes)
 *     | cell 0 | cell 1 | ...                       (varint length + bytes; empty ones at the end
 *                                                    are left out)
 *
 * Cell 0 holds the remembered fields: runs of fields written by one event share its stamp.
 *     run := n varint | stamp | n x (slot varint | the value in each form it is kept in, forms.h)
 * Runs stand newest first, fields within a run by slot: equal contents are equal bytes. */
#pragma once
#include "features/codec.h"
#include "features/plan.h"

struct feat_span {
    uint32_t at, n;
};

/* A view borrows the bytes; valid as long as they are. */
struct feat_record {
    const uint8_t *p;
    uint32_t n;
    enum feat_scope scope;
    uint64_t key, epoch;     /* epoch: events that named this entity */
    struct slice tenant, id; /* items only */
    int n_cells, n_fields;
    struct feat_span *cells; /* [n_cells], all of the plan's, absent ones empty */
    uint32_t *fields;        /* [n_fields] where in p the field's value stands; 0: absent */
    const struct feat_field *names;
};

/* Bytes of memory a view needs, tables included. */
size_t feat_record_view_bytes(const struct feat_plan *p, enum feat_scope scope);
/* Makes a view in `memory`, of the cells only: for the writer; NULL when the bytes are damaged. */
struct feat_record *feat_record_cells(const struct feat_plan *p, enum feat_scope scope,
                                      struct slice bytes, void *memory);
/* With the remembered fields. */
struct feat_record *feat_record_view(const struct feat_plan *p, enum feat_scope scope,
                                     struct slice bytes, void *memory);
/* The remembered fields only: it has no cell but the first. */
struct feat_record *feat_record_view_fields(const struct feat_plan *p, enum feat_scope scope,
                                            struct slice bytes, void *memory);

void feat_record_put_head(struct buf *b, enum feat_scope scope, uint64_t key, uint64_t epoch,
                          struct slice tenant, struct slice id);
/* Appends a cell; `*empty` counts the empty ones since the last that was not, 0 at first. */
void feat_record_put_cell(struct buf *b, struct slice cell, int *empty);
/* Key of a sound record's bytes, without reading on. */
uint64_t feat_record_key(struct slice bytes);

/* Cell 0 as one item or user event leaves it: the kinds' apply contract. */
bool feat_fields_apply(const struct feat_plan *p, enum feat_scope scope, const struct ev_event *e,
                       struct slice old, struct buf *out);

/* One remembered field with its stamp, for dumps. */
struct feat_field_state {
    struct feat_stamp stamp;
    struct slice value; /* encoded; n 0: absent */
};
/* At one field's value in one form; false when it is not there. */
bool feat_fields_find(const struct feat_plan *p, enum feat_scope scope, struct slice cell, int slot,
                      enum feat_form form, struct cursor *out);
/* at [n_fields] of those that are there: the distance of their values from `from`; false when
 * damaged. */
bool feat_fields_places(const struct feat_plan *p, enum feat_scope scope, struct slice cell,
                        const uint8_t *from, uint32_t *at);
/* Cell 0 of a record's bytes. */
struct slice feat_record_fields_cell(struct slice bytes);
/* out [FEAT_FIELDS_MAX], by slot; false when damaged. */
bool feat_fields_read(const struct feat_plan *p, enum feat_scope scope, struct slice cell,
                      struct feat_field_state *out);
