/* wire.h: what the codecs in proto/ share; nobody else includes it.
 *
 * Reading goes through protobuf-c into an arena, then a conversion into plain structs; writing is
 * by hand, straight into a buf: building protobuf-c's trees of pointers only to flatten them would
 * be more code and slower. `struct Moerank__V1__*` are protobuf-c's, named here but not seen. */
#pragma once
#include "proto/rpc.h"

struct ProtobufCMessageDescriptor;
struct Moerank__V1__Field;

/* ---- reading ---- */

/* Unpacks into memory of the arena; *out points to the struct generated for `type`. Errors:
 * DATA_LOSS with the field and byte position; INVALID_ARGUMENT: so many tiny parts that unpacking
 * would cost far more memory than the message has bytes. After success every count fits an int. */
enum status ev_wire_unpack(struct arena *a, const struct ProtobufCMessageDescriptor *type,
                           struct slice bytes, void **out);

/* From protobuf-c's {len, data} pairs. */
#define EV_WIRE_SLICE(b) ((struct slice){(const char *)(b).data, (b).len})
/* [n] slices in the arena from [n] pairs; `pairs` is a ProtobufCBinaryData array */
const struct slice *ev_wire_slices(struct arena *a, size_t n, const void *pairs);
/* [n] fields in the arena, unchecked; NULL for none */
const struct ev_field *ev_wire_fields(struct arena *a, size_t n,
                                      struct Moerank__V1__Field *const *fields);

struct node;
/* "fields" of a JSON event or of a shown item. Errors: INVALID_ARGUMENT "fields[2] 'price': ...".
 */
enum status ev_json_fields(struct arena *a, const struct node *list, const struct ev_field **out,
                           int *n_out);

/* One line of JSON into an event that is not yet checked. By the tree: any form; errors as
 * ev_decode_json's. Quick: plain lines of the flat form, whose strings then borrow from the line;
 * false of all others, which says nothing about them. */
enum status ev_json_by_tree(struct arena *a, struct slice line, struct ev_event *out);
bool ev_json_quick(struct arena *a, struct slice line, struct ev_event *out);

/* ---- checking ---- */

/* Where a value stands, for messages: "id", "items[3].item", "value[3]". Without `list` the leaf
 * stands alone, without `leaf` the list's element. */
struct ev_at {
    const char *list;
    int index;
    const char *leaf;
};
#define EV_AT(leaf)                 ((struct ev_at){NULL, 0, (leaf)})
#define EV_AT_IN(list, index, leaf) ((struct ev_at){(list), (index), (leaf)})

/* UTF-8 without NUL, at most EV_ID_BYTES_MAX bytes, not empty when required. */
enum status ev_check_id(struct ev_at at, struct slice s, bool required);
/* UTF-8 of any length */
enum status ev_check_text(struct ev_at at, struct slice s);
enum status ev_check_time(const char *name, int64_t us, bool required);
enum status ev_check_count(struct ev_at at, size_t n, size_t most);
enum status ev_check_fields(struct ev_at at, const struct ev_field *fields, int n);

/* ---- writing: proto3 leaves out what is zero or empty ---- */

enum { EV_WIRE_VARINT = 0, EV_WIRE_64 = 1, EV_WIRE_LEN = 2, EV_WIRE_32 = 5 };

void ev_put_tag(struct buf *out, int field, int wire);
void ev_put_uint(struct buf *out, int field, uint64_t v); /* also bool and non-negative ints */
void ev_put_int(struct buf *out, int field, int64_t v);
void ev_put_float(struct buf *out, int field, float v);
void ev_put_text(struct buf *out, int field, struct slice s);
void ev_put_element(struct buf *out, int field,
                    struct slice s); /* of a repeated: also when empty */
void ev_put_floats(struct buf *out, int field, const float *v, int n); /* packed */
void ev_put_fields(struct buf *out, int field, const struct ev_field *fields, int n);

/* A sub-message: `at = begin; ...put...; end(at)`. Its length is put in afterwards. */
size_t ev_put_begin(struct buf *out, int field);
void ev_put_end(struct buf *out, size_t at);
