/* rpc_reflect.c: grpc.reflection.v1alpha, so that grpcurl and its like need no .proto files.
 *
 * protoc puts the descriptors of all contracts into one FileDescriptorSet (codegen.cmake); a small
 * walker finds names in it, by the field numbers of google/protobuf/descriptor.proto. A symbol is
 * found by peeling: package, then message or service, then what is inside.
 *
 * Deliberately not here: extensions (proto3 has none), and an index: a question costs a walk over
 * some 6 KB and is asked by people. */
#include "grpc/reflection/v1alpha/reflection.pb-c.h"
#include "proto/wire.h"

extern const unsigned char rpc_descriptor_set[];
extern const size_t rpc_descriptor_set_bytes;

/* ---- descriptors ---- */

/* FileDescriptorSet.file; FileDescriptorProto.{name, package, message_type, enum_type, service} */
enum {
    SET_FILE = 1,
    FILE_NAME = 1,
    FILE_PACKAGE = 2,
    FILE_MESSAGE = 4,
    FILE_ENUM = 5,
    FILE_SERVICE = 6
};
/* name of every descriptor; DescriptorProto.{nested_type, enum_type}; ServiceDescriptorProto.method
 */
enum { ANY_NAME = 1, MESSAGE_MESSAGE = 3, MESSAGE_ENUM = 4, SERVICE_METHOD = 2 };

struct member {
    int field;
    struct slice bytes; /* of strings and messages; empty for numbers */
};

/* protoc wrote these bytes: they are well-formed. */
static bool next_member(struct cursor *c, struct member *m) {
    if (c->p >= c->end || c->bad)
        return false;
    uint64_t tag = cursor_varint(c);
    *m = (struct member){.field = (int)(tag >> 3)};
    if ((tag & 7) == EV_WIRE_LEN)
        m->bytes = cursor_bytes(c, (size_t)cursor_varint(c));
    else if ((tag & 7) == EV_WIRE_VARINT)
        cursor_varint(c);
    else
        cursor_bytes(c, (tag & 7) == EV_WIRE_64 ? 8 : 4);
    return !c->bad;
}

static struct slice first_of(struct slice message, int field) {
    struct cursor c = cursor_of(message.p, message.n);
    for (struct member m; next_member(&c, &m);)
        if (m.field == field)
            return m.bytes;
    return (struct slice){0};
}

/* "a.b.c" without "a.b" is "c"; "a.b" without "a.b" is empty; false when it does not begin so. */
static bool peel(struct slice symbol, struct slice name, struct slice *rest) {
    if (symbol.n < name.n || (name.n && memcmp(symbol.p, name.p, name.n) != 0))
        return false;
    *rest = (struct slice){symbol.p + name.n, symbol.n - name.n};
    if (rest->n == 0 || name.n == 0)
        return true;
    if (rest->n == 1 || *rest->p != '.')
        return false;
    *rest = (struct slice){rest->p + 1, rest->n - 1};
    return true;
}

enum holder { IN_FILE, IN_MESSAGE, IN_SERVICE, IN_LEAF };

/* What kind of thing a member of a descriptor is; IN_FILE: nothing with a name to look for. */
static enum holder holder_of(enum holder outer, int field) {
    switch (outer) {
    case IN_FILE:
        return field == FILE_MESSAGE   ? IN_MESSAGE
               : field == FILE_SERVICE ? IN_SERVICE
               : field == FILE_ENUM    ? IN_LEAF
                                       : IN_FILE;
    case IN_MESSAGE:
        return field == MESSAGE_MESSAGE ? IN_MESSAGE : field == MESSAGE_ENUM ? IN_LEAF : IN_FILE;
    case IN_SERVICE:
        return field == SERVICE_METHOD ? IN_LEAF : IN_FILE;
    default:
        return IN_FILE;
    }
}

