/* request_log_read.c: served requests back from files and topics. All of it is held in memory:
 * replay puts it into another order anyway. */
#include <stdio.h>
#include "base/heap.h"
#include "base/io.h"
#include "base/io_frames.h"
#include "ranker/request_log.h"

enum {
    FILES_MAX = 1000,
    POLL_MESSAGES = 1024,
    POLL_WAIT_US = 200 * 1000,
    PATIENCE_POLLS = 150,
    PATH_BYTES = 4096
};

struct rk_request_log_reader {
    char *path;
    struct buf bytes;
    size_t at;
};

/* ---- files --------------------------------------------------------------------------------- */

/* Frames up to a damaged one; a length of nonsense after them makes `next` say so. */
static void unpack(struct buf *bytes) {
    struct buf out = {0};
    struct slice rest = buf_slice(bytes);
    enum status status;
    while ((status = io_frame_unpack(&rest, &out)) == STATUS_OK)
        ;
    if (status == STATUS_DATA_LOSS)
        buf_add_u32(&out, UINT32_MAX);
    buf_deinit(bytes);
    *bytes = out;
}

static enum status read_one(struct rk_request_log_reader *r, const char *path) {
    struct buf one = {0};
    enum status status = io_read_file(path, (size_t)1 << 40, &one);
    if (status == STATUS_OK && io_is_frame(buf_slice(&one)))
        unpack(&one);
    if (status == STATUS_OK)
        buf_add(&r->bytes, one.p, one.n);
    buf_deinit(&one);
    return status;
}

static enum status read_files(struct rk_request_log_reader *r, const char *path) {
    char name[PATH_BYTES];
    int n = 0;
    while (n < FILES_MAX && snprintf(name, sizeof name, "%s.%d", path, n + 1) < PATH_BYTES &&
           io_exists(name))
        n++;
    for (; n > 0; n--) {
        snprintf(name, sizeof name, "%s.%d", path, n);
        TRY(read_one(r, name));
    }
    return read_one(r, path);
}

static struct rk_request_log_reader *reader_new(const char *path) {
    struct rk_request_log_reader *r = HEAP_NEW(struct rk_request_log_reader);
    r->path = heap_strdup(path);
    return r;
}

enum status rk_request_log_read_open(const char *path, struct rk_request_log_reader **out) {
    struct rk_request_log_reader *r = reader_new(path);
    enum status status = read_files(r, path);
    if (status != STATUS_OK) {
        rk_request_log_read_close(r);
        return status;
    }
    *out = r;
    return STATUS_OK;
}

/* ---- topics -------------------------------------------------------------------------------- */

static enum status read_all(struct rk_request_log_reader *r, struct rk_consumer *consumer) {
    struct rk_message *batch = HEAP_ARRAY(struct rk_message, POLL_MESSAGES);
    enum status status = STATUS_OK;
    bool at_end = false;
    for (int silent = 0; status == STATUS_OK && !at_end;) {
        int n = 0;
        status = rk_consumer_poll(consumer, batch, POLL_MESSAGES, POLL_WAIT_US, &n, &at_end);
        if (status != STATUS_OK)
            break;
        for (int i = 0; i < n; i++) {
            buf_add_u32(&r->bytes, (uint32_t)batch[i].value.n);
            buf_add(&r->bytes, batch[i].value.p, batch[i].value.n);
        }
        rk_consumer_release(consumer, batch, n);
        silent = n > 0 ? 0 : silent + 1;
        if (!at_end && silent == PATIENCE_POLLS)
            status = fail(STATUS_DEADLINE_EXCEEDED, "topic '%s': no message and no end in %d s",
                          r->path, PATIENCE_POLLS * POLL_WAIT_US / 1000000);
    }
    heap_free(batch);
    return status;
}

enum status rk_request_log_read_topic(const struct rk_kafka_conf *kafka, const char *topic,
                                      struct rk_request_log_reader **out) {
    struct rk_kafka_conf conf = *kafka;
    struct rk_consumer *consumer;
    conf.topic = topic;
    TRY(rk_consumer_open_all(&conf, &consumer));
    struct rk_request_log_reader *r = reader_new(topic);
    enum status status = read_all(r, consumer);
    rk_consumer_close(consumer);
    if (status != STATUS_OK) {
        rk_request_log_read_close(r);
        return status;
    }
    *out = r;
    return STATUS_OK;
}

/* ---- messages ------------------------------------------------------------------------------ */

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
