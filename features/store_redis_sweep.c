/* store_redis_sweep.c: what waits in joins and was left by a writer that had the partition before:
 * it died, or the partition was given to another. All keys are gone through, a thousand at a time
 * and not too often, between micro-batches. A record's header says whose it is; what of this
 * writer's partitions is found is looked at with the next of its micro-batches, by their rules.
 * That keeps nothing from anybody, and may be given up at any time: what is not found goes by its
 * ttl. */
#include "features/store_redis_parts.h"
#include <string.h>
#include "base/clock.h"
#include "base/heap.h"

enum { SWEEP_COUNT = 1000, SWEEP_EVERY_US = 50 * 1000, HEADER_BYTES = 32 };

void feat_redis_start_sweep(struct feat_store *s) {
    s->sweep.active = true;
    s->sweep.server = 0;
    memcpy(s->sweep.cursor, "0", 2);
}

static enum status scan_some(struct feat_store *s, int slot, const struct feat_redis_reply **keys) {
    struct buf pattern = {0};
    feat_redis_add_pattern(s, FEAT_SCOPE_RANKING, &pattern);
    feat_redis_begin(s->redis, &s->arena);
    feat_redis_command(s->redis, slot, FEAT_REDIS_READ, 6);
    feat_redis_word(s->redis, SLICE_LIT("SCAN"));
    feat_redis_word(s->redis, slice_of(s->sweep.cursor));
    feat_redis_word(s->redis, SLICE_LIT("MATCH"));
    feat_redis_word(s->redis, buf_slice(&pattern));
    feat_redis_word(s->redis, SLICE_LIT("COUNT"));
    feat_redis_number(s->redis, SWEEP_COUNT);
    buf_deinit(&pattern);
    TRY(feat_redis_run(s->redis));
    const struct feat_redis_reply *reply = feat_redis_reply(s->redis, 0);
    if (reply->type != FEAT_REDIS_LIST || reply->n != 2 ||
        reply->items[0].text.n >= sizeof s->sweep.cursor)
        return feat_redis_fail(s->redis, reply);
    memcpy(s->sweep.cursor, reply->items[0].text.p, reply->items[0].text.n + 1);
    *keys = &reply->items[1];
    return STATUS_OK;
}

/* The record's partition; only one ever writes it. False: it is not one of ours, or none. */
static bool is_ours(struct feat_store *s, struct slice start, int32_t *partition) {
    struct cursor c = cursor_of(start.p, start.n);
    uint64_t n = cursor_varint(&c);
    *partition = (int32_t)cursor_varint(&c);
    if (c.bad || n == 0)
        return false;
    for (int i = 0; i < s->n_parts; i++)
        if (s->parts[i].partition == *partition)
            return s->parts[i].swept;
    return false;
}

static enum status look_at_keys(struct feat_store *s, int slot, const struct feat_redis_reply *keys,
                                int *n) {
    if (keys->n > s->sweep.cap) {
        s->sweep.cap = keys->n;
        s->sweep.found = heap_grow(s->sweep.found, (size_t)keys->n * sizeof *s->sweep.found);
    }
    feat_redis_begin(s->redis, &s->arena);
    for (int i = 0; i < keys->n; i++) {
        struct slice key = keys->items[i].text;
        feat_redis_command(s->redis, feat_redis_is_cluster(s->redis) ? feat_redis_slot(key) : slot,
                           FEAT_REDIS_READ, 4);
        feat_redis_word(s->redis, SLICE_LIT("GETRANGE"));
        feat_redis_word(s->redis, key);
        feat_redis_number(s->redis, 0);
        feat_redis_number(s->redis, HEADER_BYTES - 1);
    }
    TRY(feat_redis_run(s->redis));
    *n = 0;
    for (int i = 0; i < keys->n; i++) {
        struct slice key = keys->items[i].text;
        struct feat_left left;
        if (key.n < sizeof left.key ||
            !is_ours(s, feat_redis_reply(s->redis, i)->text, &left.partition))
            continue;
        memcpy(&left.key, key.p + key.n - sizeof left.key, sizeof left.key);
        s->sweep.found[(*n)++] = left;
    }
    return STATUS_OK;
}

/* One step. It fails as connections do, and is taken again. */
static enum status step(struct feat_store *s, int *n) {
    const struct feat_redis_reply *keys = NULL;
    const int *slots;
    int n_servers;
    char from[sizeof s->sweep.cursor];
    arena_reset(&s->arena);
    TRY(feat_redis_masters(s->redis, &s->arena, &slots, &n_servers));
    if (s->sweep.server >= n_servers) {
        s->sweep.active = false;
        return STATUS_OK;
    }
    memcpy(from, s->sweep.cursor, sizeof from);
    enum status status = scan_some(s, slots[s->sweep.server], &keys);
    if (status == STATUS_OK)
        status = look_at_keys(s, slots[s->sweep.server], keys, n);
    if (status != STATUS_OK) {
        memcpy(s->sweep.cursor, from, sizeof from);
        return status;
    }
    s->sweep.server += strcmp(s->sweep.cursor, "0") == 0;
    return STATUS_OK;
}

int feat_redis_sweep(struct feat_store *s, const struct feat_left **out) {
    int64_t now_us = clock_mono_us();
    int n = 0;
    if (!s->sweep.active || now_us < s->sweep.next_us)
        return 0;
    s->sweep.next_us = now_us + SWEEP_EVERY_US;
    if (step(s, &n) != STATUS_OK)
        n = 0;
    *out = s->sweep.found;
    return n;
}
