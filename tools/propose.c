/* propose.c: what stands in events, counted; propose_write.c makes settings of it. */
#include "tools/propose.h"
#include <math.h>
#include <stdio.h>
#include "base/hash.h"
#include "base/iso.h"

void propose_deinit(struct propose *p) {
    for (int i = 0; i < p->n_fields; i++)
        map_deinit(&p->fields[i].distinct);
    map_deinit(&p->items);
    map_deinit(&p->users);
    map_deinit(&p->seen);
    arena_deinit(&p->a);
}

/* ---- fields -----------------------------------------------------------------------------------
 */

static struct propose_field *field_of(struct propose *p, const char *of, struct slice name) {
    for (int i = 0; i < p->n_fields; i++)
        if (slice_is(name, p->fields[i].name) && strcmp(of, p->fields[i].of) == 0)
            return &p->fields[i];
    if (p->n_fields == PROPOSE_FIELDS)
        return NULL;
    struct propose_field *f = &p->fields[p->n_fields++];
    *f = (struct propose_field){.of = arena_strdup(&p->a, slice_of(of)),
                                .name = arena_strdup(&p->a, name),
                                .least = INFINITY,
                                .most = -INFINITY};
    return f;
}

static void take_word(struct propose *p, struct propose_field *f, struct slice word) {
    uint64_t key = hash_bytes(word, 0), seen;
    if (f->n_distinct == PROPOSE_DISTINCT || map_get(&f->distinct, key, &seen))
        return;
    map_put(&f->distinct, key, 1);
    if (f->n_distinct < PROPOSE_WORDS)
        f->word[f->n_distinct] = arena_strdup(&p->a, word);
    f->n_distinct++;
}

static void take_number(struct propose *p, struct propose_field *f, double v) {
    char text[40];
    int n = snprintf(text, sizeof text, "%.9g", v);
    f->least = v < f->least ? v : f->least;
    f->most = v > f->most ? v : f->most;
    take_word(p, f, (struct slice){text, (size_t)n});
}

static void take_value(struct propose *p, struct propose_field *f, const struct ev_value *v) {
    double number;
    int64_t us;
    int ahead_s;
    f->n++;
    if (v->type == EV_STRINGS) {
        f->lists++;
        f->n_values += v->strings.n;
        for (int i = 0; i < v->strings.n; i++)
            take_word(p, f, v->strings.v[i]);
    } else if (v->type == EV_NUMBERS) {
        f->vectors++;
        f->n_values += v->numbers.n;
    } else if (v->type == EV_BOOL) {
        f->flags++;
    } else if (ev_value_number(v, &number)) {
        f->numbers++;
        take_number(p, f, number);
    } else if (iso_parse(v->string, &us, &ahead_s)) {
        f->moments++;
    } else {
        f->texts++;
        take_word(p, f, v->string);
        for (size_t i = 0; i < v->string.n; i++)
            f->words += v->string.p[i] == ' ';
        f->words++;
    }
}

static void take_fields(struct propose *p, const char *of, const struct ev_field *fields, int n) {
    for (int i = 0; i < n; i++) {
        struct propose_field *f = field_of(p, of, fields[i].name);
        if (f != NULL)
            take_value(p, f, &fields[i].value);
    }
}

/* ---- interactions -----------------------------------------------------------------------------
 */

static void take_interaction(struct propose *p, const struct ev_event *e) {
    int t = 0;
    while (t < p->n_types && !slice_is(e->type, p->types[t].name))
        t++;
    if (t == PROPOSE_TYPES)
        return;
    struct propose_type *type = &p->types[t];
    if (t == p->n_types) {
        type->name = arena_strdup(&p->a, e->type);
        p->n_types++;
    }
    uint64_t of = hash_mix(hash_mix(hash_bytes(e->user, 1), hash_bytes(e->item, 2)),
                           hash_bytes(e->ranking, 3)),
             seen;
    type->n++;
    type->joined += e->ranking.n > 0;
    for (int before = 0; before < p->n_types; before++)
        type->after[before] += map_get(&p->seen, hash_mix(of, (uint64_t)before + 1), &seen);
    map_put(&p->seen, hash_mix(of, (uint64_t)t + 1), 1);
    double v;
    const struct ev_value *value = ev_field_get(e->fields, e->n_fields, "value");
    if (value == NULL || !ev_value_number(value, &v))
        return;
    type->has_value = true;
    type->value_sum += v;
    type->n_values++;
}

void propose_event(struct propose *p, const struct ev_event *e) {
    if (p->a.chunk_bytes == 0)
        arena_init(&p->a, 0);
    p->events++;
    if (p->first_us == 0 || e->event_time_us < p->first_us)
        p->first_us = e->event_time_us;
    if (e->event_time_us > p->last_us)
        p->last_us = e->event_time_us;
    take_fields(p, ev_kind_word(e->kind), e->fields, e->n_fields);
    if (e->item.n > 0)
        map_put(&p->items, hash_bytes(e->item, 0), 1);
    if (e->user.n > 0)
        map_put(&p->users, hash_bytes(e->user, 0), 1);
    p->rankings += e->kind == EV_RANKING;
    p->shown += e->n_shown;
    for (int i = 0; i < e->n_shown; i++)
        take_fields(p, "shown", e->shown[i].fields, e->shown[i].n_fields);
    if (e->kind == EV_INTERACTION)
        take_interaction(p, e);
}
