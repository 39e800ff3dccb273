/* store_redis_commit.c: a micro-batch back to Redis: one script call per bucket, which writes the
 * entities nobody else has written meanwhile and moves the bucket's marker once all are written;
 * and, when every bucket is done, the word that the batch is applied everywhere. */
#include "features/state_parts.h"
#include "features/store_redis_parts.h"
#include "base/clock.h"
#include "base/heap.h"
#include "base/log.h"

enum { KEEP_US = 10 * 1000 * 1000, PUBLISH_TRIES = 3, GRACE_MS = 60 * 1000 };

/* How long Kafka keeps a log unless it is told otherwise. What waits for longer than that and the
 * join's window waits for nothing that can still be read: a reader that far behind lost events. */
#define LOG_US (7 * 86400 * 1000000ll)

/* A writer that only thinks it still owns the partition may come with less. */
static const char raise_script[] =
    "for i=1,#ARGV,3 do\n"
    "  local is=redis.call('HGET',KEYS[1],ARGV[i])\n"
    "  if not is or tonumber(string.match(is,'^%d+'))<tonumber(ARGV[i+1]) then\n"
    "    redis.call('HSET',KEYS[1],ARGV[i],ARGV[i+2])\n"
    "  end\n"
    "end\n";

/* ---- values ---- */

/* What an entity has seen: by the header it had, and now. */
struct sight {
    const struct feat_applied *seen; /* [n_seen] */
    int n_seen;
    uint64_t touched;
};

/* All that the headers of a bucket's entities say, where it is written as a whole. */
static struct sight sight_of_all(struct feat_store *s, int bucket) {
    int most = 0;
    for (int i = s->buckets[bucket].first; i >= 0; i = s->items[i].next)
        most += s->items[i].n_seen;
    struct feat_applied *seen = ARENA_ARRAY(&s->arena, struct feat_applied, most);
    struct sight all = {seen, 0, 0};
    for (int i = s->buckets[bucket].first; i >= 0; i = s->items[i].next) {
        all.touched |= s->items[i].touched;
        for (int k = 0; k < s->items[i].n_seen; k++) {
            struct feat_applied e = s->items[i].seen[k];
            int at = 0;
            while (at < all.n_seen && seen[at].partition != e.partition)
                at++;
            if (at == all.n_seen)
                seen[all.n_seen++] = e;
            else if (e.offset > seen[at].offset)
                seen[at] = e;
        }
    }
    return all;
}

/* Old entries that are still needed, and one for each partition that changed the entity. */
static void put_header(const struct feat_store *s, const struct sight *item, struct buf *out) {
    uint64_t n = 0;
    for (int pass = 0; pass < 2; pass++) {
        if (pass == 1)
            buf_add_varint(out, n);
        for (int i = 0; i < item->n_seen; i++) {
            const struct feat_applied *e = &item->seen[i];
            const struct feat_applied *old = feat_applied_find(s->old, s->n_old, e->partition);
            bool needed = old == NULL || e->offset > old->offset;
            for (int k = 0; k < s->n_to && needed; k++)
                needed =
                    !(s->to[k].partition == e->partition && item->touched >> (k < 63 ? k : 63) & 1);
            n += needed;
            if (pass == 1 && needed) {
                buf_add_varint(out, (uint64_t)e->partition);
                buf_add_varint(out, (uint64_t)e->offset);
            }
        }
        for (int k = 0; k < s->n_to; k++) {
            if (!(item->touched >> (k < 63 ? k : 63) & 1))
                continue;
            n++;
            if (pass == 1) {
                buf_add_varint(out, (uint64_t)s->to[k].partition);
                buf_add_varint(out, (uint64_t)s->to[k].offset);
            }
        }
    }
}

/* ---- calls ---- */

/* The marker as it will be: never lower than it is. */
static const struct feat_applied *target(const struct feat_store *s, int bucket, int k) {
    const struct feat_applied *to = &s->to[k];
    const struct feat_applied *is = &feat_redis_find_part(s, to->partition)->at[bucket];
    return is->offset > to->offset ? is : to;
}

