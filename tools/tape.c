/* tape.c: messages kept.
 *
 * Partitions are merged by their clocks (the greatest event time each has shown so far), not by
 * event time itself: a late event must not hold its partition back, and offsets within a partition
 * may only grow. Ties go to the lower partition. */
#include "tools/tape.h"
#include "base/clock.h"
#include "base/heap.h"
#include "base/io.h"
#include "base/progress.h"

enum { POLL_MESSAGES = 4096, POLL_WAIT_US = 200000, PATIENCE_POLLS = 150 };

void tape_deinit(struct tape *t) {
    for (int i = 0; i < t->n_tracks; i++) {
        heap_free(t->tracks[i].messages);
        heap_free(t->tracks[i].clock_us);
    }
    heap_free(t->tracks);
    arena_deinit(&t->bytes);
    arena_deinit(&t->event);
}

static struct tape_track *track_of(struct tape *t, int32_t partition) {
    if (partition >= t->n_tracks) {
        t->tracks = heap_grow(t->tracks, (size_t)(partition + 1) * sizeof *t->tracks);
        memset(t->tracks + t->n_tracks, 0,
               (size_t)(partition + 1 - t->n_tracks) * sizeof *t->tracks);
        t->n_tracks = partition + 1;
    }
    return &t->tracks[partition];
}

/* Keeps a copy, and the time by which it will be merged. */
static void record(struct tape *t, const struct rk_message *m) {
    struct tape_track *k = track_of(t, m->source.partition);
    struct ev_event e;
    if (k->n == k->cap) {
        k->cap = k->cap ? 2 * k->cap : 1024;
        k->messages = heap_grow(k->messages, (size_t)k->cap * sizeof *k->messages);
        k->clock_us = heap_grow(k->clock_us, (size_t)k->cap * sizeof *k->clock_us);
    }
    arena_reset(&t->event);
    int64_t clock_us = k->n ? k->clock_us[k->n - 1] : 0;
    if (ev_decode(&t->event, m->value, &e) == STATUS_OK && e.event_time_us > clock_us)
        clock_us = e.event_time_us;
    struct rk_message *copy = &k->messages[k->n];
    *copy = *m;
    copy->value = arena_dup(&t->bytes, m->value);
    copy->key = arena_dup(&t->bytes, m->key);
    copy->handle = NULL;
    k->clock_us[k->n++] = clock_us;
    t->n++;
}

static enum status record_all(struct tape *t, struct rk_consumer *consumer, const char *topic,
                              struct progress *p) {
    struct rk_message *batch = HEAP_ARRAY(struct rk_message, POLL_MESSAGES);
    enum status status = STATUS_OK;
    bool at_end = false;
    for (int silent = 0; status == STATUS_OK && !at_end;) {
        int n = 0;
        status = rk_consumer_poll(consumer, batch, POLL_MESSAGES, POLL_WAIT_US, &n, &at_end);
        if (status != STATUS_OK)
            break;
        for (int i = 0; i < n; i++)
            record(t, &batch[i]);
        rk_consumer_release(consumer, batch, n);
        progress_at(p, t->n);
        silent = n ? 0 : silent + 1;
        if (!at_end && silent == PATIENCE_POLLS)
            status = fail(STATUS_DEADLINE_EXCEEDED, "topic '%s': no message and no end in %d s",
                          topic, PATIENCE_POLLS * POLL_WAIT_US / 1000000);
    }
    heap_free(batch);
    return status;
}

static struct tape_track *next_track(struct tape *t) {
    struct tape_track *best = NULL;
    for (int i = 0; i < t->n_tracks; i++) {
        struct tape_track *k = &t->tracks[i];
        if (k->next < k->n && (!best || k->clock_us[k->next] < best->clock_us[best->next]))
            best = k;
    }
    return best;
}

enum status tape_step(struct tape *t, struct tape_track *k, const struct stream_handler *h) {
    return stream_hand_over(h, &t->event, &k->messages[k->next++], t->json);
}

enum status tape_play(struct tape *t, const char *what, int quiet, const struct stream_handler *h) {
    struct progress p;
    struct tape_track *k;
    int64_t done = 0;
    progress_start(&p, what, "events", t->n, quiet);
    while ((k = next_track(t))) {
        TRY(tape_step(t, k, h));
        progress_at(&p, ++done);
    }
    progress_end(&p);
    return STATUS_OK;
}

static enum status record_topic(struct tape *t, const struct rk_kafka_conf *kafka,
                                struct progress *p) {
    struct rk_consumer *consumer;
    TRY(rk_consumer_open_all(kafka, &consumer));
    enum status status = record_all(t, consumer, kafka->topic, p);
    rk_consumer_close(consumer);
    return status;
}

static enum status record_lines(struct tape *t, struct io_lines *lines, struct progress *p) {
    int64_t opened_us = clock_wall_us();
    for (;;) {
        struct rk_message m = {0};
        enum status status = io_lines_next(lines, &m.value);
        if (status == STATUS_OUT_OF_RANGE)
            return STATUS_OK;
        if (status ==
            STATUS_RESOURCE_EXHAUSTED) /* too long: kept empty, which is no event either */
            m.value = (struct slice){0};
        else
            TRY(status);
        m.source = (struct ev_source){0, io_lines_number(lines) - 1};
        m.timestamp_us = opened_us;
        record(t, &m);
        progress_at(p, t->n);
    }
}

static enum status record_file(struct tape *t, const char *path, struct progress *p) {
    struct io_lines *lines;
    TRY(io_lines_open(path, EV_BYTES_MAX, &lines));
    enum status status = record_lines(t, lines, p);
    io_lines_close(lines);
    return status;
}

enum status tape_read(const struct stream_source *source, int quiet, struct tape *out) {
    struct tape t = {.json = source->path != NULL};
    struct progress p;
    arena_init(&t.bytes, 1 << 20);
    arena_init(&t.event, 0);
    progress_start(&p, "read", "messages", 0, quiet);
    enum status status =
        source->path ? record_file(&t, source->path, &p) : record_topic(&t, source->kafka, &p);
    if (status != STATUS_OK) {
        tape_deinit(&t);
        return status;
    }
    progress_end(&p);
    *out = t;
    return STATUS_OK;
}
