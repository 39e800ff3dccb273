/* cmd_send.c: events from a file of JSON lines into Kafka, keyed by user (item events: by item), so
 * that what belongs together stays in order. Lines go as they are, wrong ones too: what reads the
 * topic has to deal with them, and this is how that is tried. */
#include <stdio.h>
#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "base/progress.h"
#include "proto/ev.h"
#include "ranker/config.h"
#include "ranker/kafka.h"
#include "tools/options.h"
#include "tools/report.h"
#include "tools/verbs.h"

struct options {
    struct option_config config;
    const char *file, *topic;
    double rate;
    bool strict;
};
static const struct conf_item items[] = {
    OPTION_CONFIG_OR(struct options, config, ""),
    OPTION_TEXT(struct options, file, "file", "-", "FILE",
                "JSON lines, plain or compressed (gz, zst, xz); - is stdin"),
    OPTION_TEXT(struct options, topic, "topic", "", "TOPIC",
                "instead of the settings' kafka.topic"),
    CONF_FLOAT(struct options, rate, "rate", "0", 0, 1e9, "N",
               "events per second; 0: as fast as it goes"),
    CONF_BOOL(struct options, strict, "strict", "false",
              "stops at the first wrong line instead of sending it"),
    CONF_END};

struct sending {
    const struct options *o;
    const char *topic;
    struct rk_producer *producer;
    struct io_lines *lines;
    struct arena arena; /* of one event */
    int64_t sent, wrong, too_long, bytes;
};

/* No broker would take it, and no reader would. */
static enum status leave_out(struct sending *s, enum status status) {
    if (status != STATUS_RESOURCE_EXHAUSTED || s->o->strict)
        return status;
    log_warn("send", "%s: left out", status_message());
    s->too_long++;
    return STATUS_OK;
}

static enum status send_line(struct sending *s, struct slice line) {
    struct ev_event e;
    struct slice key = {0};
    arena_reset(&s->arena);
    enum status status = ev_decode(&s->arena, line, &e);
    if (status == STATUS_OK) {
        key = ev_key(&e);
    } else {
        if (s->o->strict)
            return fail_in(status, "%s:%lld", s->o->file, (long long)io_lines_number(s->lines));
        s->wrong++;
    }
    TRY(rk_producer_send(s->producer, s->topic, key, line));
    s->sent++;
    s->bytes += (int64_t)line.n;
    return STATUS_OK;
}

/* Waits until the next event is due. Sleeps in whole milliseconds; the mean rate is exact. */
static void pace(const struct sending *s, int64_t start_us) {
    if (s->o->rate <= 0)
        return;
    int64_t due_us = start_us + (int64_t)((double)s->sent * 1e6 / s->o->rate);
    int64_t ahead_ms = (due_us - clock_mono_us()) / 1000;
    if (ahead_ms > 0)
        clock_sleep_ms((int)(ahead_ms < 1000 ? ahead_ms : 1000));
}

static enum status send_all(struct sending *s, int quiet, double *seconds) {
    struct progress p;
    struct slice line;
    int64_t start_us = clock_mono_us();
    progress_start(&p, "send", "events", 0, quiet);
    for (;;) {
        enum status status = io_lines_next(s->lines, &line);
        if (status == STATUS_OUT_OF_RANGE)
            break;
        TRY(status == STATUS_OK ? send_line(s, line) : leave_out(s, status));
        progress_at(&p, s->sent);
        pace(s, start_us);
    }
    TRY(rk_producer_flush(s->producer, 60000));
    progress_end(&p);
    *seconds = (double)(clock_mono_us() - start_us) * 1e-6;
    return STATUS_OK;
}

static enum status print_result(const struct sending *s, bool json, double seconds) {
    struct report r;
    report_begin(&r, json);
    report_cstr(&r, "topic", s->topic);
    report_int(&r, "sent", s->sent);
    report_int(&r, "wrong", s->wrong);
    report_int(&r, "too_long", s->too_long);
    report_int(&r, "bytes", s->bytes);
    report_num(&r, "seconds", seconds, 2);
    report_num(&r, "events_per_s", (double)s->sent / seconds, 0);
    return report_end(&r, stdout);
}

static enum status send_to(const struct verb_call *call, struct sending *s, struct rk_config *c) {
    double seconds;
    s->topic = *s->o->topic ? s->o->topic : c->kafka.topic;
    TRY(io_lines_open(s->o->file, EV_BYTES_MAX, &s->lines));
    TRY(rk_producer_open(&c->kafka, &s->producer));
    TRY(send_all(s, call->quiet, &seconds));
    return print_result(s, call->json, seconds);
}

static enum status run(const struct verb_call *call, void *options) {
    struct sending s = {.o = options};
    struct rk_config *c;
    TRY(option_config_load(&s.o->config, &c));
    arena_init(&s.arena, 0);
    enum status status = send_to(call, &s, c);
    rk_producer_close(s.producer);
    io_lines_close(s.lines);
    arena_deinit(&s.arena);
    rk_config_free(c);
    return status;
}

static const struct verb verb = {
    .name = "send",
    .about =
        "Puts the events of a file into Kafka, keyed by user, else by session, else by the ranking they "
        "are or name (item events by item). Lines that are "
        "no valid events are sent all the same and counted: the reader of the topic dead-letters "
        "them. Those longer than an event can be (1 MiB) are left out and counted.",
    .example = "moerank send --config moerank.yaml --file events.jsonl.zst --rate 5000",
    .items = items,
    .bytes = sizeof(struct options),
    .run = run,
};

enum status cmd_send(int argc, char **argv) { return verb_main(&verb, argc, argv); }