static int64_t ranking_ttl_us(const struct feat_store *s) {
    int64_t ttl_us = LOG_US + s->window_us;
    return s->conf.ttl_us > 0 && s->conf.ttl_us < ttl_us ? s->conf.ttl_us : ttl_us;
}

/* Header and record; empty: the entity is deleted. */
static void add_value(struct feat_store *s, const struct feat_redis_item *item,
                      const struct sight *sight) {
    if (item->n == 0) {
        feat_redis_word(s->redis, (struct slice){"", 0});
        return;
    }
    buf_clear(&s->words);
    put_header(s, sight, &s->words);
    feat_redis_word_of(s->redis, buf_slice(&s->words), (struct slice){item->p, item->n});
}

static void add_call(struct feat_store *s, int bucket, const int *items, int n, bool last) {
    char key[FEAT_REDIS_KEY_BYTES], text[48];
    struct feat_redis *r = s->redis;
    feat_redis_command(r, s->tags[bucket].slot, FEAT_REDIS_WRITE,
                       3 + 1 + n + 6 + 3 * s->n_to + 2 * n);
    feat_redis_word(r, SLICE_LIT("EVALSHA"));
    feat_redis_word(r, feat_redis_sha(r));
    feat_redis_number(r, n + 1);
    feat_redis_word(r, feat_redis_named_key(s, s->tags[bucket].text, "m", key));
    for (int i = 0; i < n; i++) {
        const struct feat_redis_item *item = &s->items[items[i]];
        feat_redis_word(r, feat_redis_entity_key(s, item->scope, item->key, bucket, key));
    }
    feat_redis_number(r, s->conf.ttl_us / 1000);
    feat_redis_number(r, s->n_to);
    feat_redis_number(r, last);
    feat_redis_number(r, s->plan->sums_items);
    feat_redis_number(r, ranking_ttl_us(s) / 1000);
    feat_redis_number(r, feat_redis_is_cluster(r) ? GRACE_MS : 0);
    for (int k = 0; k < s->n_to; k++) {
        const struct feat_applied *was = &feat_redis_find_part(s, s->to[k].partition)->at[bucket];
        feat_redis_number(r, s->to[k].partition);
        feat_redis_word(r, (struct slice){text, (size_t)feat_redis_put_position(was, text)});
        was = target(s, bucket, k);
        feat_redis_word(r, (struct slice){text, (size_t)feat_redis_put_position(was, text)});
    }
    struct sight all = {NULL, 0, 0};
    if (s->plan->sums_items)
        all = sight_of_all(s, bucket);
    for (int i = 0; i < n; i++) {
        const struct feat_redis_item *item = &s->items[items[i]];
        const struct sight own = {item->seen, item->n_seen, item->touched};
        bool is_sum = s->plan->sums_items && item->scope == FEAT_SCOPE_VALUE;
        feat_redis_word(r, item->header);
        add_value(s, item, is_sum ? &all : &own);
    }
}

/* One call of a bucket: items [n] of `order`, from `first` on. */
struct call {
    int bucket, first, n;
    bool last;
};

/* Calls for every bucket that is not done. The marker moves with the entities where one call takes
 * them all, else in a call of its own next time: it must not move when one of several failed. */
static int add_calls(struct feat_store *s, struct call *calls, int *order) {
    int n_calls = 0, n_order = 0;
    for (int b = 0; b < s->n_buckets; b++) {
        int first = n_order;
        if (s->buckets[b].done)
            continue;
        for (int i = s->buckets[b].first; i >= 0; i = s->items[i].next) {
            if (s->items[i].open && s->items[i].dirty)
                order[n_order++] = i;
            else if (!s->plan->sums_items)
                s->items[i].open = false; /* nothing here concerns it; a sum, it may yet */
        }
        int most = s->plan->sums_items ? s->n_items + 1 : FEAT_REDIS_CALL_MAX;
        bool last = n_order - first <= most;
        do {
            int n = n_order - first < most ? n_order - first : most;
            calls[n_calls++] = (struct call){b, first, n, last};
            add_call(s, b, order + first, n, last);
            first += n;
        } while (first < n_order);
    }
    return n_calls;
}

