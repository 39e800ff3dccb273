/* store_redis.c: state in Redis, shared by any number of ingesters and rankers: names of keys,
 * forms of values, opening. store_redis_parts.h has the plan of it; writing is in
 * store_redis_batch.c and store_redis_commit.c, reading in store_redis_read.c. */
#include "features/store_redis_parts.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include "base/hash.h"
#include "base/heap.h"
#include "features/codec.h"
#include "features/joins.h"
#include "features/shares.h"

/* KEYS: the bucket's marker, entities. ARGV: ttl in ms or 0, number of partitions, 1 if the marker
 * may be moved, 1 if all entities are written or none, ttl of rankings, how long they are kept when
 * deleted; per partition: its name, what its marker is
 * thought to be, what it becomes; per entity: the header it is thought to have ("": it is new), its
 * value ("": delete it). Replies {"S", markers} and does nothing where the markers are others; else
 * the numbers of the entities that were others. */
const char feat_redis_script[] =
    "local n,all,at=tonumber(ARGV[2]),ARGV[4]=='1',7\n"
    "local names,lost,moved={},{},{}\n"
    "for i=1,n do names[i]=ARGV[3*i+4]; moved[2*i-1]=names[i]; moved[2*i]=ARGV[3*i+6] end\n"
    "local have=redis.call('HMGET',KEYS[1],unpack(names))\n"
    "local same=true\n"
    "for i=1,n do\n"
    "  have[i]=have[i] or ''\n"
    "  if have[i]~=ARGV[3*i+5] then same=false end\n"
    "end\n"
    "if not same then table.insert(have,1,'S') return have end\n"
    "at=at+3*n\n"
    "if all then\n"
    "  for k=2,#KEYS do\n"
    "    local was,same=ARGV[at+2*(k-2)]\n"
    "    if was=='' then same=redis.call('EXISTS',KEYS[k])==0\n"
    "    else same=redis.call('GETRANGE',KEYS[k],0,#was-1)==was end\n"
    "    if not same then lost[#lost+1]=k-1 end\n"
    "  end\n"
    "  if #lost>0 then return lost end\n"
    "end\n"
    "for k=2,#KEYS do\n"
    "  local key,was,now,done,ttl=KEYS[k],ARGV[at],ARGV[at+1],false,ARGV[1]\n"
    "  at=at+2\n"
    "  if string.sub(key,-9,-9)=='r' then ttl=ARGV[5] end\n"
    "  if was=='' and not all then\n"
    "    if ttl=='0' then done=redis.call('SET',key,now,'NX')\n"
    "    else done=redis.call('SET',key,now,'NX','PX',ttl) end\n"
    "  elseif all or redis.call('GETRANGE',key,0,#was-1)==was then\n"
    "    if now=='' then\n"
    "      if ARGV[6]=='0' then done=redis.call('DEL',key)\n"
    "      else done=redis.call('PEXPIRE',key,ARGV[6]) end\n"
    "    elseif ttl=='0' then done=redis.call('SET',key,now)\n"
    "    else done=redis.call('SET',key,now,'PX',ttl) end\n"
    "  end\n"
    "  if not done then lost[#lost+1]=k-1 end\n"
    "end\n"
    "if ARGV[3]=='1' and #lost==0 then redis.call('HSET',KEYS[1],unpack(moved)) end\n"
    "return lost\n";

/* ---- keys ---- */

static const char letters[FEAT_SCOPES + 1] = "gusivr"; /* by scope */

struct slice feat_redis_named_key(const struct feat_store *s, const char *tag, const char *name,
                                  char *out) {
    int n = snprintf(out, FEAT_REDIS_KEY_BYTES, "%s%s%s", s->conf.prefix, tag, name);
    return (struct slice){out, (size_t)n};
}

struct slice feat_redis_entity_key(const struct feat_store *s, enum feat_scope scope, uint64_t key,
                                   int bucket, char *out) {
    static const size_t n_letter = 1;
    size_t n = strlen(s->conf.prefix), n_tag = strlen(s->tags[bucket].text);
    memcpy(out, s->conf.prefix, n);
    memcpy(out + n, s->tags[bucket].text, n_tag);
    n += n_tag;
    out[n] = letters[scope];
    n += n_letter;
    memcpy(out + n, &key, sizeof key);
    return (struct slice){out, n + sizeof key};
}

