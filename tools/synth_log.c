/* synth_log.c: events on their way to the log.
 *
 * They wait in a heap and leave it in the order they reach the log, so visits interleave as in a
 * real stream. What is held back keeps its event time and leaves later. Malformed messages are
 * spread evenly, their number exact. The heap is bounded: were it full, its first event would
 * leave early. */
#include <math.h>
#include <stdio.h>
#include "base/heap.h"
#include "tools/synth_parts.h"

static void count(struct synth *s, const struct waiting *w) {
    struct synth_result *r = &s->result;
    switch (w->kind) {
    case EV_ITEM:
        r->items++;
        break;
    case EV_USER:
        r->users++;
        break;
    case EV_RANKING:
        r->rankings++;
        break;
    case EV_INTERACTION:
        *(w->type == 'c'   ? &r->clicks
          : w->type == 'l' ? &r->likes
          : w->type == 'o' ? &r->orders
                           : &r->ratings) += 1;
        break;
    }
    r->late += w->leaves_us > w->event_time_us;
    if (!r->first_us || w->event_time_us < r->first_us)
        r->first_us = w->event_time_us;
    if (w->event_time_us > r->last_us)
        r->last_us = w->event_time_us;
}

/* The bad line number n, near the good event `bytes`. */
static void malform(struct synth *s, int64_t n, struct slice bytes) {
    char id[32];
    snprintf(id, sizeof id, "bad%lld", (long long)n);
    struct slice x = SLICE_LIT("x"), name = slice_of(id);
    struct ev_event wrong[] = {
        {.kind = EV_ITEM, .id = name, .event_time_us = 0, .item = x},
        {.kind = EV_INTERACTION, .id = name, .event_time_us = 1, .user = x, .type = x},
        {.kind = EV_RANKING, .id = name, .event_time_us = 1, .user = x},
        {.kind = EV_USER, .event_time_us = 1, .user = x},
    };
    enum { N_WRONG = sizeof wrong / sizeof *wrong };
    buf_clear(&s->buf);
    switch (n % (N_WRONG + 3)) {
    case N_WRONG:
        buf_printf(&s->buf, "no event at all, line %lld", (long long)n);
        return;
    case N_WRONG + 1:
        buf_printf(&s->buf, "{\"id\":\"%s\"}", id);
        return;
    case N_WRONG + 2: /* cut off in the middle of a string or a length */
        buf_add(&s->buf, bytes.p, s->conf.protobuf ? bytes.n - 1 : bytes.n / 2);
        return;
    default:
        if (s->conf.protobuf)
            ev_encode_proto(&wrong[n % (N_WRONG + 3)], &s->buf);
        else
            ev_encode_json(&wrong[n % (N_WRONG + 3)], &s->buf);
    }
}

static enum status leave(struct synth *s, const struct waiting *w) {
    struct synth_message m = {.key = {w->memory, w->key_n},
                              .bytes = {w->memory + w->key_n, w->bytes_n}};
    int64_t due = (int64_t)floor((double)(s->n_out + 1) * s->conf.malformed + 1e-9);
    while (s->result.malformed < due) {
        malform(s, s->result.malformed++, m.bytes);
        TRY(s->sink->message(s->sink->context, &(struct synth_message){.bytes = buf_slice(&s->buf),
                                                                       .malformed = true}));
    }
    count(s, w);
    s->n_out++;
    progress_at(&s->progress, s->n_out);
    return s->sink->message(s->sink->context, &m);
}

/* ---- the heap ---------------------------------------------------------------------------------
 */

static bool before(const struct waiting *a, const struct waiting *b) {
    return a->leaves_us != b->leaves_us ? a->leaves_us < b->leaves_us : a->number < b->number;
}

static void sift_up(struct waiting *h, int i) {
    for (; i && before(&h[i], &h[(i - 1) / 2]); i = (i - 1) / 2) {
        struct waiting w = h[i];
        h[i] = h[(i - 1) / 2];
        h[(i - 1) / 2] = w;
    }
}

static void sift_down(struct waiting *h, int n) {
    for (int i = 0, k; (k = 2 * i + 1) < n; i = k) {
        if (k + 1 < n && before(&h[k + 1], &h[k]))
            k++;
        if (!before(&h[k], &h[i]))
            return;
        struct waiting w = h[i];
        h[i] = h[k];
        h[k] = w;
    }
}

static enum status pop(struct synth *s) {
    struct waiting first = s->heap[0];
    s->heap[0] = s->heap[--s->n_heap];
    sift_down(s->heap, s->n_heap);
    enum status status = s->n_out < s->conf.events ? leave(s, &first) : STATUS_OK;
    heap_free(first.memory);
    return status;
}

/* Takes an event; what the log does to it is drawn here. */
enum status synth_push(struct synth *s, const struct ev_event *e, bool may_be_late) {
    if (s->n_heap == WAITING_MAX)
        TRY(pop(s));
    buf_clear(&s->buf);
    struct slice key = ev_key(e);
    buf_add(&s->buf, key.p, key.n);
    if (s->conf.protobuf)
        ev_encode_proto(e, &s->buf);
    else
        ev_encode_json(e, &s->buf);
    struct waiting w = {.leaves_us = e->event_time_us,
                        .event_time_us = e->event_time_us,
                        .number = s->n_made++,
                        .kind = e->kind,
                        .type = e->type.n ? e->type.p[0] : 0,
                        .key_n = key.n,
                        .bytes_n = s->buf.n - key.n};
    if (may_be_late && rng_double(&s->rng) < s->conf.late)
        w.leaves_us += 1 + (int64_t)(rng_double(&s->rng) * (double)s->conf.late_by_us);
    w.memory = heap_alloc(s->buf.n);
    memcpy(w.memory, s->buf.p, s->buf.n);
    s->heap[s->n_heap++] = w;
    sift_up(s->heap, s->n_heap - 1);
    return STATUS_OK;
}

enum status synth_release(struct synth *s, int64_t now_us) {
    while (s->n_heap && s->heap[0].leaves_us <= now_us)
        TRY(pop(s));
    return STATUS_OK;
}
