/* request_log.c: a buffer filled under a lock, and a thread that takes it away and writes it out
 * without the lock: to a file, plain or in frames, which is moved away when it is long; to a topic;
 * or to both. What they cannot take in time is left out: a log must not hold up answers. */
#include "ranker/request_log.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/heap.h"
#include "base/hash.h"
#include "base/io.h"
#include "base/io_frames.h"
#include "base/log.h"

enum {
    WAITING_BYTES_MAX = 64 << 20,
    RECORD_BYTES_MAX = 64 << 20,
    FLUSH_MS = 1000,
    LAST_FLUSH_MS = 10000,
    PATH_BYTES = 4096
};

struct rk_request_log {
    char *path; /* of the file; NULL: none */
    int fd;     /* -1: none */
    bool frames;
    int64_t bytes, bytes_max; /* of the file; 0: any */
    int files_max;            /* that stay beside it */
    char *topic;              /* NULL: none */
    struct rk_producer *producer;
    const struct feat_plan *plan; /* NULL: without rows */
    char version[48];
    struct buf packed; /* the thread's */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct buf waiting; /* under the lock */
    struct buf writing; /* the thread's */
    uint64_t left_out;
    uint64_t unsent; /* the thread's */
    bool closing, broken;
};

/* ---- writing ------------------------------------------------------------------------------- */

static bool write_all(int fd, struct slice s) {
    while (s.n) {
        ssize_t n = write(fd, s.p, s.n);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        s.p += n;
        s.n -= (size_t)n;
    }
    return true;
}

static struct timespec in_ms(int ms) {
    int64_t us = clock_mono_us() + (int64_t)ms * 1000;
    return (struct timespec){us / 1000000, us % 1000000 * 1000};
}

