/* redis_reply.c: replies of a Redis, read from its connection into an arena: RESP, versions 2
 * and 3. Lists, sets and maps are lists; nil, false numbers and texts are what they are called; an
 * error is a reply. What a server says of its own accord (RESP3's pushes) stands between replies:
 * the keys it tells to have changed are noted in the order of the stream, other pushes are left
 * out.
 *
 * A reader that waits needs no state machine: it asks for bytes where it lacks them. Deliberately
 * no streamed lists and no attributes, which no Redis sends unasked. */
#include <errno.h>
#include <hiredis/hiredis.h>
#include <sys/socket.h>
#include "features/redis_parts.h"

enum {
    READ_BYTES = 64 * 1024,
    LINE_MAX_BYTES = 64 * 1024, /* of an error */
    TEXT_MAX_BYTES = 512 * 1024 * 1024,
    ITEMS_MAX = 1 << 24,
    DEPTH_MAX = 8
};

static enum status no_reply(const char *what) {
    return fail(STATUS_UNAVAILABLE, "not understood: %s", what);
}

/* At least `want` unread bytes. */
static enum status fill(struct feat_redis_conn *c, size_t want) {
    struct buf *in = &c->in;
    if (in->n - c->read < want && c->read > 0) {
        memmove(in->p, in->p + c->read, in->n - c->read);
        in->n -= c->read;
        c->read = 0;
    }
    while (in->n - c->read < want) {
        size_t more = want - (in->n - c->read);
        buf_reserve(in, more > READ_BYTES ? more : READ_BYTES);
        ssize_t n = recv(c->context->fd, in->p + in->n, in->cap - in->n, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n == 0)
            return fail(STATUS_UNAVAILABLE, "it closed the connection");
        if (n < 0)
            return fail(STATUS_UNAVAILABLE, "%s",
                        errno == EAGAIN ? "no answer in time" : strerror(errno));
        in->n += (size_t)n;
    }
    return STATUS_OK;
}

/* Up to the line's end, which is left out. Valid until the next fill. */
static enum status take_line(struct feat_redis_conn *c, struct slice *out) {
    for (size_t seen = 0;; seen = c->in.n - c->read) {
        TRY(fill(c, seen + 1));
        const char *from = c->in.p + c->read;
        size_t n = c->in.n - c->read, at = seen;
        const char *end = memchr(from + at, '\n', n - at);
        if (end != NULL) {
            if (end == from || end[-1] != '\r')
                return no_reply("a line's end");
            *out = (struct slice){from, (size_t)(end - from) - 1};
            c->read += out->n + 2;
            return STATUS_OK;
        }
        if (n > LINE_MAX_BYTES)
            return no_reply("a line without end");
    }
}

/* A whole number, with a sign perhaps, and nothing else. */
static enum status number_of(struct slice text, int64_t *out) {
    bool minus = text.n > 0 && text.p[0] == '-';
    int64_t v = 0;
    if (text.n - minus < 1 || text.n - minus > 19)
        return no_reply("a number");
    for (size_t i = minus; i < text.n; i++) {
        if (text.p[i] < '0' || text.p[i] > '9' || __builtin_mul_overflow(v, (int64_t)10, &v) ||
            __builtin_add_overflow(v, (int64_t)(text.p[i] - '0'), &v))
            return no_reply("a number");
    }
    *out = minus ? -v : v;
    return STATUS_OK;
}

static enum status take_text(struct feat_redis_conn *c, struct arena *a, int64_t n, bool verbatim,
                             struct feat_redis_reply *out) {
    if (n > TEXT_MAX_BYTES || (verbatim && n < 4))
        return no_reply("a text's length");
    TRY(fill(c, (size_t)n + 2));
    struct slice text = {c->in.p + c->read, (size_t)n};
    if (memcmp(text.p + n, "\r\n", 2) != 0)
        return no_reply("a text's end");
    c->read += (size_t)n + 2;
    if (verbatim) /* "txt:" */
        text = (struct slice){text.p + 4, text.n - 4};
    out->text = arena_dup(a, text);
    return STATUS_OK;
}

static enum status take_value(struct feat_redis_conn *c, struct arena *a, int depth,
                              struct feat_redis_reply *out);

