/* stream.c: recorded events, from a file or a topic. A file is streamed; a topic is
 * taped first, because its order is only known at its end. */
#include "tools/stream.h"
#include <stdio.h>
#include "base/io.h"
#include "base/progress.h"
#include "ranker/ingest.h"
#include "tools/tape.h"

static enum status decode_line(struct arena *a, const struct rk_message *m, struct ev_event *out) {
    TRY(ev_decode_json(a, m->value, out));
    out->source = m->source;
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

static enum status read_lines(struct io_lines *lines, struct arena *a, struct progress *p,
                              const struct stream_handler *h) {
    for (;;) {
        struct rk_message m = {0};
        enum status status = io_lines_next(lines, &m.value);
        if (status == STATUS_OUT_OF_RANGE)
            return STATUS_OK;
        int64_t number = io_lines_number(lines);
        m.source = (struct ev_source){0, number - 1};
        if (status == STATUS_RESOURCE_EXHAUSTED) /* too long; the rest can be read */
            TRY(h->bad(h->context, status_message(), &m));
        else if (status != STATUS_OK)
            return status;
        else
            TRY(stream_hand_over(h, a, &m, true));
        progress_at(p, number);
    }
}

static enum status read_file(const char *path, const char *what, int quiet,
                             const struct stream_handler *h) {
    struct io_lines *lines;
    struct arena a;
    struct progress p;
    TRY(io_lines_open(path, EV_BYTES_MAX, &lines));
    arena_init(&a, 0);
    progress_start(&p, what, "events", 0, quiet);
    enum status status = read_lines(lines, &a, &p, h);
    if (status == STATUS_OK)
        progress_end(&p);
    arena_deinit(&a);
    io_lines_close(lines);
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
