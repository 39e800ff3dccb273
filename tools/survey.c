/* survey.c: one pass over a stream. Ids are remembered as hashes, so memory grows with distinct
 * items and rankings (9 bytes and slack each), not with their length. */
#include "tools/survey.h"
#include <math.h>
#include <stdio.h>
#include "base/clock.h"
#include "base/hash.h"
#include "base/heap.h"

void survey_init(struct survey *s, const struct feat_plan *plan, int64_t sample) {
    *s = (struct survey){.plan = plan, .sample = sample, .opened_us = clock_wall_us()};
    arena_init(&s->arena, 0);
    if (plan) {
        s->state = feat_state_new(plan);
        s->missing = HEAP_ARRAY(int64_t, plan->n_features + 1);
    }
}

void survey_costs(struct survey *s) {
    if (!s->plan)
        return;
    s->ns = HEAP_ARRAY(int64_t, s->plan->n_features + 1);
    feat_state_watch(s->state, clock_thread_ns, s->ns);
}

void survey_deinit(struct survey *s) {
    heap_free(s->ns);
    tally_deinit(&s->reasons);
    tally_deinit(&s->kinds);
    tally_deinit(&s->fields);
    map_deinit(&s->items);
    map_deinit(&s->rankings);
    map_deinit(&s->shown);
    feat_state_free(s->state);
    heap_free(s->missing);
    arena_deinit(&s->arena);
}

/* ---- wrong lines ------------------------------------------------------------------------------
 */

/* A message without what differs from line to line: numbers become N, quoted words '*'. */
static struct slice without_details(const char *message, char *out, size_t bytes) {
    size_t n = 0;
    while (*message && n + 4 < bytes) {
        bool in_word = n && ((out[n - 1] | 32) >= 'a' && (out[n - 1] | 32) <= 'z');
        size_t digits = in_word ? 0 : strspn(message, "0123456789");
        const char *quote = *message == '\'' ? strchr(message + 1, '\'') : NULL;
        if (digits) {
            out[n++] = 'N';
            message += digits;
        } else if (quote) {
            memcpy(out + n, "'*'", 3);
            n += 3;
            message = quote + 1;
        } else {
            out[n++] = *message++;
        }
    }
    return (struct slice){out, n};
}

void survey_bad(struct survey *s, const char *reason, int64_t number) {
    char text[200];
    tally_add(&s->reasons, without_details(reason, text, sizeof text), number);
    s->lines++;
    if (!s->bad++) {
        s->first_bad_line = number;
        snprintf(s->first_bad, sizeof s->first_bad, "%s", reason);
    }
}

/* ---- what is in it ----------------------------------------------------------------------------
 */

static void count_fields(struct survey *s, const char *of, const struct ev_field *fields, int n,
                         int64_t number) {
    for (int i = 0; i < n; i++) {
        char *word = arena_printf(&s->arena, "%s.%.*s", of, SLICE_ARG(fields[i].name));
        tally_add(&s->fields, slice_of(word), number);
    }
}

static void count_kind(struct survey *s, const struct ev_event *e, int64_t number) {
    const char *kind = ev_kind_word(e->kind);
    char *word =
        arena_printf(&s->arena, "%s%s%.*s", kind, e->type.n ? " " : "", SLICE_ARG(e->type));
    tally_add(&s->kinds, slice_of(word), number);
    count_fields(s, kind, e->fields, e->n_fields, number);
    for (int i = 0; i < e->n_shown; i++)
        count_fields(s, "shown", e->shown[i].fields, e->shown[i].n_fields, number);
}

/* What no plan could apply; its time says nothing of the stream's. */
static bool is_too_far_ahead(struct survey *s, const struct ev_event *e) {
    static const struct feat_plan usual = {.ahead_us = 86400 * INT64_C(1000000)};
    bool is = feat_state_is_ahead(s->plan ? s->plan : &usual, e);
    s->too_far_ahead += is;
    return is;
}

static void look_at_time(struct survey *s, const struct ev_event *e) {
    int64_t behind_us = s->last_us - e->event_time_us;
    if (!s->first_us || e->event_time_us < s->first_us)
        s->first_us = e->event_time_us;
    if (behind_us <= 0) {
        s->last_us = e->event_time_us;
        return;
    }
    s->out_of_order++;
    s->too_late += s->plan && behind_us > s->plan->lateness_us;
    s->behind_max_us = behind_us > s->behind_max_us ? behind_us : s->behind_max_us;
}