/* ---- replies ---- */

enum status feat_redis_take_marker(struct feat_redis_part *part, int bucket, struct slice text) {
    struct feat_applied *at = &part->at[bucket], is = {part->partition, -1, 0}, was = *at;
    if (text.n > 0 && !feat_redis_get_position(text, &is))
        return fail(STATUS_DATA_LOSS, "Redis: '%.*s' is no marker", SLICE_ARG(text));
    *at = is;
    if (is.offset >= was.offset)
        return STATUS_OK;
    return fail(STATUS_ABORTED,
                "Redis lost writes: of partition %d %lld was applied, now %lld is; the log is to "
                "be read again from there",
                is.partition, (long long)was.offset, (long long)is.offset);
}

/* {"S", what the markers are} */
static enum status take_markers(struct feat_store *s, int bucket,
                                const struct feat_redis_reply *reply) {
    enum status status = STATUS_OK;
    for (int k = 0; k < s->n_to && k + 1 < reply->n; k++) {
        enum status took = feat_redis_take_marker(feat_redis_part(s, s->to[k].partition), bucket,
                                                  reply->items[k + 1].text);
        status = took != STATUS_OK ? took : status;
    }
    return status;
}

/* Numbers of the entities somebody else was faster with, in order. */
static enum status take_lost(struct feat_store *s, const struct call *c, const int *order,
                             const struct feat_redis_reply *reply) {
    int at = 0;
    for (int i = 0; i < c->n; i++) {
        struct feat_redis_item *item = &s->items[order[c->first + i]];
        bool lost = at < reply->n && reply->items[at].number == i + 1;
        at += lost;
        lost |= s->plan->sums_items && reply->n > 0; /* all or none */
        item->open = lost;
        if (!lost && item->header.n == 0)
            s->made[item->scope]++;
    }
    if (at != reply->n)
        return fail(STATUS_INTERNAL, "Redis: the script's answer is not understood");
    if (reply->n > 0 || !c->last)
        return STATUS_OK;
    s->buckets[c->bucket].done = true;
    for (int i = s->buckets[c->bucket].first; i >= 0; i = s->items[i].next)
        s->items[i].open = false;
    for (int k = 0; k < s->n_to; k++) {
        const struct feat_applied *to = target(s, c->bucket, k);
        feat_redis_part(s, to->partition)->at[c->bucket] = *to;
    }
    return STATUS_OK;
}

static enum status take_reply(struct feat_store *s, const struct call *c, const int *order,
                              const struct feat_redis_reply *reply, bool *again) {
    if (reply->type == FEAT_REDIS_AGAIN) {
        *again = true;
        return STATUS_OK;
    }
    if (reply->type != FEAT_REDIS_LIST)
        return feat_redis_fail(s->redis, reply);
    if (reply->n > 0 && reply->items[0].type == FEAT_REDIS_TEXT)
        return take_markers(s, c->bucket, reply);
    return take_lost(s, c, order, reply);
}

/* ---- what all may know ---- */

/* Every 10 s: what was applied everywhere is remembered, and used 10 s later. A connection made
 * since may have led to a server that knows less: it is forgotten then. */
static void take_applied(struct feat_store *s, const struct feat_redis_reply *reply) {
    struct feat_applied *list;
    int n;
    if (feat_redis_read_positions(&s->arena, reply, &list, &n) != STATUS_OK)
        return;
    heap_free(s->old);
    s->old = s->newer;
    s->n_old = s->n_newer;
    s->newer = HEAP_ARRAY(struct feat_applied, n + 1);
    memcpy(s->newer, list, (size_t)n * sizeof *list);
    s->n_newer = n;
    s->newer_us = clock_mono_us();
}

