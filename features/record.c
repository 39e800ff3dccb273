/* record.c: from an entity's bytes to a view with random access, and back. A view is made once per
 * entity and request, so that the features of a row do not scan the record again and again. */
#include "features/record.h"
#include "features/forms.h"
#include "features/kind.h"
#include <assert.h>
#include <math.h>

size_t feat_record_view_bytes(const struct feat_plan *p, enum feat_scope scope) {
    size_t n = sizeof(struct feat_record) + (size_t)p->n_cells[scope] * sizeof(struct feat_span) +
               (size_t)p->n_fields[scope] * sizeof(uint32_t);
    return (n + 15) & ~(size_t)15;
}

void feat_record_put_head(struct buf *b, enum feat_scope scope, uint64_t key, uint64_t epoch,
                          struct slice tenant, struct slice id) {
    buf_add_byte(b, (uint8_t)scope);
    buf_add_u64(b, key);
    buf_add_varint(b, epoch);
    if (scope != FEAT_SCOPE_ITEM)
        return;
    buf_add_varint(b, tenant.n);
    buf_add(b, tenant.p, tenant.n);
    buf_add_varint(b, id.n);
    buf_add(b, id.p, id.n);
}

void feat_record_put_cell(struct buf *b, struct slice cell, int *empty) {
    if (cell.n == 0) {
        ++*empty; /* written only when something follows */
        return;
    }
    for (; *empty > 0; --*empty)
        buf_add_varint(b, 0);
    buf_add_varint(b, cell.n);
    buf_add(b, cell.p, cell.n);
}

uint64_t feat_record_key(struct slice bytes) {
    uint64_t key = 0;
    for (int i = 0; i < 8; i++)
        key |= (uint64_t)(uint8_t)bytes.p[1 + i] << (8 * i);
    return key;
}

struct slice feat_record_fields_cell(struct slice bytes) {
    struct cursor c = cursor_of(bytes.p, bytes.n);
    bool named = cursor_u8(&c) == FEAT_SCOPE_ITEM;
    cursor_bytes(&c, 8);
    feat_get_varint(&c);
    for (int k = 0; named && k < 2; k++) /* tenant, id */
        cursor_bytes(&c, (size_t)feat_get_varint(&c));
    return c.p < c.end ? cursor_bytes(&c, (size_t)feat_get_varint(&c)) : (struct slice){NULL, 0};
}

/* Where each remembered field's value stands. */
static bool view_fields(const struct feat_plan *p, struct feat_record *r) {
    memset(r->fields, 0, (size_t)r->n_fields * sizeof *r->fields);
    if (r->cells[0].n == 0)
        return true;
    struct slice cell = {(const char *)r->p + r->cells[0].at, r->cells[0].n};
    return feat_fields_places(p, r->scope, cell, r->p, r->fields);
}

/* The first n_cells of them. */
static struct feat_record *view(const struct feat_plan *p, enum feat_scope scope,
                                struct slice bytes, int n_cells, void *memory) {
    struct feat_record *r = memory;
    *r = (struct feat_record){.p = (const uint8_t *)bytes.p,
                              .n = (uint32_t)bytes.n,
                              .scope = scope,
                              .n_cells = n_cells,
                              .n_fields = p->n_fields[scope],
                              .names = p->fields[scope]};
    r->cells = (struct feat_span *)(r + 1);
    r->fields = (uint32_t *)(r->cells + r->n_cells);
    struct cursor c = cursor_of(bytes.p, bytes.n);
    if (bytes.n > UINT32_MAX || cursor_u8(&c) != (uint8_t)scope)
        return NULL;
    r->key = cursor_u64(&c);
    r->epoch = feat_get_varint(&c);
    if (scope == FEAT_SCOPE_ITEM) {
        r->tenant = cursor_bytes(&c, (size_t)feat_get_varint(&c));
        r->id = cursor_bytes(&c, (size_t)feat_get_varint(&c));
    }
    for (int i = 0; i < r->n_cells; i++) {
        uint64_t n = c.p < c.end ? feat_get_varint(&c) : 0;
        r->cells[i] = (struct feat_span){(uint32_t)(c.p - r->p), (uint32_t)n};
        cursor_bytes(&c, (size_t)n);
    }
    return c.bad || (n_cells == p->n_cells[scope] && c.p != c.end) ? NULL : r;
}

struct feat_record *feat_record_cells(const struct feat_plan *p, enum feat_scope scope,
                                      struct slice bytes, void *memory) {
    return view(p, scope, bytes, p->n_cells[scope], memory);
}

struct feat_record *feat_record_view(const struct feat_plan *p, enum feat_scope scope,
                                     struct slice bytes, void *memory) {
    struct feat_record *r = feat_record_cells(p, scope, bytes, memory);
    return r != NULL && view_fields(p, r) ? r : NULL;
}

struct feat_record *feat_record_view_fields(const struct feat_plan *p, enum feat_scope scope,
                                            struct slice bytes, void *memory) {
    struct feat_record *r = view(p, scope, bytes, 1, memory);
    return r != NULL && view_fields(p, r) ? r : NULL;
}

struct slice feat_record_cell(const struct feat_record *rec, int index) {
    if (rec == NULL)
        return (struct slice){NULL, 0};
    assert(index >= 0 && index < rec->n_cells);
    return (struct slice){(const char *)rec->p + rec->cells[index].at, rec->cells[index].n};
}

/* At the field's value in that form. */
static bool field_cursor(const struct feat_record *rec, int slot, enum feat_form form,
                         struct cursor *c) {
    if (rec == NULL || slot < 0 || rec->fields[slot] == 0 ||
        !feat_field_has(&rec->names[slot], form))
        return false;
    *c = cursor_of(rec->p + rec->fields[slot], rec->n - rec->fields[slot]);
    feat_forms_skip(rec->names[slot].forms & ((1u << form) - 1), c);
    return true;
}

bool feat_record_number(const struct feat_record *rec, int slot, enum feat_form form, double *out) {
    struct cursor c;
    if (!field_cursor(rec, slot, form, &c))
        return false;
    double v = feat_get_number(&c);
    if (isnan(v))
        return false;
    *out = v;
    return true;
}

int feat_record_ids(const struct feat_record *rec, int slot, uint64_t *out) {
    struct cursor c;
    return field_cursor(rec, slot, FEAT_AS_IDS, &c) ? feat_form_get_ids(&c, out) : 0;
}

int feat_record_ids_most(const struct feat_record *rec, int slot) {
    struct cursor c;
    if (!field_cursor(rec, slot, FEAT_AS_IDS, &c))
        return 0;
    const uint64_t bytes = feat_get_varint(&c); /* a key takes one at least */
    return bytes < FEAT_IDS_MAX ? (int)bytes : FEAT_IDS_MAX;
}

int feat_record_hashes(const struct feat_record *rec, int slot, enum feat_form form,
                       uint32_t *out) {
    struct cursor c;
    return field_cursor(rec, slot, form, &c) ? feat_form_get_hashes(&c, out) : 0;
}

int feat_record_vector(const struct feat_record *rec, int slot, double *out) {
    struct cursor c;
    return field_cursor(rec, slot, FEAT_AS_VECTOR, &c) ? feat_form_get_vector(&c, out) : 0;
}
