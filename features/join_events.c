/* join_events.c: the events that wait in a join. Where features ask for their fields they are
 * protobuf; mostly nobody does, and then they are a few names, since every answer reads a ranking:
 *     kind u8 | tenant | user | session | of an interaction: item | type
 *                                       | of a ranking: n varint | n x item
 * each name after its length. The time is the entry's. */
#include "base/heap.h"
#include "features/joins.h"

/* ---- with fields ---- */

static void encode_all(const struct ev_event *e, struct buf *out) {
    struct ev_event kept = *e;
    struct ev_shown *shown = HEAP_ARRAY(struct ev_shown, e->n_shown + 1);
    kept.id = SLICE_LIT("-");
    kept.ranking = (struct slice){NULL, 0};
    kept.arrival_time_us = 0;
    for (int i = 0; i < e->n_shown; i++) {
        shown[i] = e->shown[i];
        shown[i].propensity = 0;
    }
    kept.shown = shown;
    ev_encode_proto(&kept, out);
    heap_free(shown);
}

/* ---- names alone ---- */

static void put_name(struct buf *out, struct slice s) {
    feat_put_varint(out, s.n);
    buf_add(out, s.p, s.n);
}

static struct slice get_name(struct cursor *c) {
    return cursor_bytes(c, (size_t)feat_get_varint(c));
}

static void encode_names(const struct ev_event *e, struct buf *out) {
    buf_add_byte(out, (uint8_t)e->kind);
    put_name(out, e->tenant);
    put_name(out, e->user);
    put_name(out, e->session);
    if (e->kind == EV_INTERACTION) {
        put_name(out, e->item);
        put_name(out, e->type);
        return;
    }
    feat_put_varint(out, (uint64_t)e->n_shown);
    for (int i = 0; i < e->n_shown; i++)
        put_name(out, e->shown[i].item);
}

static bool decode_names(struct arena *a, struct slice bytes, struct ev_event *out) {
    struct cursor c = cursor_of(bytes.p, bytes.n);
    *out = (struct ev_event){.kind = (enum ev_kind)cursor_u8(&c)};
    out->tenant = get_name(&c);
    out->user = get_name(&c);
    out->session = get_name(&c);
    if (out->kind == EV_INTERACTION) {
        out->item = get_name(&c);
        out->type = get_name(&c);
        return !c.bad && c.p == c.end;
    }
    uint64_t n = feat_get_varint(&c);
    if (out->kind != EV_RANKING || c.bad || n > EV_SHOWN_MAX)
        return false;
    struct ev_shown *shown = ARENA_ARRAY(a, struct ev_shown, n);
    for (uint64_t i = 0; i < n; i++)
        shown[i].item = get_name(&c);
    out->shown = shown;
    out->n_shown = (int)n;
    return !c.bad && c.p == c.end;
}

/* ---- either ---- */

void feat_join_encode(const struct feat_join *m, const struct ev_event *e, struct buf *out) {
    if (m->keeps_fields)
        encode_all(e, out);
    else
        encode_names(e, out);
}

bool feat_join_decode(const struct feat_join *m, struct arena *a, const struct feat_join_entry *e,
                      struct ev_event *out) {
    if (m->keeps_fields ? ev_decode_proto(a, e->event, out) != STATUS_OK
                        : !decode_names(a, e->event, out))
        return false;
    out->event_time_us = e->stamp.time_us;
    out->source = (struct ev_source){e->stamp.partition, e->stamp.offset};
    return true;
}
