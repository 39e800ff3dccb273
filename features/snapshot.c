/* snapshot.c: state and offsets in one file, so that neither can be newer than the other.
 *
 *     "MOEFEAT1" | fingerprint u64 | log | n partitions | n x (partition, offset, clock)
 *     | per scope: n records | n x (length, bytes) | XXH3-64 of all before
 *
 * log: whose offsets these are, its name's length + 1 and the name; 0: nobody said.
 *
 * The checksum is looked at first, so any damage is DATA_LOSS; records are checked one by one all
 * the same, since a sum is no proof against a hostile file. Saving copies the state under the read
 * lock and writes without it: for a moment it takes the memory twice, but never does I/O under a
 * lock. Records stand in the table's order: compare states by dump, not by snapshot. */
#include "base/hash.h"
#include "base/heap.h"
#include "base/io.h"
#include "features/state_parts.h"

static const char magic[] = "MOEFEAT1";
enum { MAGIC_BYTES = sizeof magic - 1, SUM_BYTES = 8 };
#define SNAPSHOT_BYTES_MAX ((size_t)1 << 40)

static void write_body(struct feat_state *s, struct buf *out) {
    buf_add(out, magic, MAGIC_BYTES);
    buf_add_u64(out, s->plan->fingerprint);
    pthread_rwlock_rdlock(&s->lock);
    buf_add_varint(out, s->log == NULL ? 0 : strlen(s->log) + 1);
    buf_add_str(out, s->log == NULL ? "" : s->log);
    buf_add_varint(out, (uint64_t)s->n_applied);
    for (int i = 0; i < s->n_applied; i++) {
        buf_add_varint(out, zigzag(s->applied[i].partition));
        buf_add_varint(out, zigzag(s->applied[i].offset));
        buf_add_varint(out, zigzag(s->applied[i].clock_us));
    }
    for (int scope = 0; scope < FEAT_SCOPES; scope++) {
        struct slice bytes;
        buf_add_varint(out, s->ops->count(s->store, (enum feat_scope)scope));
        for (uint64_t at = 0; s->ops->next(s->store, (enum feat_scope)scope, &at, &bytes);) {
            buf_add_varint(out, bytes.n);
            buf_add(out, bytes.p, bytes.n);
        }
    }
    pthread_rwlock_unlock(&s->lock);
}

static enum status save_copy(struct feat_state *s, const char *path) {
    struct feat_state *copy;
    TRY(feat_state_copy(s, &copy));
    enum status status = feat_state_save(copy, path);
    feat_state_free(copy);
    return status;
}

enum status feat_state_save(struct feat_state *s, const char *path) {
    if (feat_state_is_shared(s))
        return save_copy(s, path);
    struct buf out = {0};
    write_body(s, &out);
    buf_add_u64(&out, hash_bytes(buf_slice(&out), 0));
    enum status status = io_write_file(path, buf_slice(&out));
    buf_deinit(&out);
    return status;
}

static enum status damaged(const char *path, const char *what) {
    return fail(STATUS_DATA_LOSS, "%s: %s; take an older snapshot, or none and replay the log",
                path, what);
}

/* Magic, sum and fingerprint; leaves the cursor behind them, without the sum. */
static enum status read_head(const struct feat_plan *plan, const char *path, struct slice file,
                             struct cursor *c) {
    if (file.n < MAGIC_BYTES + 8 + SUM_BYTES || memcmp(file.p, magic, MAGIC_BYTES) != 0)
        return damaged(path, "not a snapshot of feature state");
    struct cursor sum = cursor_of(file.p + file.n - SUM_BYTES, SUM_BYTES);
    if (cursor_u64(&sum) != hash_bytes((struct slice){file.p, file.n - SUM_BYTES}, 0))
        return damaged(path, "the checksum does not hold");
    *c = cursor_of(file.p + MAGIC_BYTES, file.n - MAGIC_BYTES - SUM_BYTES);
    uint64_t fingerprint = cursor_u64(c);
    if (fingerprint != plan->fingerprint)
        return fail(STATUS_FAILED_PRECONDITION,
                    "%s: made with feature plan %016llx, not with this one, %016llx, or by "
                    "another version of the program; replay the log",
                    path, (unsigned long long)fingerprint, (unsigned long long)plan->fingerprint);
    return STATUS_OK;
}

static enum status read_applied(struct feat_state *s, const char *path, struct cursor *c) {
    uint64_t n = cursor_varint(c);
    for (; n > 0 && !c->bad; n--) {
        int64_t partition = unzigzag(cursor_varint(c));
        if (partition < INT32_MIN || partition > INT32_MAX)
            return damaged(path, "a partition's number is out of range");
        struct feat_applied *a = feat_applied_entry(s, (int32_t)partition);
        a->offset = unzigzag(cursor_varint(c));
        a->clock_us = unzigzag(cursor_varint(c));
        if (a->clock_us < 0)
            return damaged(path, "a partition's clock is out of range");
    }
    return c->bad ? damaged(path, "it ends within the offsets") : STATUS_OK;
}

static enum status read_records(struct feat_state *s, const char *path, struct cursor *c) {
    for (int scope = 0; scope < FEAT_SCOPES; scope++) {
        uint64_t n = cursor_varint(c);
        for (; n > 0 && !c->bad; n--) {
            struct slice bytes = cursor_bytes(c, (size_t)cursor_varint(c));
            struct feat_record *r =
                c->bad ? NULL
                       : feat_record_view(s->plan, (enum feat_scope)scope, bytes, s->views[scope]);
            if (r == NULL)
                return damaged(path, "a record is malformed");
            s->ops->put(s->store, (enum feat_scope)scope, r->key, bytes);
        }
    }
    if (s->joins != NULL)
        feat_joins_found(s);
    return c->bad || c->p != c->end ? damaged(path, "records are missing or too many") : STATUS_OK;
}

static enum status read_log(struct feat_state *s, const char *path, struct cursor *c) {
    uint64_t n = cursor_varint(c);
    struct slice name = n > 0 ? cursor_bytes(c, (size_t)(n - 1)) : (struct slice){NULL, 0};
    if (!c->bad && n > 0) {
        s->log = HEAP_ARRAY(char, name.n + 1);
        memcpy(s->log, name.p, name.n); /* of a topic or empty: without NUL, else it is cut there */
    }
    return c->bad ? damaged(path, "it ends within the log's name") : STATUS_OK;
}

static enum status read_body(struct feat_state *s, const char *path, struct cursor *c) {
    TRY(read_log(s, path, c));
    TRY(read_applied(s, path, c));
    return read_records(s, path, c);
}

enum status feat_state_load(const struct feat_plan *plan, const char *path,
                            struct feat_state **out) {
    struct buf file = {0};
    TRY(io_read_file(path, SNAPSHOT_BYTES_MAX, &file));
    struct cursor c;
    enum status status = read_head(plan, path, buf_slice(&file), &c);
    struct feat_state *s = NULL;
    if (status == STATUS_OK) {
        s = feat_state_new(plan);
        status = read_body(s, path, &c);
    }
    buf_deinit(&file);
    if (status != STATUS_OK) {
        feat_state_free(s);
        return status;
    }
    feat_state_publish(s);
    *out = s;
    return STATUS_OK;
}
