/* dump.c: the state as text in one canonical form: equal states give equal bytes, and `diff` tells
 * where two differ. Cells stand as hex, but for the remembered fields; what has expired as of the
 * stated time is left out by each kind's expire(). */
#include "base/heap.h"
#include "base/io.h"
#include "features/forms.h"
#include "features/keys.h"
#include "features/state_parts.h"
#include <stdio.h>
#include <stdlib.h>

static void json_hex(struct json *j, struct slice bytes, struct buf *scratch) {
    static const char digits[] = "0123456789abcdef";
    buf_clear(scratch);
    for (size_t i = 0; i < bytes.n; i++) {
        buf_add_byte(scratch, (uint8_t)digits[(uint8_t)bytes.p[i] >> 4]);
        buf_add_byte(scratch, (uint8_t)digits[(uint8_t)bytes.p[i] & 15]);
    }
    json_str(j, buf_slice(scratch));
}

static void json_key64(struct json *j, uint64_t key) {
    char text[20];
    snprintf(text, sizeof text, "%016llx", (unsigned long long)key);
    json_cstr(j, text);
}

/* Numbers and keys as such, the other forms as bytes. */
static void dump_value(const struct feat_field *f, struct slice value, struct json *j,
                       struct buf *hex) {
    struct cursor c = cursor_of(value.p, value.n);
    for (int form = 0; form < FEAT_FORMS; form++) {
        const char *from = (const char *)c.p;
        if (!feat_field_has(f, (enum feat_form)form))
            continue;
        if (feat_form_is_number((enum feat_form)form)) {
            json_num(j, feat_get_number(&c));
        } else if (form == FEAT_AS_IDS) {
            uint64_t keys[FEAT_IDS_MAX];
            for (int i = 0, n = feat_form_get_ids(&c, keys); i < n; i++)
                json_key64(j, keys[i]);
        } else {
            feat_form_skip((enum feat_form)form, &c);
            json_hex(j, (struct slice){from, (size_t)((const char *)c.p - from)}, hex);
        }
    }
}

static void dump_fields(const struct feat_plan *p, const struct feat_record *r, struct json *j,
                        struct buf *hex) {
    struct feat_field_state states[FEAT_FIELDS_MAX];
    if (r->cells[0].n == 0 || !feat_fields_read(p, r->scope, feat_record_cell(r, 0), states))
        return;
    json_key(j, "fields");
    json_object(j);
    for (int slot = 0; slot < r->n_fields; slot++) {
        const struct feat_field_state *s = &states[slot];
        if (s->value.n == 0)
            continue;
        json_key(j, r->names[slot].name.p);
        json_array(j); /* time, partition, offset, then the value in each of its forms */
        json_int(j, s->stamp.time_us);
        json_int(j, s->stamp.partition);
        json_int(j, s->stamp.offset);
        dump_value(&r->names[slot], s->value, j, hex);
        json_array_end(j);
    }
    json_object_end(j);
}

struct dump {
    struct feat_state *s;
    int64_t as_of_us;
    struct buf *out;
    struct buf cell, hex;
};

/* Returns how many have something to show. */
static int dump_cells(struct dump *d, const struct feat_record *r, struct json *j) {
    int n = 0;
    json_key(j, "cells");
    json_object(j);
    for (int i = 1; i < r->n_cells; i++) {
        const struct feat *f = d->s->cells[r->scope][i];
        struct slice cell = feat_record_cell(r, i);
        buf_clear(&d->cell);
        if (f->kind->expire != NULL && cell.n > 0) {
            int64_t now_us =
                r->scope == FEAT_SCOPE_RANKING ? feat_joins_clock(d->s, cell) : d->as_of_us;
            f->kind->expire(f, now_us, cell, &d->cell);
            cell = buf_slice(&d->cell);
        }
        if (cell.n == 0)
            continue;
        json_key(j, f->name);
        json_hex(j, cell, &d->hex);
        n++;
    }
    json_object_end(j);
    return n;
}

/* Records of values are sums, those of rankings what waits: one that holds nothing any more is as
 * good as none. */
static void dump_record(struct dump *d, const struct feat_record *r) {
    struct json j;
    size_t before = d->out->n;
    json_begin(&j, d->out);
    json_object(&j);
    json_key(&j, "scope");
    json_cstr(&j, feat_scope_words[r->scope]);
    json_key(&j, "key");
    json_key64(&j, r->key);
    if (r->tenant.n > 0) {
        json_key(&j, "tenant");
        json_str(&j, r->tenant);
    }
    if (r->id.n > 0) {
        json_key(&j, "id");
        json_str(&j, r->id);
    }
    json_key(&j, "epoch");
    json_int(&j, (int64_t)r->epoch);
    dump_fields(d->s->plan, r, &j, &d->hex);
    int cells = dump_cells(d, r, &j);
    json_object_end(&j);
    buf_add_byte(d->out, '\n');
    if (cells == 0 && r->scope >= FEAT_SCOPE_VALUE)
        d->out->n = before;
}

static int by_key(const void *a, const void *b) {
    uint64_t x = feat_record_key(*(const struct slice *)a);
    uint64_t y = feat_record_key(*(const struct slice *)b);
    return x < y ? -1 : x > y;
}

static void dump_scope(struct dump *d, enum feat_scope scope) {
    struct feat_state *s = d->s;
    size_t n = 0;
    struct slice *all = HEAP_ARRAY(struct slice, s->ops->count(s->store, scope) + 1);
    for (uint64_t at = 0; s->ops->next(s->store, scope, &at, &all[n]); n++)
        ;
    qsort(all, n, sizeof *all, by_key);
    void *view = heap_alloc(feat_record_view_bytes(s->plan, scope));
    for (size_t i = 0; i < n; i++) {
        const struct feat_record *r = feat_record_view(s->plan, scope, all[i], view);
        if (r != NULL)
            dump_record(d, r);
    }
    heap_free(view);
    heap_free(all);
}

static void dump_applied(struct dump *d) {
    for (int i = 0; i < d->s->n_applied; i++) {
        const struct feat_applied *a = &d->s->applied[i];
        buf_printf(d->out, "{\"partition\":%d,\"offset\":%lld,\"clock_us\":%lld}\n", a->partition,
                   (long long)a->offset, (long long)a->clock_us);
    }
}

static enum status dump_copy(struct feat_state *s, int64_t as_of_us, const char *path) {
    struct feat_state *copy;
    TRY(feat_state_copy(s, &copy));
    enum status status = feat_state_dump(copy, as_of_us, path);
    feat_state_free(copy);
    return status;
}

enum status feat_state_dump(struct feat_state *s, int64_t as_of_us, const char *path) {
    if (feat_state_is_shared(s))
        return dump_copy(s, as_of_us, path);
    struct buf out = {0};
    struct dump d = {.s = s, .as_of_us = as_of_us, .out = &out};
    pthread_rwlock_rdlock(&s->lock);
    for (int i = 0; as_of_us == 0 && i < s->n_applied; i++)
        if (s->applied[i].clock_us > d.as_of_us)
            d.as_of_us = s->applied[i].clock_us;
    for (int scope = 0; scope < FEAT_SCOPES; scope++)
        dump_scope(&d, (enum feat_scope)scope);
    dump_applied(&d);
    pthread_rwlock_unlock(&s->lock);
    enum status status = io_write_file(path, buf_slice(&out));
    buf_deinit(&out);
    buf_deinit(&d.cell);
    buf_deinit(&d.hex);
    return status;
}
