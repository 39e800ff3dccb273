/* wire.c: protobuf's wire format, reading and writing.
 *
 * protobuf-c unpacks, with an arena for its allocator: no malloc, nothing to free. It says neither
 * where a message is broken nor how much memory it will take, so a walk over the bytes, driven by
 * protobuf-c's own descriptors, answers both: after a failure, and before unpacking a large
 * message (an empty sub-message is 2 bytes on the wire and 100 and more unpacked).
 *
 * Deliberately not here: groups (proto2) and big-endian machines. */
#include "proto/wire.h"
#include <protobuf-c/protobuf-c.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "packed floats are copied as they are");

/* ---- reading ---- */

static void *allocate(void *arena, size_t bytes) { return arena_alloc(arena, bytes); }
static void release(void *arena, void *p) { (void)arena, (void)p; }

/* A message of this size and more is walked before it is unpacked, and may have PARTS_MIN parts
 * (elements and sub-messages) and one more per BYTES_PER_PART bytes. */
enum { WALK_BYTES = 64 * 1024, PARTS_MIN = 64 * 1024, BYTES_PER_PART = 16 };

struct walk {
    const char *begin;
    size_t parts, parts_max;
};

static enum status walk_message(struct walk *w, const ProtobufCMessageDescriptor *type,
                                struct slice bytes);

static enum status walk_fail(const struct walk *w, const ProtobufCMessageDescriptor *type,
                             const ProtobufCFieldDescriptor *f, const uint8_t *p,
                             const char *what) {
    return fail(STATUS_DATA_LOSS, "not a %s: %s%s%s at byte %zu", type->name, f ? f->name : "",
                f ? ": " : "", what, (size_t)((const char *)p - w->begin));
}

static int wire_of(ProtobufCType type) {
    switch (type) {
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return EV_WIRE_64;
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_FLOAT:
        return EV_WIRE_32;
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_BYTES:
    case PROTOBUF_C_TYPE_MESSAGE:
        return EV_WIRE_LEN;
    default:
        return EV_WIRE_VARINT;
    }
}

static enum status walk_bytes(struct walk *w, const ProtobufCMessageDescriptor *type,
                              const ProtobufCFieldDescriptor *f, const uint8_t *p,
                              struct slice bytes) {
    int wire = f ? wire_of(f->type) : EV_WIRE_LEN;
    if (wire == EV_WIRE_LEN) {
        if (++w->parts > w->parts_max)
            return fail(STATUS_INVALID_ARGUMENT, "%s: more than %zu parts", type->name,
                        w->parts_max);
        return f && f->type == PROTOBUF_C_TYPE_MESSAGE ? walk_message(w, f->descriptor, bytes)
                                                       : STATUS_OK;
    }
    if (f->label != PROTOBUF_C_LABEL_REPEATED)
        return walk_fail(w, type, f, p, "wrong wire type 2");
    if (wire == EV_WIRE_VARINT) {
        struct cursor c = cursor_of(bytes.p, bytes.n);
        while (c.p < c.end && !c.bad)
            cursor_varint(&c);
        return c.bad ? walk_fail(w, type, f, c.p, "broken number") : STATUS_OK;
    }
    size_t size = wire == EV_WIRE_64 ? 8 : 4;
    return bytes.n % size ? walk_fail(w, type, f, p, "packed numbers cut short") : STATUS_OK;
}

static enum status walk_field(struct walk *w, const ProtobufCMessageDescriptor *type,
                              struct cursor *c) {
    const uint8_t *at = c->p;
    uint64_t tag = cursor_varint(c);
    int wire = (int)(tag & 7);
    if (c->bad || tag >> 3 == 0 || tag >> 32 != 0)
        return walk_fail(w, type, NULL, at, "broken tag");
    const ProtobufCFieldDescriptor *f =
        protobuf_c_message_descriptor_get_field(type, (unsigned)(tag >> 3));
    if (wire == EV_WIRE_LEN) {
        uint64_t n = cursor_varint(c);
        if (c->bad || n > (uint64_t)(c->end - c->p))
            return walk_fail(w, type, f, at, "runs past the end");
        struct slice bytes = cursor_bytes(c, (size_t)n);
        return walk_bytes(w, type, f, at, bytes);
    }
    if (wire != EV_WIRE_VARINT && wire != EV_WIRE_64 && wire != EV_WIRE_32)
        return walk_fail(w, type, f, at, "unknown wire type");
    if (f && wire != wire_of(f->type))
        return walk_fail(w, type, f, at, "wrong wire type");
    if (wire == EV_WIRE_VARINT)
        cursor_varint(c);
    else
        cursor_bytes(c, wire == EV_WIRE_64 ? 8 : 4);
    return c->bad ? walk_fail(w, type, f, at, "number cut short") : STATUS_OK;
}

