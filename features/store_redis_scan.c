/* store_redis_scan.c: all of the state: records of a scope one after another, for copies and lists,
 * and how much there is. SCAN goes over every key of every server: minutes where there are many
 * millions, so nothing on the read path asks for it. While slots move, a record may come twice or
 * not at all: copy a cluster that stands still. */
#include "features/store_redis_parts.h"
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "features/state_parts.h"

enum { SCAN_COUNT = 1000, SIZE_EVERY_US = 2 * 1000 * 1000 };

/* ---- records ---- */

/* Keys of one reply of SCAN: [cursor, [key, ...]]. */
static enum status take_keys(struct feat_store *s, struct feat_redis *r, struct arena *a, int slot,
                             const struct feat_redis_reply *reply, void *context,
                             enum status (*take)(void *, const struct slice *, int)) {
    const struct feat_redis_reply *keys = &reply->items[1];
    struct slice *records = ARENA_ARRAY(a, struct slice, keys->n);
    int n = 0;
    feat_redis_begin(r, a);
    for (int i = 0; i < keys->n; i++) {
        feat_redis_command(r,
                           feat_redis_is_cluster(r) ? feat_redis_slot(keys->items[i].text) : slot,
                           FEAT_REDIS_READ, 2);
        feat_redis_word(r, SLICE_LIT("GET"));
        feat_redis_word(r, keys->items[i].text);
    }
    TRY(feat_redis_run(r));
    for (int i = 0; i < keys->n; i++) {
        const struct feat_applied *seen;
        int n_seen;
        struct slice value;
        TRY(feat_redis_loaded(r, i, -1, &value));
        if (value.n == 0) /* gone meanwhile */
            continue;
        if (!feat_redis_read_header(a, value, &seen, &n_seen, &records[n++]))
            return fail(STATUS_DATA_LOSS, "Redis: '%.*s' is not of this program",
                        SLICE_ARG(keys->items[i].text));
    }
    (void)s;
    return n > 0 ? take(context, records, n) : STATUS_OK;
}

/* What MATCH takes literally. */
void feat_redis_add_pattern(const struct feat_store *s, enum feat_scope scope, struct buf *out) {
    static const char letters[FEAT_SCOPES + 1] = "gusivr";
    for (const char *p = s->conf.prefix; *p != '\0'; p++) {
        if (strchr("*?[]\\^-", *p) != NULL)
            buf_add_byte(out, '\\');
        buf_add_byte(out, (uint8_t)*p);
    }
    buf_add_str(out, "{*}");
    buf_add_byte(out, (uint8_t)letters[scope]);
    for (int i = 0; i < 8; i++)
        buf_add_byte(out, '?');
}

static enum status scan_server(struct feat_store *s, struct feat_redis *r, int slot,
                               struct slice pattern, void *context,
                               enum status (*take)(void *, const struct slice *, int)) {
    struct arena a;
    char cursor[24] = "0";
    enum status status = STATUS_OK;
    arena_init(&a, 0);
    do {
        arena_reset(&a);
        feat_redis_begin(r, &a);
        feat_redis_command(r, slot, FEAT_REDIS_READ, 6);
        feat_redis_word(r, SLICE_LIT("SCAN"));
        feat_redis_word(r, slice_of(cursor));
        feat_redis_word(r, SLICE_LIT("MATCH"));
        feat_redis_word(r, pattern);
        feat_redis_word(r, SLICE_LIT("COUNT"));
        feat_redis_number(r, SCAN_COUNT);
        status = feat_redis_run(r);
        if (status != STATUS_OK)
            break;
        const struct feat_redis_reply *reply = feat_redis_reply(r, 0);
        if (reply->type != FEAT_REDIS_LIST || reply->n != 2 || reply->items[0].text.n >= 24) {
            status = feat_redis_fail(r, reply);
            break;
        }
        memcpy(cursor, reply->items[0].text.p, reply->items[0].text.n + 1);
        status = take_keys(s, r, &a, slot, reply, context, take);
    } while (status == STATUS_OK && strcmp(cursor, "0") != 0);
    arena_deinit(&a);
    return status;
}

enum status feat_redis_scan(struct feat_store *s, enum feat_scope scope, void *context,
                            enum status (*take)(void *, const struct slice *, int)) {
    struct feat_redis_reader *r = feat_redis_reader_take(s);
    struct buf pattern = {0};
    const int *slots;
    int n;
    feat_redis_add_pattern(s, scope, &pattern);
    enum status status = feat_redis_masters(r->redis, &r->arena, &slots, &n);
    for (int i = 0; i < n && status == STATUS_OK; i++)
        status = scan_server(s, r->redis, slots[i], buf_slice(&pattern), context, take);
    buf_deinit(&pattern);
    feat_redis_reader_give(s, r);
    return status;
}

/* ---- size ---- */

/* The number behind "used_memory:" */
static uint64_t used_memory(struct slice info) {
    static const char word[] = "\nused_memory:";
    const char *at = info.n > 0 ? strstr(info.p, word) : NULL;
    return at != NULL ? strtoull(at + sizeof word - 1, NULL, 10) : 0;
}

static enum status ask_size(struct feat_store *s, struct feat_redis_reader *r,
                            struct feat_state_size *out) {
    char name[FEAT_REDIS_KEY_BYTES];
    const int *slots;
    int n;
    TRY(feat_redis_masters(r->redis, &r->arena, &slots, &n));
    struct slice key = feat_redis_named_key(s, "", "counts", name);
    feat_redis_begin(r->redis, &r->arena);
    int counts = feat_redis_command(r->redis, feat_redis_slot(key), FEAT_REDIS_READ, 2);
    feat_redis_word(r->redis, SLICE_LIT("HGETALL"));
    feat_redis_word(r->redis, key);
    for (int i = 0; i < n; i++) {
        feat_redis_command(r->redis, slots[i], FEAT_REDIS_READ, 2);
        feat_redis_word(r->redis, SLICE_LIT("INFO"));
        feat_redis_word(r->redis, SLICE_LIT("memory"));
    }
    TRY(feat_redis_run(r->redis));
    const struct feat_redis_reply *reply = feat_redis_reply(r->redis, counts);
    *out = (struct feat_state_size){{0}, 0};
    for (int i = 0; i + 1 < reply->n; i += 2)
        for (int scope = 0; scope < FEAT_SCOPES; scope++)
            if (slice_is(reply->items[i].text, feat_scope_words[scope]))
                out->entities[scope] = strtoull(reply->items[i + 1].text.p, NULL, 10);
    for (int i = 0; i < n; i++)
        out->bytes += used_memory(feat_redis_reply(r->redis, counts + 1 + i)->text);
    return STATUS_OK;
}

/* Asked for every 2 s at most: it is for gauges. */
enum status feat_redis_size(struct feat_store *s, struct feat_state_size *out) {
    pthread_mutex_lock(&s->lock);
    int64_t now_us = clock_mono_us();
    bool old = s->size_us == 0 || now_us > s->size_us + SIZE_EVERY_US;
    *out = s->size;
    s->size_us = old ? now_us : s->size_us;
    pthread_mutex_unlock(&s->lock);
    if (!old)
        return STATUS_OK;
    struct feat_redis_reader *r = feat_redis_reader_take(s);
    enum status status = ask_size(s, r, out);
    feat_redis_reader_give(s, r);
    TRY(status);
    pthread_mutex_lock(&s->lock);
    s->size = *out;
    pthread_mutex_unlock(&s->lock);
    return STATUS_OK;
}