static enum status take_list(struct feat_redis_conn *c, struct arena *a, int64_t n, int depth,
                             struct feat_redis_reply *out) {
    if (depth >= DEPTH_MAX)
        return no_reply("a list's depth");
    out->n = (int)n;
    out->items = ARENA_ARRAY(a, struct feat_redis_reply, n);
    for (int i = 0; i < out->n; i++)
        TRY(take_value(c, a, depth + 1, &out->items[i]));
    return STATUS_OK;
}

/* What comes after the first letter of a text, a list or an error by length. */
static enum status take_long(struct feat_redis_conn *c, struct arena *a, char letter, int64_t n,
                             int depth, struct feat_redis_reply *out) {
    bool list = letter == '*' || letter == '~' || letter == '%' || letter == '>';
    if (n == -1 && (letter == '$' || letter == '*')) { /* RESP2's nil */
        out->type = FEAT_REDIS_NIL;
        return STATUS_OK;
    }
    if (n < 0 || (list && n > ITEMS_MAX))
        return no_reply("a length");
    out->type = list ? FEAT_REDIS_LIST : letter == '!' ? FEAT_REDIS_ERROR : FEAT_REDIS_TEXT;
    return list ? take_list(c, a, letter == '%' ? 2 * n : n, depth, out)
                : take_text(c, a, n, letter == '=', out);
}

static enum status take_value(struct feat_redis_conn *c, struct arena *a, int depth,
                              struct feat_redis_reply *out) {
    struct slice line = {NULL, 0};
    int64_t number = 0;
    TRY(take_line(c, &line));
    if (line.n == 0)
        return no_reply("an empty line");
    char letter = line.p[0];
    struct slice rest = {line.p + 1, line.n - 1};
    *out = (struct feat_redis_reply){.type = FEAT_REDIS_TEXT};
    switch (letter) {
    case '+':
    case ',':
    case '(':
    case '-':
        out->type = letter == '-' ? FEAT_REDIS_ERROR : FEAT_REDIS_TEXT;
        out->text = arena_dup(a, rest);
        return STATUS_OK;
    case '_':
        out->type = FEAT_REDIS_NIL;
        return STATUS_OK;
    case '#':
    case ':':
        out->type = FEAT_REDIS_NUMBER;
        out->number = rest.n == 1 && rest.p[0] == 't';
        return letter == '#' ? STATUS_OK : number_of(rest, &out->number);
    case '$':
    case '=':
    case '!':
    case '*':
    case '~':
    case '%':
    case '>':
        TRY(number_of(rest, &number));
        return take_long(c, a, letter, number, depth, out);
    default:
        return no_reply("its first letter");
    }
}

/* ["invalidate", [key, ...]]; no list: all keys. */
static void note_changed(struct feat_redis_conn *c, const struct feat_redis_reply *push) {
    if (push->n != 2 || !slice_is(push->items[0].text, "invalidate"))
        return;
    const struct feat_redis_reply *keys = &push->items[1];
    if (keys->type != FEAT_REDIS_LIST)
        buf_add_u32(&c->changed, FEAT_REDIS_ALL_KEYS);
    for (int i = 0; i < keys->n; i++) {
        buf_add_u32(&c->changed, (uint32_t)keys->items[i].text.n);
        buf_add(&c->changed, keys->items[i].text.p, keys->items[i].text.n);
    }
}

enum status feat_redis_take_reply(struct feat_redis_conn *c, struct arena *a,
                                  struct feat_redis_reply *out) {
    for (;;) {
        TRY(fill(c, 1));
        bool push = c->in.p[c->read] == '>';
        TRY(take_value(c, a, 0, out));
        if (!push)
            return STATUS_OK;
        note_changed(c, out);
    }
}

enum status feat_redis_take_pushes(struct feat_redis_conn *c, struct arena *a) {
    struct feat_redis_reply push;
    for (;;) {
        if (c->read == c->in.n) {
            c->read = c->in.n = 0;
            buf_reserve(&c->in, READ_BYTES);
            ssize_t n = recv(c->context->fd, c->in.p, c->in.cap, MSG_DONTWAIT);
            if (n == 0)
                return fail(STATUS_UNAVAILABLE, "it closed the connection");
            if (n < 0)
                return errno == EAGAIN || errno == EINTR
                           ? STATUS_OK
                           : fail(STATUS_UNAVAILABLE, "%s", strerror(errno));
            c->in.n = (size_t)n;
        }
        if (c->in.p[c->read] != '>')
            return no_reply("an answer that nobody asked for");
        TRY(take_value(c, a, 0, &push));
        note_changed(c, &push);
    }
}