static void forget_old(struct feat_store *s) {
    if (s->old_epoch == feat_redis_epoch(s->redis))
        return;
    s->old_epoch = feat_redis_epoch(s->redis);
    s->n_old = s->n_newer = 0;
    s->newer_us = 0;
}

static int add_publish(struct feat_store *s, bool look) {
    char name[FEAT_REDIS_KEY_BYTES], text[48];
    struct slice key = feat_redis_named_key(s, "", "applied", name);
    int slot = feat_redis_slot(key);
    feat_redis_command(s->redis, slot, FEAT_REDIS_WRITE, 4 + 3 * s->n_to);
    feat_redis_word(s->redis, SLICE_LIT("EVAL"));
    feat_redis_word(s->redis, slice_of(raise_script));
    feat_redis_number(s->redis, 1);
    feat_redis_word(s->redis, key);
    for (int k = 0; k < s->n_to; k++) {
        feat_redis_number(s->redis, s->to[k].partition);
        feat_redis_number(s->redis, s->to[k].offset);
        feat_redis_word(s->redis,
                        (struct slice){text, (size_t)feat_redis_put_position(&s->to[k], text)});
    }
    int asked = look ? feat_redis_command(s->redis, slot, FEAT_REDIS_READ, 2) : -1;
    if (look) {
        feat_redis_word(s->redis, SLICE_LIT("HGETALL"));
        feat_redis_word(s->redis, key);
    }
    key = feat_redis_named_key(s, "", "counts", name);
    for (int scope = 0; scope < FEAT_SCOPES; scope++) {
        if (s->made[scope] == 0)
            continue;
        feat_redis_command(s->redis, feat_redis_slot(key), FEAT_REDIS_WRITE, 4);
        feat_redis_word(s->redis, SLICE_LIT("HINCRBY"));
        feat_redis_word(s->redis, key);
        feat_redis_word(s->redis, slice_of(feat_scope_words[scope]));
        feat_redis_number(s->redis, (int64_t)s->made[scope]);
        s->made[scope] = 0;
    }
    return asked;
}

/* The batch is applied already: this is for readers, and may fail. */
static void publish(struct feat_store *s) {
    forget_old(s);
    bool look = clock_mono_us() > s->newer_us + KEEP_US;
    for (int i = 0; i < PUBLISH_TRIES; i++) {
        feat_redis_begin(s->redis, &s->arena);
        int asked = add_publish(s, look);
        if (feat_redis_run(s->redis) != STATUS_OK)
            break;
        if (asked >= 0)
            take_applied(s, feat_redis_reply(s->redis, asked));
        look = false;
        if (feat_redis_reply(s->redis, 0)->type != FEAT_REDIS_AGAIN)
            return;
    }
    log_warn("redis", "readers do not see yet what was applied: no connection");
}

/* ---- commit ---- */

static bool all_done(const struct feat_store *s) {
    for (int b = 0; b < s->n_buckets; b++)
        if (!s->buckets[b].done)
            return false;
    return true;
}

enum status feat_redis_commit(struct feat_store *s, bool *done) {
    int *order = ARENA_ARRAY(&s->arena, int, s->n_items);
    struct call *calls =
        ARENA_ARRAY(&s->arena, struct call, s->n_buckets + s->n_items / FEAT_REDIS_CALL_MAX);
    bool again = false;
    forget_old(s);
    feat_redis_begin(s->redis, &s->arena);
    feat_redis_expect(s->redis, s->epoch);
    int n = add_calls(s, calls, order);
    TRY(feat_redis_run(s->redis));
    enum status status = STATUS_OK;
    for (int i = 0; i < n; i++) {
        enum status took = take_reply(s, &calls[i], order, feat_redis_reply(s->redis, i), &again);
        status = took != STATUS_OK ? took : status;
    }
    for (int i = 0; i < s->n_items; i++)
        s->items[i].known &= !s->items[i].open; /* somebody was faster: read again */
    TRY(status);
    *done = all_done(s);
    if (*done)
        publish(s);
    return again ? fail(STATUS_UNAVAILABLE, "Redis: a write did not go through") : STATUS_OK;
}