static void join(struct survey *s, const struct ev_event *e) {
    uint64_t seen, item = hash_bytes(e->item, 0), ranking = hash_bytes(e->id, 1);
    if (e->kind == EV_ITEM)
        map_put(&s->items, item, 1);
    if (e->kind == EV_RANKING) {
        map_put(&s->rankings, ranking, hash_bytes(ev_key(e), 0));
        for (int i = 0; i < e->n_shown; i++)
            map_put(&s->shown, hash_mix(ranking, hash_bytes(e->shown[i].item, 0)), 1);
    }
    if (e->kind != EV_INTERACTION)
        return;
    ranking = hash_bytes(e->ranking, 1);
    s->interactions++;
    s->on_unseen_items += !map_get(&s->items, item, &seen);
    s->with_ranking += e->ranking.n > 0;
    s->of_nobody += !e->ranking.n && !e->user.n && !e->session.n;
    bool found = e->ranking.n && map_get(&s->rankings, ranking, &seen);
    s->joined += found;
    s->same_key += found && seen == hash_bytes(ev_key(e), 0);
    s->joined_item += e->ranking.n && map_get(&s->shown, hash_mix(ranking, item), &seen);
}

/* ---- the plan's rows --------------------------------------------------------------------------
 */

static bool any_number(const float *v, int n) {
    for (int i = 0; i < n; i++)
        if (!isnan(v[i]))
            return true;
    return false;
}

static bool any_id(const uint32_t *v, int n) {
    for (int i = 0; i < n; i++)
        if (v[i])
            return true;
    return false;
}

static void count_missing(struct survey *s, const struct feat_rows *rows) {
    const struct feat_plan *p = s->plan;
    s->n_query++;
    s->n_rows += rows->n_rows;
    for (int k = 0; k < p->n_features; k++) {
        const struct feat *f = p->features[k];
        bool query = f->side == FEAT_USER || f->side == FEAT_CONTEXT;
        for (int r = 0; r < (query ? 1 : rows->n_rows); r++) {
            const float *dense =
                query ? rows->query : rows->cand + (size_t)r * (size_t)p->cand_columns;
            const uint32_t *ids =
                query ? rows->query_ids : rows->cand_ids + (size_t)r * (size_t)p->cand_slots;
            bool there = (f->n_columns && any_number(dense + f->column, f->n_columns)) ||
                         (f->n_slots && any_id(ids + f->slot, f->n_slots));
            s->missing[k] += !there;
        }
    }
}

/* Per-candidate numbers of a ranking event, as a request has them. */
static void shown_columns(struct survey *s, const struct ev_event *e, struct feat_request *q) {
    const struct ev_shown *first = &e->shown[0];
    struct slice *names = ARENA_ARRAY(&s->arena, struct slice, first->n_fields);
    const float **values = ARENA_ARRAY(&s->arena, const float *, first->n_fields);
    for (int c = 0; c < first->n_fields; c++) {
        float *column = ARENA_ARRAY(&s->arena, float, e->n_shown);
        const char *name = arena_strdup(&s->arena, first->fields[c].name);
        names[c] = first->fields[c].name;
        for (int i = 0; i < e->n_shown; i++) {
            double v = NAN;
            const struct ev_value *value =
                ev_field_get(e->shown[i].fields, e->shown[i].n_fields, name);
            if (value)
                ev_value_number(value, &v);
            column[i] = (float)v;
        }
        values[c] = column;
    }
    q->column_names = names;
    q->column_values = values;
    q->n_columns = first->n_fields;
}

static void make_rows(struct survey *s, const struct ev_event *e) {
    bool ranking = e->kind == EV_RANKING, alone = e->kind == EV_INTERACTION && !e->ranking.n;
    if (!(ranking || alone) || s->n_moments++ % s->sample != 0)
        return;
    int n = ranking ? e->n_shown : 1;
    struct slice *items = ARENA_ARRAY(&s->arena, struct slice, n);
    for (int i = 0; i < n; i++)
        items[i] = ranking ? e->shown[i].item : e->item;
    struct feat_request q = {.tenant = e->tenant,
                             .user = e->user,
                             .session = e->session,
                             .context = ranking ? e->fields : NULL,
                             .n_context = ranking ? e->n_fields : 0,
                             .items = items,
                             .n_items = n};
    if (ranking)
        shown_columns(s, e, &q);
    struct feat_rows rows;
    feat_state_read_begin(s->state);
    feat_state_extract(s->state, &s->arena, &q, e->event_time_us, &rows);
    feat_state_read_end(s->state);
    count_missing(s, &rows);
}

void survey_line(struct survey *s, struct slice line, int64_t number) {
    struct ev_event e;
    arena_reset(&s->arena);
    if (ev_decode_json(&s->arena, line, &e) != STATUS_OK) {
        survey_bad(s, status_message(), number);
        return;
    }
    s->lines++;
    e.source = (struct ev_source){0, number - 1};
    if (e.arrival_time_us == 0)
        e.arrival_time_us = s->opened_us;
    count_kind(s, &e, number);
    if (!is_too_far_ahead(s, &e))
        look_at_time(s, &e);
    join(s, &e);
    if (!s->plan)
        return;
    make_rows(s, &e);
    feat_state_apply(s->state, &e, 1, NULL);
}