bool feat_redis_entity_of(const struct feat_store *s, struct slice key, struct feat_entity *out) {
    size_t n = strlen(s->conf.prefix), n_tail = 1 + sizeof out->key;
    if (key.n <= n + n_tail || memcmp(key.p, s->conf.prefix, n) != 0 || key.p[n] != '{')
        return false;
    const char *tail = key.p + key.n - n_tail;
    const char *end = memchr(key.p + n, '}', key.n - n);
    const char *letter = memchr(letters, tail[0], FEAT_SCOPES);
    if (end == NULL || end + 1 != tail || letter == NULL)
        return false;
    out->scope = (enum feat_scope)(letter - letters);
    memcpy(&out->key, tail + 1, sizeof out->key);
    return true;
}

/* Texts are tried until every bucket has one: bucket b gets slots [b, b+1) * 16384 / buckets, so
 * that nodes with equal shares of the slots have equal shares of the buckets. */
static void make_tags(struct feat_store *s) {
    static const char digits[] = "0123456789abcdefghijklmnopqrstuvwxyz";
    int left = s->n_buckets;
    for (uint32_t number = 0; left > 0; number++) {
        struct feat_redis_tag tag = {"{", 0};
        int n = 1;
        for (uint32_t v = number; n == 1 || v > 0; v /= 36)
            tag.text[n++] = digits[v % 36];
        tag.text[n] = '}';
        tag.slot = feat_redis_slot((struct slice){tag.text, (size_t)n + 1});
        struct feat_redis_tag *at = &s->tags[(int64_t)tag.slot * s->n_buckets / FEAT_REDIS_SLOTS];
        left -= at->text[0] == '\0';
        if (at->text[0] == '\0')
            *at = tag;
    }
}

/* ---- values ---- */

int feat_redis_put_position(const struct feat_applied *a, char out[48]) {
    if (a->offset < 0)
        return 0;
    return snprintf(out, 48, "%lld %lld", (long long)a->offset, (long long)a->clock_us);
}

/* A whole number without sign at the text's start, and what follows it. */
static bool take_number(struct slice *text, int64_t *out) {
    size_t n = 0;
    int64_t v = 0;
    for (; n < text->n && n < 18 && text->p[n] >= '0' && text->p[n] <= '9'; n++)
        v = v * 10 + (text->p[n] - '0');
    *out = v;
    text->p += n;
    text->n -= n;
    return n > 0;
}

bool feat_redis_get_position(struct slice text, struct feat_applied *out) {
    if (!take_number(&text, &out->offset) || text.n < 2 || text.p[0] != ' ')
        return false;
    text.p++;
    text.n--;
    return take_number(&text, &out->clock_us) && text.n == 0;
}

static int by_partition(const void *a, const void *b) {
    const struct feat_applied *x = a, *y = b;
    return x->partition < y->partition ? -1 : x->partition > y->partition;
}

enum status feat_redis_read_positions(struct arena *a, const struct feat_redis_reply *reply,
                                      struct feat_applied **out, int *n) {
    if (reply->type != FEAT_REDIS_LIST)
        return fail(STATUS_UNAVAILABLE, "Redis: %.*s", SLICE_ARG(reply->text));
    struct feat_applied *list = ARENA_ARRAY(a, struct feat_applied, reply->n / 2);
    for (int i = 0; i + 1 < reply->n; i += 2) {
        struct slice name = reply->items[i].text;
        int64_t partition;
        if (!take_number(&name, &partition) || name.n > 0 || partition > INT32_MAX ||
            !feat_redis_get_position(reply->items[i + 1].text, &list[i / 2]))
            return fail(STATUS_DATA_LOSS, "Redis: '%.*s' is no position of a partition",
                        SLICE_ARG(reply->items[i + 1].text));
        list[i / 2].partition = (int32_t)partition;
    }
    qsort(list, (size_t)(reply->n / 2), sizeof *list, by_partition);
    *out = list;
    *n = reply->n / 2;
    return STATUS_OK;
}

bool feat_redis_read_header(struct arena *a, struct slice value, const struct feat_applied **seen,
                            int *n, struct slice *record) {
    struct cursor c = cursor_of(value.p, value.n);
    uint64_t count = feat_get_varint(&c);
    if (c.bad || count == 0 || count > value.n)
        return false;
    struct feat_applied *list = ARENA_ARRAY(a, struct feat_applied, count);
    for (uint64_t i = 0; i < count; i++) {
        list[i].partition = (int32_t)feat_get_varint(&c);
        list[i].offset = (int64_t)feat_get_varint(&c);
    }
    *seen = list;
    *n = (int)count;
    *record = (struct slice){(const char *)c.p, (size_t)(c.end - c.p)};
    return !c.bad && record->n > 9;
}

