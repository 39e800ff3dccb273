/* stream.c: recorded events, from a file or a topic. A file is streamed: one thread reads and
 * decodes a few blocks ahead of the caller, so that what is done with an event costs no time of
 * decoding. A topic is taped first, because its order is only known at its end. */
#include "tools/stream.h"
#include <pthread.h>
#include <stdio.h>
#include "base/clock.h"
#include "base/heap.h"
#include "base/io.h"
#include "base/progress.h"
#include "base/queue.h"
#include "ranker/ingest.h"
#include "tools/tape.h"

static enum status decode_line(struct arena *a, const struct rk_message *m, struct ev_event *out) {
    TRY(ev_decode_json(a, m->value, out));
    out->source = m->source;
    if (out->arrival_time_us == 0)
        out->arrival_time_us = m->timestamp_us;
    return STATUS_OK;
}

enum status stream_hand_over(const struct stream_handler *h, struct arena *a,
                             const struct rk_message *m, bool json) {
    struct ev_event e;
    char reason[400]; /* whoever takes it may fail, too */
    arena_reset(a);
    if ((json ? decode_line(a, m, &e) : rk_ingest_decode(a, m, &e)) == STATUS_OK)
        return h->event(h->context, &e, m);
    snprintf(reason, sizeof reason, "%s", status_message());
    return h->bad(h->context, reason, m);
}

/* ---- a file: decoded by one thread, taken by the caller's -------------------------------------
 */

enum { BLOCK_LINES = STREAM_RUN_MAX, BLOCK_BYTES = 4 << 20, BLOCKS = 3 };

/* Lines on their way from the thread that decodes to the one that takes them. */
struct block {
    struct arena a;
    struct ev_event events[BLOCK_LINES];
    struct rk_message messages[BLOCK_LINES];
    const char *bad[BLOCK_LINES]; /* why a line is no event; NULL: it is one */
    int n;
    enum status end; /* OK: more blocks follow */
    const char *why; /* with an end that is a failure */
};

struct decoder {
    struct io_lines *lines;
    struct queue *empty, *full;
    struct block *blocks; /* [BLOCKS] */
    int64_t opened_us;
    pthread_t thread;
};

static void decode_next(const struct decoder *d, struct block *b, enum status status,
                        struct slice line) {
    struct rk_message *m = &b->messages[b->n];
    *m = (struct rk_message){.source = {0, io_lines_number(d->lines) - 1},
                             .timestamp_us = d->opened_us};
    b->bad[b->n] = NULL;
    if (status == STATUS_OK) { /* else it was too long; the rest can be read */
        m->value = arena_dup(&b->a, line);
        status = decode_line(&b->a, m, &b->events[b->n]);
    }
    if (status != STATUS_OK)
        b->bad[b->n] = arena_strdup(&b->a, slice_of(status_message()));
    b->n++;
}

static void fill(const struct decoder *d, struct block *b) {
    size_t bytes = 0;
    arena_reset(&b->a);
    b->n = 0;
    b->end = STATUS_OK;
    while (b->n < BLOCK_LINES && bytes < BLOCK_BYTES) {
        struct slice line = {NULL, 0};
        enum status status = io_lines_next(d->lines, &line);
        if (status != STATUS_OK && status != STATUS_RESOURCE_EXHAUSTED) {
            b->end = status;
            b->why = arena_strdup(&b->a, slice_of(status_message()));
            return;
        }
        decode_next(d, b, status, line);
        bytes += line.n;
    }
}

static void *decode_all(void *context) {
    struct decoder *d = context;
    struct block *b;
    while ((b = queue_pop(d->empty, -1)) != NULL) {
        fill(d, b);
        if (!queue_push(d->full, b) || b->end != STATUS_OK)
            break;
    }
    return NULL;
}

/* Good lines in runs, wrong ones one by one, in their order. */
static enum status take_block(const struct block *b, const struct stream_handler *h) {
    for (int i = 0, n; i < b->n; i += n) {
        n = 1;
        if (b->bad[i]) {
            TRY(h->bad(h->context, b->bad[i], &b->messages[i]));
        } else if (!h->events) {
            TRY(h->event(h->context, &b->events[i], &b->messages[i]));
        } else {
            while (i + n < b->n && !b->bad[i + n])
                n++;
            TRY(h->events(h->context, &b->events[i], n));
        }
    }
    return STATUS_OK;
}

static enum status take_all(struct decoder *d, struct progress *p, const struct stream_handler *h) {
    int64_t taken = 0;
    for (;;) {
        struct block *b = queue_pop(d->full, -1);
        enum status end = b->end;
        TRY(take_block(b, h));
        progress_at(p, taken += b->n);
        if (end != STATUS_OK)
            return end == STATUS_OUT_OF_RANGE ? STATUS_OK : fail(end, "%s", b->why);
        queue_push(d->empty, b);
    }
}

static enum status decode_and_take(struct decoder *d, struct progress *p,
                                   const struct stream_handler *h) {
    for (int i = 0; i < BLOCKS; i++) {
        arena_init(&d->blocks[i].a, 0);
        queue_push(d->empty, &d->blocks[i]);
    }
    if (pthread_create(&d->thread, NULL, decode_all, d) != 0)
        return fail(STATUS_RESOURCE_EXHAUSTED, "no thread to decode with");
    enum status status = take_all(d, p, h);
    queue_close(d->empty);
    queue_close(d->full);
    pthread_join(d->thread, NULL);
    return status;
}

static enum status read_file(const char *path, const char *what, int quiet,
                             const struct stream_handler *h) {
    struct decoder d = {.opened_us = clock_wall_us()};
    struct progress p;
    TRY(io_lines_open(path, EV_BYTES_MAX, &d.lines));
    d.blocks = HEAP_ARRAY(struct block, BLOCKS);
    d.empty = queue_new(BLOCKS);
    d.full = queue_new(BLOCKS);
    progress_start(&p, what, "events", 0, quiet);
    enum status status = decode_and_take(&d, &p, h);
    if (status == STATUS_OK)
        progress_end(&p);
    for (int i = 0; i < BLOCKS; i++)
        arena_deinit(&d.blocks[i].a);
    heap_free(d.blocks);
    queue_free(d.empty);
    queue_free(d.full);
    io_lines_close(d.lines);
    return status;
}

enum status stream_read(const struct stream_source *source, const char *what, int quiet,
                        const struct stream_handler *handler) {
    if (source->path)
        return read_file(source->path, what, quiet, handler);
    struct tape t;
    TRY(tape_read(source, quiet, &t));
    enum status status = tape_play(&t, what, quiet, handler);
    tape_deinit(&t);
    return status;
}