static bool holds(enum holder outer, struct slice descriptor, struct slice symbol) {
    struct cursor c = cursor_of(descriptor.p, descriptor.n);
    for (struct member m; next_member(&c, &m);) {
        enum holder inner = holder_of(outer, m.field);
        struct slice rest;
        if (inner == IN_FILE || !peel(symbol, first_of(m.bytes, ANY_NAME), &rest))
            continue;
        if (rest.n == 0 || holds(inner, m.bytes, rest))
            return true;
    }
    return false;
}

static bool file_is(struct slice file, struct slice name) {
    return slice_equal(first_of(file, FILE_NAME), name);
}

static bool file_holds(struct slice file, struct slice symbol) {
    struct slice rest;
    return peel(symbol, first_of(file, FILE_PACKAGE), &rest) && rest.n &&
           holds(IN_FILE, file, rest);
}

/* ---- answers ---- */

enum { ANSWER_FILES = 4, ANSWER_SERVICES = 6, ANSWER_ERROR = 7 };

static void put_error(struct buf *out, enum status code, const char *what, struct slice name) {
    struct buf message = {0};
    buf_add_str(&message, what);
    buf_add(&message, name.p, name.n);
    size_t at = ev_put_begin(out, ANSWER_ERROR);
    ev_put_uint(out, 1, code);
    ev_put_text(out, 2, buf_slice(&message));
    ev_put_end(out, at);
    buf_deinit(&message);
}

static void put_file(struct buf *out, bool (*wanted)(struct slice, struct slice),
                     struct slice name) {
    struct cursor c = cursor_of(rpc_descriptor_set, rpc_descriptor_set_bytes);
    for (struct member m; next_member(&c, &m);) {
        if (m.field != SET_FILE || !wanted(m.bytes, name))
            continue;
        size_t at = ev_put_begin(out, ANSWER_FILES);
        ev_put_element(out, 1, m.bytes);
        ev_put_end(out, at);
        return;
    }
    put_error(out, STATUS_NOT_FOUND, "not found: ", name);
}

static void put_services(struct buf *out) {
    size_t answer = ev_put_begin(out, ANSWER_SERVICES);
    struct cursor set = cursor_of(rpc_descriptor_set, rpc_descriptor_set_bytes);
    for (struct member file; next_member(&set, &file);) {
        struct slice package = first_of(file.bytes, FILE_PACKAGE);
        struct cursor c = cursor_of(file.bytes.p, file.bytes.n);
        for (struct member m; next_member(&c, &m);) {
            if (m.field != FILE_SERVICE)
                continue;
            struct slice name = first_of(m.bytes, ANY_NAME);
            size_t service = ev_put_begin(out, 1);
            size_t text = ev_put_begin(out, 1);
            buf_printf(out, "%.*s.%.*s", SLICE_ARG(package), SLICE_ARG(name));
            ev_put_end(out, text);
            ev_put_end(out, service);
        }
    }
    ev_put_end(out, answer);
}

enum status rpc_reflect(struct arena *a, struct slice request, struct buf *response) {
    const struct slice none = {0};
    void *unpacked;
    TRY(ev_wire_unpack(a, &grpc__reflection__v1alpha__server_reflection_request__descriptor,
                       request, &unpacked));
    const Grpc__Reflection__V1alpha__ServerReflectionRequest *m = unpacked;
    ev_put_text(response, 1, EV_WIRE_SLICE(m->host));
    ev_put_element(response, 2, request);
    switch (m->message_request_case) {
    case GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_LIST_SERVICES:
        put_services(response);
        break;
    case GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_BY_FILENAME:
        put_file(response, file_is, EV_WIRE_SLICE(m->file_by_filename));
        break;
    case GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_SYMBOL:
        put_file(response, file_holds, EV_WIRE_SLICE(m->file_containing_symbol));
        break;
    case GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST__NOT_SET:
        put_error(response, STATUS_INVALID_ARGUMENT, "no question asked", none);
        break;
    default:
        put_error(response, STATUS_UNIMPLEMENTED, "no extensions here", none);
    }
    return STATUS_OK;
}