/* Where it stands or belongs. */
static int part_at(const struct feat_store *s, int32_t partition) {
    int lo = 0, hi = s->n_parts;
    while (lo < hi) {
        int mid = (lo + hi) / 2;
        if (s->parts[mid].partition < partition)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

const struct feat_redis_part *feat_redis_find_part(const struct feat_store *s, int32_t partition) {
    int at = part_at(s, partition);
    assert(at < s->n_parts && s->parts[at].partition == partition);
    return &s->parts[at];
}

struct feat_redis_part *feat_redis_part(struct feat_store *s, int32_t partition) {
    int lo = part_at(s, partition);
    if (lo < s->n_parts && s->parts[lo].partition == partition)
        return &s->parts[lo];
    if (s->n_parts == s->cap_parts) {
        s->cap_parts = s->cap_parts == 0 ? 16 : 2 * s->cap_parts;
        s->parts = heap_grow(s->parts, (size_t)s->cap_parts * sizeof *s->parts);
    }
    memmove(&s->parts[lo + 1], &s->parts[lo], (size_t)(s->n_parts - lo) * sizeof *s->parts);
    s->n_parts++;
    struct feat_applied *at = HEAP_ARRAY(struct feat_applied, s->n_buckets);
    for (int b = 0; b < s->n_buckets; b++)
        at[b] = (struct feat_applied){partition, -1, 0};
    s->parts[lo] = (struct feat_redis_part){.partition = partition, .at = at};
    return &s->parts[lo];
}

/* ---- loads ---- */

/* In a cluster keys of one MGET must share a slot, and while a slot moves not even that helps: one
 * GET a key there. Elsewhere MGET is a third of the work. */
void feat_redis_add_loads(const struct feat_store *s, struct feat_redis *r,
                          const struct feat_entity *e, int n, int *command, int *at) {
    char key[FEAT_REDIS_KEY_BYTES];
    bool cluster = feat_redis_is_cluster(r);
    int now = 0;
    for (int i = 0; i < n; i++) {
        int bucket = feat_bucket_of(e[i].scope, e[i].key, s->n_buckets);
        int left = n - i < FEAT_REDIS_READ_MAX ? n - i : FEAT_REDIS_READ_MAX;
        if (cluster) {
            now = feat_redis_command(r, s->tags[bucket].slot, FEAT_REDIS_READ, 2);
            feat_redis_word(r, SLICE_LIT("GET"));
        } else if (i % FEAT_REDIS_READ_MAX == 0) {
            now = feat_redis_command(r, FEAT_REDIS_ANY, FEAT_REDIS_READ, 1 + left);
            feat_redis_word(r, SLICE_LIT("MGET"));
        }
        feat_redis_word(r, feat_redis_entity_key(s, e[i].scope, e[i].key, bucket, key));
        command[i] = now;
        at[i] = cluster ? -1 : i % FEAT_REDIS_READ_MAX;
    }
}

enum status feat_redis_loaded(const struct feat_redis *r, int command, int at, struct slice *out) {
    const struct feat_redis_reply *reply = feat_redis_reply(r, command);
    if (at >= 0) {
        if (reply->type != FEAT_REDIS_LIST || at >= reply->n)
            return feat_redis_fail(r, reply);
        reply = &reply->items[at];
    }
    if (reply->type != FEAT_REDIS_TEXT && reply->type != FEAT_REDIS_NIL)
        return feat_redis_fail(r, reply);
    *out = reply->text;
    return STATUS_OK;
}

/* ---- opening ---- */

static enum status check_conf(const struct feat_store_conf *c) {
    TRY(feat_redis_check(&c->redis));
    if (strlen(c->prefix) > FEAT_REDIS_PREFIX_BYTES || strpbrk(c->prefix, "{}") != NULL)
        return fail(STATUS_INVALID_ARGUMENT,
                    "prefix: at most %d bytes, and no braces: they choose a cluster's slot",
                    FEAT_REDIS_PREFIX_BYTES);
    if (c->buckets < 1 || c->buckets > FEAT_REDIS_BUCKETS_MAX)
        return fail(STATUS_INVALID_ARGUMENT, "buckets: 1 to %d", FEAT_REDIS_BUCKETS_MAX);
    return STATUS_OK;
}

/* The key's text, which is `want` if there was none. */
static enum status set_once(struct feat_store *s, struct arena *a, struct slice key,
                            struct slice want, struct slice *is) {
    int slot = feat_redis_slot(key);
    for (int i = 0; i < 2; i++) { /* a first write may not go through */
        feat_redis_begin(s->redis, a);
        feat_redis_command(s->redis, slot, FEAT_REDIS_WRITE, 4);
        feat_redis_word(s->redis, SLICE_LIT("SET"));
        feat_redis_word(s->redis, key);
        feat_redis_word(s->redis, want);
        feat_redis_word(s->redis, SLICE_LIT("NX"));
        int get = feat_redis_command(s->redis, slot, FEAT_REDIS_READ, 2);
        feat_redis_word(s->redis, SLICE_LIT("GET"));
        feat_redis_word(s->redis, key);
        TRY(feat_redis_run(s->redis));
        const struct feat_redis_reply *reply = feat_redis_reply(s->redis, get);
        if (reply->type == FEAT_REDIS_ERROR)
            return feat_redis_fail(s->redis, reply);
        if (reply->type == FEAT_REDIS_TEXT) {
            *is = reply->text;
            return STATUS_OK;
        }
    }
    return fail(STATUS_UNAVAILABLE, "Redis: the first write did not go through");
}

enum status feat_redis_sign(struct feat_store *s, struct arena *a) {
    char name[FEAT_REDIS_KEY_BYTES], text[96];
    struct slice is, want = {text, 0};
    want.n = (size_t)snprintf(text, sizeof text, "moerank features 2 plan %016llx buckets %d",
                              (unsigned long long)s->plan->fingerprint, s->n_buckets);
    TRY(set_once(s, a, feat_redis_named_key(s, "", "meta", name), want, &is));
    if (slice_equal(is, want))
        return STATUS_OK;
    return fail(STATUS_FAILED_PRECONDITION,
                "Redis has '%.*s' under '%s', but this is '%s'; give another prefix "
                "(state.redis_prefix) and replay the log, or delete the old keys",
                SLICE_ARG(is), s->conf.prefix, text);
}

static enum status redis_claim(struct feat_store *s, struct arena *a, struct slice log,
                               struct slice *is) {
    char name[FEAT_REDIS_KEY_BYTES];
    return set_once(s, a, feat_redis_named_key(s, "", "log", name), log, is);
}

static void redis_close(struct feat_store *s) {
    if (s == NULL)
        return;
    feat_redis_readers_close(s);
    feat_redis_free(s->redis);
    arena_deinit(&s->arena);
    for (int i = 0; i < s->n_parts; i++)
        heap_free(s->parts[i].at);
    heap_free(s->parts);
    heap_free(s->items);
    heap_free(s->index);
    heap_free(s->buckets);
    heap_free(s->sweep.found);
    heap_free(s->old);
    heap_free(s->newer);
    heap_free(s->tags);
    buf_deinit(&s->words);
    pthread_mutex_destroy(&s->lock);
    heap_free(s);
}

static enum status redis_open(const struct feat_plan *plan, const struct feat_store_conf *c,
                              struct feat_store **out) {
    TRY(check_conf(c));
    struct feat_store *s = HEAP_NEW(struct feat_store);
    s->conf = *c;
    s->plan = plan;
    s->n_buckets = (int)c->buckets;
    s->window_us = feat_joins_window_us(plan);
    s->tags = HEAP_ARRAY(struct feat_redis_tag, s->n_buckets);
    s->buckets = HEAP_ARRAY(struct feat_redis_bucket, s->n_buckets);
    make_tags(s);
    s->trusted = UINT64_MAX;
    arena_init(&s->arena, 0);
    pthread_mutex_init(&s->lock, NULL);
    s->redis = feat_redis_new(&s->conf.redis, feat_redis_script);
    enum status status = feat_redis_sign(s, &s->arena);
    if (status != STATUS_OK) {
        redis_close(s);
        return status;
    }
    *out = s;
    return STATUS_OK;
}

const struct feat_store_ops feat_store_redis = {
    .name = "redis",
    .open = redis_open,
    .close = redis_close,
    .fetch = feat_redis_fetch,
    .put = feat_redis_put,
    .drop = feat_redis_drop,
    .positions = feat_redis_positions,
    .claim = redis_claim,
    .begin = feat_redis_batch_begin,
    .admit = feat_redis_admit,
    .want = feat_redis_want,
    .load = feat_redis_load,
    .more = feat_redis_more,
    .commit = feat_redis_commit,
    .sweep = feat_redis_sweep,
    .verify = feat_redis_verify,
    .read_begin = feat_redis_read_begin,
    .read_end = feat_redis_read_end,
    .applied = feat_redis_applied,
    .read = feat_redis_read,
    .ahead = feat_redis_ahead,
    .failed = feat_redis_failed,
    .sum_find = feat_redis_sum_find,
    .sum_keep = feat_redis_sum_keep,
    .scan = feat_redis_scan,
    .size = feat_redis_size,
};
