/* request_log.c: a buffer filled under a lock, and a thread that takes it away and writes it out
 * without the lock. Deliberately no rotation (move the file and restart) and no compression. */
#include "ranker/request_log.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/heap.h"
#include "base/io.h"
#include "base/log.h"

enum { WAITING_BYTES_MAX = 64 << 20, RECORD_BYTES_MAX = 64 << 20, FLUSH_MS = 1000 };

struct rk_request_log {
    char *path;
    int fd;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct buf waiting; /* under the lock */
    struct buf writing; /* the thread's */
    uint64_t left_out;
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
        if (!l->broken && !write_all(l->fd, buf_slice(&l->writing))) {
            log_error("request log", "%s: %s; requests are no longer logged", l->path,
                      strerror(errno));
            l->broken = true;
        }
        pthread_mutex_lock(&l->lock);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

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

static enum status repair(struct rk_request_log *l) {
    struct stat st;
    int64_t end = 0;
    if (fstat(l->fd, &st) != 0)
        return fail(STATUS_UNAVAILABLE, "%s: %s", l->path, strerror(errno));
    TRY(fail_in(find_end(l->fd, st.st_size, &end), "%s", l->path));
    if (end < st.st_size) {
        log_warn("request log", "%s: %lld bytes after the last whole message are cut off", l->path,
                 (long long)(st.st_size - end));
        if (ftruncate(l->fd, end) != 0)
            return fail(STATUS_UNAVAILABLE, "%s: %s", l->path, strerror(errno));
    }
    if (lseek(l->fd, end, SEEK_SET) < 0)
        return fail(STATUS_UNAVAILABLE, "%s: %s", l->path, strerror(errno));
    return STATUS_OK;
}

static void free_log(struct rk_request_log *l) {
    if (l->fd >= 0)
        close(l->fd);
    buf_deinit(&l->waiting);
    buf_deinit(&l->writing);
    heap_free(l->path);
    heap_free(l);
}

enum status rk_request_log_open(const char *path, struct rk_request_log **out) {
    struct rk_request_log *l = HEAP_NEW(struct rk_request_log);
    l->path = heap_strdup(path);
    l->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    enum status status =
        l->fd >= 0 ? repair(l)
                   : fail(STATUS_UNAVAILABLE, "log.requests: %s: %s", path, strerror(errno));
    if (status != STATUS_OK) {
        free_log(l);
        return status;
    }
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->wake, &attr);
    pthread_condattr_destroy(&attr);
    if (pthread_create(&l->thread, NULL, write_out, l) != 0) {
        free_log(l);
        return fail(STATUS_RESOURCE_EXHAUSTED, "request log: no thread to be had");
    }
    *out = l;
    return STATUS_OK;
}

void rk_request_log_close(struct rk_request_log *l) {
    if (!l)
        return;
    pthread_mutex_lock(&l->lock);
    l->closing = true;
    pthread_cond_signal(&l->wake);
    pthread_mutex_unlock(&l->lock);
    pthread_join(l->thread, NULL);
    if (l->left_out)
        log_warn("request log", "%s: %llu requests were left out, the disk being too slow", l->path,
                 (unsigned long long)l->left_out);
    pthread_mutex_destroy(&l->lock);
    pthread_cond_destroy(&l->wake);
    free_log(l);
}

void rk_request_log_add(struct rk_request_log *l, struct arena *a, struct buf *scratch,
                        const struct rpc_rank_request *request,
                        const struct rpc_rank_response *response, const struct rk_seen *seen,
                        int64_t served_at_us) {
    struct rpc_applied *applied = ARENA_ARRAY(a, struct rpc_applied, seen->n_applied);
    for (int i = 0; i < seen->n_applied; i++)
        applied[i] = (struct rpc_applied){seen->applied[i].partition, seen->applied[i].offset};
    const struct rpc_request_log m = {.request = *request,
                                      .response = *response,
                                      .applied = applied,
                                      .n_applied = seen->n_applied,
                                      .served_at_us = served_at_us};
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

/* ---- reading ------------------------------------------------------------------------------- */

struct rk_request_log_reader {
    char *path;
    struct buf bytes;
    size_t at;
};

enum status rk_request_log_read_open(const char *path, struct rk_request_log_reader **out) {
    struct rk_request_log_reader *r = HEAP_NEW(struct rk_request_log_reader);
    r->path = heap_strdup(path);
    enum status status = io_read_file(path, (size_t)1 << 40, &r->bytes);
    if (status != STATUS_OK) {
        rk_request_log_read_close(r);
        return status;
    }
    *out = r;
    return STATUS_OK;
}

void rk_request_log_read_close(struct rk_request_log_reader *r) {
    if (!r)
        return;
    buf_deinit(&r->bytes);
    heap_free(r->path);
    heap_free(r);
}

enum status rk_request_log_next(struct rk_request_log_reader *r, struct arena *a,
                                struct rpc_request_log *out) {
    if (r->at == r->bytes.n)
        return fail(STATUS_OUT_OF_RANGE, "%s: no more requests", r->path);
    struct cursor c = cursor_of(r->bytes.p + r->at, r->bytes.n - r->at);
    uint32_t length = cursor_u32(&c);
    if (c.bad || length > (uint64_t)(c.end - c.p))
        return fail(STATUS_DATA_LOSS, "%s: cut short at byte %zu", r->path, r->at);
    struct slice message = cursor_bytes(&c, length);
    TRY(fail_in(rpc_decode_request_log(a, message, out), "%s: message at byte %zu", r->path,
                r->at));
    r->at = r->bytes.n - (size_t)(c.end - c.p);
    return STATUS_OK;
}