/* Moves PATH.k to PATH.k+1, the last one falling off, and PATH to PATH.1. */
static bool move_away(struct rk_request_log *l) {
    char from[PATH_BYTES], to[PATH_BYTES];
    for (int k = l->files_max - 1; k >= 0; k--) {
        snprintf(from, sizeof from, k > 0 ? "%s.%d" : "%s", l->path, k);
        snprintf(to, sizeof to, "%s.%d", l->path, k + 1);
        if (rename(from, to) != 0 && errno != ENOENT)
            return false;
    }
    close(l->fd);
    l->bytes = 0;
    l->fd = open(l->path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    return l->fd >= 0;
}

static bool to_file(struct rk_request_log *l, struct slice bytes) {
    if (l->frames) {
        buf_clear(&l->packed);
        io_frame_pack(bytes, &l->packed);
        bytes = buf_slice(&l->packed);
    }
    if (!write_all(l->fd, bytes))
        return false;
    l->bytes += (int64_t)bytes.n;
    return l->bytes_max == 0 || l->bytes < l->bytes_max || move_away(l);
}

/* Kafka's queue may be full for a while: then this thread waits, and no answer. */
static void to_topic(struct rk_request_log *l, struct slice bytes) {
    struct cursor c = cursor_of(bytes.p, bytes.n);
    while (c.p < c.end) {
        struct slice message = cursor_bytes(&c, cursor_u32(&c));
        if (rk_producer_send(l->producer, l->topic, (struct slice){NULL, 0}, message) != STATUS_OK)
            l->unsent++;
    }
}

static void put_out(struct rk_request_log *l) {
    struct slice bytes = buf_slice(&l->writing);
    if (bytes.n == 0)
        return;
    if (l->fd >= 0 && !l->broken && !to_file(l, bytes)) {
        log_error("request log", "%s: %s; requests are no longer written there", l->path,
                  strerror(errno));
        l->broken = true;
    }
    if (l->producer)
        to_topic(l, bytes);
}

static void *write_out(void *arg) {
    struct rk_request_log *l = arg;
    pthread_mutex_lock(&l->lock);
    for (bool last = false; !last;) {
        struct timespec until = in_ms(FLUSH_MS);
        while (!l->closing && pthread_cond_timedwait(&l->wake, &l->lock, &until) != ETIMEDOUT)
            ;
        last = l->closing;
        struct buf swap = l->writing;
        l->writing = l->waiting;
        l->waiting = swap;
        buf_clear(&l->waiting);
        pthread_mutex_unlock(&l->lock);
        put_out(l);
        pthread_mutex_lock(&l->lock);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

/* ---- opening ------------------------------------------------------------------------------- */

/* Where the last whole message ends: lengths are walked, messages not read. */
static enum status find_end(int fd, int64_t bytes, int64_t *end) {
    int64_t at = 0;
    while (at < bytes) {
        uint8_t head[4];
        ssize_t n = pread(fd, head, sizeof head, at);
        if (n <= 0)
            return fail(STATUS_DATA_LOSS, "byte %lld: %s", (long long)at, strerror(errno));
        struct cursor c = cursor_of(head, (size_t)n);
        uint32_t length = cursor_u32(&c);
        int64_t next = at + 4 + (int64_t)length;
        if (c.bad || length > RECORD_BYTES_MAX || next > bytes)
            break;
        at = next;
    }
    *end = at;
    return STATUS_OK;
}

/* The same of frames. */
static enum status find_frames_end(const char *path, int64_t *end) {
    struct buf all = {0};
    TRY(io_read_file(path, (size_t)1 << 40, &all));
    *end = (int64_t)io_frames_whole(buf_slice(&all));
    buf_deinit(&all);
    return STATUS_OK;
}

static enum status repair(struct rk_request_log *l) {
    struct stat st;
    int64_t end = 0;
    if (fstat(l->fd, &st) != 0)
        return fail(STATUS_UNAVAILABLE, "%s: %s", l->path, strerror(errno));
    TRY(fail_in(l->frames ? find_frames_end(l->path, &end) : find_end(l->fd, st.st_size, &end),
                "%s", l->path));
    if (end < st.st_size) {
        log_warn("request log", "%s: %lld bytes after the last whole message are cut off", l->path,
                 (long long)(st.st_size - end));
        if (ftruncate(l->fd, end) != 0)
            return fail(STATUS_UNAVAILABLE, "%s: %s", l->path, strerror(errno));
    }
    if (lseek(l->fd, end, SEEK_SET) < 0)
        return fail(STATUS_UNAVAILABLE, "%s: %s", l->path, strerror(errno));
    l->bytes = end;
    return STATUS_OK;
}

static void free_log(struct rk_request_log *l) {
    rk_producer_close(l->producer);
    if (l->fd >= 0)
        close(l->fd);
    buf_deinit(&l->waiting);
    buf_deinit(&l->writing);
    buf_deinit(&l->packed);
    heap_free(l->path);
    heap_free(l->topic);
    heap_free(l);
}

static enum status open_file(struct rk_request_log *l, const char *path) {
    size_t n = strlen(path);
    l->path = heap_strdup(path);
    l->frames = n > 4 && strcmp(path + n - 4, ".zst") == 0;
    l->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (l->fd < 0)
        return fail(STATUS_UNAVAILABLE, "log.requests: %s: %s", path, strerror(errno));
    return repair(l);
}

static enum status start_thread(struct rk_request_log *l) {
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->wake, &attr);
    pthread_condattr_destroy(&attr);
    return pthread_create(&l->thread, NULL, write_out, l) == 0
               ? STATUS_OK
               : fail(STATUS_RESOURCE_EXHAUSTED, "request log: no thread to be had");
}

/* Of the plan and of all settings as they were given. */
static void make_version(const struct rk_config *c, char out[48]) {
    struct buf text = {0};
    struct json j;
    json_begin(&j, &text);
    if (c->root)
        json_tree(&j, c->root);
    snprintf(out, 48, "%016llx-%016llx", c->plan ? (unsigned long long)c->plan->fingerprint : 0ull,
             (unsigned long long)hash_bytes(buf_slice(&text), 0));
    buf_deinit(&text);
}

static enum status finish(struct rk_request_log *l, enum status status,
                          struct rk_request_log **out) {
    if (status == STATUS_OK)
        status = start_thread(l);
    if (status != STATUS_OK) {
        free_log(l);
        return status;
    }
    *out = l;
    return STATUS_OK;
}

enum status rk_request_log_open(const char *path, struct rk_request_log **out) {
    struct rk_request_log *l = HEAP_NEW(struct rk_request_log);
    l->fd = -1;
    return finish(l, open_file(l, path), out);
}

enum status rk_request_log_start(const struct rk_config *c, struct rk_request_log **out) {
    const struct rk_log_conf *conf = &c->log;
    if (!*conf->requests && !*conf->requests_topic) {
        *out = NULL;
        return STATUS_OK;
    }
    struct rk_request_log *l = HEAP_NEW(struct rk_request_log);
    l->fd = -1;
    l->bytes_max = conf->requests_bytes;
    l->files_max = (int)conf->requests_files;
    l->plan = conf->rows ? c->plan : NULL;
    make_version(c, l->version);
    enum status status = *conf->requests ? open_file(l, conf->requests) : STATUS_OK;
    if (status == STATUS_OK && *conf->requests_topic) {
        l->topic = heap_strdup(conf->requests_topic);
        status = rk_producer_open(&c->kafka, &l->producer);
    }
    return finish(l, status, out);
}

void rk_request_log_close(struct rk_request_log *l) {
    if (!l)
        return;
    pthread_mutex_lock(&l->lock);
    l->closing = true;
    pthread_cond_signal(&l->wake);
    pthread_mutex_unlock(&l->lock);
    pthread_join(l->thread, NULL);
    if (l->producer && (rk_producer_flush(l->producer, LAST_FLUSH_MS) != STATUS_OK || l->unsent))
        log_warn("request log", "topic %s: %llu requests refused; %s", l->topic,
                 (unsigned long long)l->unsent, status_message());
    if (l->left_out)
        log_warn("request log", "%s: %llu requests were left out, it being too slow",
                 l->path ? l->path : l->topic, (unsigned long long)l->left_out);
    pthread_mutex_destroy(&l->lock);
    pthread_cond_destroy(&l->wake);
    free_log(l);
}

/* ---- adding -------------------------------------------------------------------------------- */

static struct rpc_rows rows_of(const struct feat_plan *p, const struct feat_rows *r) {
    if (!p || !r)
        return (struct rpc_rows){0};
    return (struct rpc_rows){.query = r->query,
                             .query_ids = r->query_ids,
                             .cand = r->cand,
                             .cand_ids = r->cand_ids,
                             .n_query = p->query_columns,
                             .n_query_ids = p->query_slots,
                             .n_cand = r->n_rows * p->cand_columns,
                             .n_cand_ids = r->n_rows * p->cand_slots};
}

static void put_seen(struct arena *a, const struct rk_seen *seen, struct rpc_request_log *m) {
    struct rpc_applied *applied = ARENA_ARRAY(a, struct rpc_applied, seen->n_applied);
    int64_t *clock_us = ARENA_ARRAY(a, int64_t, seen->n_applied);
    struct rpc_ahead *ahead = ARENA_ARRAY(a, struct rpc_ahead, seen->n_ahead);
    for (int i = 0; i < seen->n_applied; i++) {
        applied[i] = (struct rpc_applied){seen->applied[i].partition, seen->applied[i].offset};
        clock_us[i] = seen->applied[i].clock_us;
    }
    for (int i = 0; i < seen->n_ahead; i++)
        ahead[i] = (struct rpc_ahead){(int)seen->ahead[i].scope, seen->ahead[i].key,
                                      seen->ahead[i].partition, seen->ahead[i].offset};
    m->applied = applied;
    m->n_applied = seen->n_applied;
    m->clock_us = clock_us;
    m->ahead = ahead;
    m->n_ahead = seen->n_ahead;
    m->without_store = seen->without_store;
}

/* The policy is rk_rank's: the greatest scores first. Another one would say so here. */
static void put_policy(struct arena *a, struct rpc_request_log *m) {
    float *propensities = ARENA_ARRAY(a, float, m->response.n);
    for (int i = 0; i < m->response.n; i++)
        propensities[i] = 1;
    m->policy = slice_of(RPC_POLICY_TOP);
    m->propensities = propensities;
}

void rk_request_log_add(struct rk_request_log *l, struct arena *a, struct buf *scratch,
                        const struct rpc_rank_request *request,
                        const struct rpc_rank_response *response, const struct rk_seen *seen,
                        int64_t served_at_us) {
    struct rpc_request_log m = {.request = *request,
                                .response = *response,
                                .served_at_us = served_at_us,
                                .config_version = slice_of(l->version),
                                .rows = rows_of(l->plan, seen->rows)};
    put_seen(a, seen, &m);
    put_policy(a, &m);
    buf_clear(scratch);
    rpc_encode_request_log(&m, scratch);
    pthread_mutex_lock(&l->lock);
    if (l->waiting.n + scratch->n > WAITING_BYTES_MAX) {
        l->left_out++;
    } else {
        buf_add_u32(&l->waiting, (uint32_t)scratch->n);
        buf_add(&l->waiting, scratch->p, scratch->n);
    }
    pthread_mutex_unlock(&l->lock);
}