/* As deep as the contracts nest: no message of theirs holds itself. */
static enum status walk_message(struct walk *w, const ProtobufCMessageDescriptor *type,
                                struct slice bytes) {
    struct cursor c = cursor_of(bytes.p, bytes.n);
    while (c.p < c.end)
        TRY(walk_field(w, type, &c));
    return STATUS_OK;
}

enum status ev_wire_unpack(struct arena *a, const ProtobufCMessageDescriptor *type,
                           struct slice bytes, void **out) {
    if (bytes.n > INT32_MAX)
        return fail(STATUS_INVALID_ARGUMENT, "%s: %zu bytes", type->name, bytes.n);
    struct slice s = {bytes.n ? bytes.p : "", bytes.n};
    struct walk w = {s.p, 0, PARTS_MIN + s.n / BYTES_PER_PART};
    if (s.n >= WALK_BYTES)
        TRY(walk_message(&w, type, s));
    ProtobufCAllocator allocator = {allocate, release, a};
    ProtobufCMessage *m = protobuf_c_message_unpack(type, &allocator, s.n, (const uint8_t *)s.p);
    if (!m) {
        TRY(walk_message(&w, type, s));
        return fail(STATUS_DATA_LOSS, "not a %s (%zu bytes)", type->name, s.n);
    }
    *out = m;
    return STATUS_OK;
}

const struct slice *ev_wire_slices(struct arena *a, size_t n, const void *pairs) {
    const ProtobufCBinaryData *from = pairs;
    struct slice *to = arena_alloc(a, n * sizeof *to);
    for (size_t i = 0; i < n; i++)
        to[i] = EV_WIRE_SLICE(from[i]);
    return to;
}

/* ---- writing ---- */

void ev_put_tag(struct buf *out, int field, int wire) {
    buf_add_varint(out, (uint64_t)field << 3 | (uint64_t)wire);
}

void ev_put_uint(struct buf *out, int field, uint64_t v) {
    if (v == 0)
        return;
    ev_put_tag(out, field, EV_WIRE_VARINT);
    buf_add_varint(out, v);
}

/* negative numbers take ten bytes, as protobuf has it */
void ev_put_int(struct buf *out, int field, int64_t v) { ev_put_uint(out, field, (uint64_t)v); }

void ev_put_float(struct buf *out, int field, float v) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    if (bits == 0)
        return;
    ev_put_tag(out, field, EV_WIRE_32);
    buf_add_u32(out, bits);
}

void ev_put_element(struct buf *out, int field, struct slice s) {
    ev_put_tag(out, field, EV_WIRE_LEN);
    buf_add_varint(out, s.n);
    buf_add(out, s.p, s.n);
}

void ev_put_text(struct buf *out, int field, struct slice s) {
    if (s.n)
        ev_put_element(out, field, s);
}

void ev_put_floats(struct buf *out, int field, const float *v, int n) {
    if (n > 0)
        ev_put_element(out, field, (struct slice){(const char *)v, (size_t)n * sizeof *v});
}

/* One byte is kept for the length; longer lengths move what was written. */
size_t ev_put_begin(struct buf *out, int field) {
    ev_put_tag(out, field, EV_WIRE_LEN);
    buf_add_byte(out, 0);
    return out->n;
}

void ev_put_end(struct buf *out, size_t at) {
    size_t n = out->n - at, more = 0;
    for (size_t v = n; v >= 0x80; v >>= 7)
        more++;
    buf_reserve(out, more);
    if (more && n)
        memmove(out->p + at + more, out->p + at, n);
    out->n = at - 1;
    buf_add_varint(out, n);
    out->n += n;
}
