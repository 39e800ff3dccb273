/* json.c: the JSON writer of node.h. */
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include "base/node.h"

enum { DEPTH_MAX = (int)(sizeof((struct json *)0)->first / sizeof(bool)) };

void json_begin(struct json *j, struct buf *out) {
    *j = (struct json){.out = out};
    j->first[0] = true;
}

/* Before each value: the comma, unless a key or the beginning stands before it. */
static void separate(struct json *j) {
    if (!j->after_key && !j->first[j->depth])
        buf_add_byte(j->out, ',');
    j->first[j->depth] = false;
    j->after_key = false;
}

static void open(struct json *j, char bracket) {
    separate(j);
    assert(j->depth + 1 < DEPTH_MAX);
    j->first[++j->depth] = true;
    buf_add_byte(j->out, (uint8_t)bracket);
}

static void close(struct json *j, char bracket) {
    assert(j->depth > 0 && !j->after_key);
    j->depth--;
    buf_add_byte(j->out, (uint8_t)bracket);
}

void json_object(struct json *j) { open(j, '{'); }
void json_object_end(struct json *j) { close(j, '}'); }
void json_array(struct json *j) { open(j, '['); }
void json_array_end(struct json *j) { close(j, ']'); }

/* Length of the valid UTF-8 sequence at p, 0 if there is none (RFC 3629: no surrogates, nothing
 * overlong, nothing above U+10FFFF). */
static size_t utf8_length(const unsigned char *p, size_t n) {
    static const unsigned least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t length = p[0] < 0x80       ? 1
                    : p[0] >> 5 == 6  ? 2
                    : p[0] >> 4 == 14 ? 3
                    : p[0] >> 3 == 30 ? 4
                                      : 0;
    if (length < 2 || length > n)
        return length > n ? 0 : length;
    unsigned code = p[0] & (0x7Fu >> length);
    for (size_t i = 1; i < length; i++) {
        if (p[i] >> 6 != 2)
            return 0;
        code = code << 6 | (p[i] & 0x3F);
    }
    bool valid = code >= least[length] && code <= 0x10FFFF && !(code >= 0xD800 && code <= 0xDFFF);
    return valid ? length : 0;
}

static void add_control(struct buf *out, unsigned char c) {
    static const char names[] = "\bb\tt\nn\ff\rr\"\"\\\\";
    for (const char *p = names; *p; p += 2)
        if ((unsigned char)*p == c) {
            buf_add_byte(out, '\\');
            buf_add_byte(out, (uint8_t)p[1]);
            return;
        }
    buf_printf(out, "\\u%04x", c);
}

static void add_quoted(struct buf *out, struct slice s) {
    const unsigned char *p = (const unsigned char *)s.p;
    buf_add_byte(out, '"');
    for (size_t i = 0; i < s.n;) {
        size_t plain = i;
        while (plain < s.n && p[plain] >= 0x20 && p[plain] < 0x7F && p[plain] != '"' &&
               p[plain] != '\\')
            plain++;
        buf_add(out, s.p + i, plain - i);
        i = plain;
        if (i == s.n)
            break;
        size_t length = utf8_length(p + i, s.n - i);
        if (length > 1)
            buf_add(out, s.p + i, length);
        else if (length == 1)
            add_control(out, p[i]);
        else
            buf_add_str(out, "\xEF\xBF\xBD");
        i += length ? length : 1;
    }
    buf_add_byte(out, '"');
}

void json_key(struct json *j, const char *key) {
    assert(j->depth > 0 && !j->after_key);
    separate(j);
    add_quoted(j->out, slice_of(key));
    buf_add_byte(j->out, ':');
    j->after_key = true;
}

void json_str(struct json *j, struct slice s) {
    separate(j);
    add_quoted(j->out, s);
}

void json_cstr(struct json *j, const char *s) { json_str(j, slice_of(s)); }

void json_num(struct json *j, double v) {
    if (!isfinite(v)) {
        json_null(j);
        return;
    }
    if (fabs(v) < 1e15 && v == (double)(int64_t)v && !(v == 0 && signbit(v))) {
        json_int(j, (int64_t)v);
        return;
    }
    separate(j);
    char text[32];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v)
            break;
    }
    buf_add_str(j->out, text);
}

void json_int(struct json *j, int64_t v) {
    separate(j);
    buf_printf(j->out, "%lld", (long long)v);
}

void json_bool(struct json *j, bool v) {
    separate(j);
    buf_add_str(j->out, v ? "true" : "false");
}

void json_null(struct json *j) {
    separate(j);
    buf_add_str(j->out, "null");
}

/* A whole number in JSON's own form, so that digits beyond a double's 53 bits pass unharmed. */
static bool is_plain_integer(struct slice s) {
    size_t i = s.n > 1 && s.p[0] == '-';
    if (s.n == 0 || (s.p[i] == '0' && s.n > i + 1))
        return false;
    while (i < s.n && s.p[i] >= '0' && s.p[i] <= '9')
        i++;
    return i == s.n;
}

static void put_number(struct json *j, const struct node *n) {
    if (!is_plain_integer(n->text)) {
        json_num(j, n->number);
        return;
    }
    separate(j);
    buf_add(j->out, n->text.p, n->text.n);
}

static void put_scalar(struct json *j, const struct node *n) {
    switch (n->type) {
    case NODE_BOOL:
        json_bool(j, n->boolean);
        break;
    case NODE_NUMBER:
        put_number(j, n);
        break;
    case NODE_STRING:
        json_str(j, n->text);
        break;
    default:
        json_null(j);
    }
}

void json_tree(struct json *j, const struct node *n) {
    if (!n || (n->type != NODE_LIST && n->type != NODE_MAP)) {
        static const struct node null;
        put_scalar(j, n ? n : &null);
        return;
    }
    (n->type == NODE_MAP ? json_object : json_array)(j);
    for (const struct node *c = n->first; c; c = c->next) {
        if (n->type == NODE_MAP)
            json_key(j, c->key.p);
        json_tree(j, c);
    }
    (n->type == NODE_MAP ? json_object_end : json_array_end)(j);
}
