/* ev.h: an event as the rest of the program sees it: one thing that happened, validated, a plain
 * struct of borrowed slices. Made from protobuf (moerank.v1.Event) or from a JSON line with the
 * same fields; both give equal structs for equal events, a test says so.
 *
 * Four kinds: what an item is like now, what a user is like now, a ranking that was shown, and an
 * interaction. Fields are typed values by name. Memory: the arena given to the decoder, and the
 * decoded bytes themselves, which must outlive the event. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "base/arena.h"
#include "base/buf.h"
#include "base/status.h"

enum ev_kind { EV_ITEM = 1, EV_USER = 2, EV_RANKING = 3, EV_INTERACTION = 4 };

enum ev_type { EV_BOOL = 1, EV_NUMBER, EV_STRING, EV_NUMBERS, EV_STRINGS };

struct ev_value {
    enum ev_type type;
    union {
        bool boolean;
        double number;
        struct slice string;
        struct {
            const double *v;
            int n;
        } numbers; /* [n] */
        struct {
            const struct slice *v;
            int n;
        } strings; /* [n] */
    };
};

struct ev_field {
    struct slice name;
    struct ev_value value;
};

/* One shown item of a ranking; its position is its index. */
struct ev_shown {
    struct slice item;
    float propensity; /* probability that the logging policy showed it here; 0: not logged */
    const struct ev_field *fields; /* [n_fields] per-candidate context, e.g. a retrieval score */
    int n_fields;
};

/* Where the event came from: state updates carry it, so that a repeat changes nothing. A file
 * counts as partition 0 with the line's index (0-based) as offset. */
struct ev_source {
    int32_t partition;
    int64_t offset;
};

struct ev_event {
    enum ev_kind kind;
    struct slice id;            /* required; a ranking's id joins its interactions */
    int64_t event_time_us;      /* when it happened; required, > 0 */
    int64_t arrival_time_us;    /* when it reached the log; 0: the log's own timestamp is used */
    struct slice tenant;        /* optional */
    struct slice user, session; /* user: required in user events; others may be anonymous */
    struct slice item;          /* item and interaction events */
    struct slice type;          /* interaction events: "click", "rating", ... */
    struct slice ranking;       /* interaction events: id of the ranking it answers; may be empty */
    const struct ev_field *fields; /* [n_fields] */
    int n_fields;
    const struct ev_shown *shown; /* [n_shown] ranking events, best first */
    int n_shown;
    struct ev_source source; /* set by whoever read it */
};

/* Limits, stated once. Events beyond them are invalid. */
#define EV_ID_BYTES_MAX 256
#define EV_FIELDS_MAX   256
#define EV_SHOWN_MAX    5000
#define EV_LIST_MAX     1024
#define EV_BYTES_MAX    (1 << 20)

/* Decode + validate one message. Errors: DATA_LOSS (not decodable; byte position where known),
 * INVALID_ARGUMENT (decodable but wrong; names the field). Never partial output. A thread may
 * decode into its own arena. */
enum status ev_decode_proto(struct arena *a, struct slice bytes, struct ev_event *out);
enum status ev_decode_json(struct arena *a, struct slice line, struct ev_event *out);
/* Tells by the first byte: '{' is JSON (no protobuf Event starts with it). White space before it is
 * allowed, but a newline is also protobuf's tag of `id`: what starts with one is JSON only if it is
 * no protobuf Event. */
enum status ev_decode(struct arena *a, struct slice bytes, struct ev_event *out);

/* The checks both decoders end with; for events made in the program. */
enum status ev_check(const struct ev_event *e);

void ev_encode_proto(const struct ev_event *e, struct buf *out); /* appends */
void ev_encode_json(const struct ev_event *e, struct buf *out);  /* appends one line, no newline */

/* What an event's partition of a topic is chosen by, so that what belongs together keeps its order
 * and can be joined: the user; else the session; else the ranking's id, also of what names it; an
 * item's events by the item. Empty: anywhere. */
struct slice ev_key(const struct ev_event *e);
const char *ev_kind_word(enum ev_kind k); /* "item", "user", "ranking", "interaction" */
/* The field's value, of several the last; or NULL. */
const struct ev_value *ev_field_get(const struct ev_field *fields, int n, const char *name);
/* A value as a number: bool 0/1, number, numeric string; false when it is none of these. */
bool ev_value_number(const struct ev_value *v, double *out);
