/* time_since.c: seconds since something: the last matching event of a user, session or item; a
 * moment the item or user bears (its age); or the user's last dealing with this very candidate,
 * read off a last_n feature. Never happened is NaN. A reader whose clock is behind the event sees
 * 0. Cell: one time, the greatest seen. */
#include "features/claim.h"
#include "features/index.h"
#include "features/kinds/last_n.h"

enum { UNIT_S, UNIT_MS, UNIT_US };

struct params {
    const char *on_text, *source_text, *of_text;
    struct conf_strings scope_text;
    int scale, unit;
    enum feat_scope scope;
    struct feat_match on;
    struct feat_source source;
    const struct feat *of;
};

static const struct conf_item items[] = {
    FEAT_CONF_SCOPE(struct params, scope_text, "item", "Whose last event; only with on."),
    CONF_STRING(struct params, on_text, "on", "",
                "Which events: TYPE [where FIELD OP VALUE]. Give one of on, source, of."),
    CONF_STRING(
        struct params, source_text, "source", "",
        "A moment in a field, as item.created_at: ISO 8601, or a number since 1970 in unit."),
    CONF_STRING(struct params, of_text, "of", "",
                "An earlier last_n feature: since its newest entry with the candidate."),
    CONF_ENUM(struct params, unit, "unit", "s", "s|ms|us", "Unit of source."),
    CONF_ENUM(struct params, scale, "scale", "log", FEAT_SCALE_CHOICES, "log: log(1 + seconds)."),
    CONF_END};

static enum status check(struct feat_plan *p, struct feat *f) {
    struct params *m = f->params;
    int given = (m->on_text[0] != '\0') + (m->source_text[0] != '\0') + (m->of_text[0] != '\0');
    if (given != 1)
        return fail(STATUS_INVALID_ARGUMENT, "on: give exactly one of on, source and of");
    f->n_columns = 1;
    if (m->source_text[0] != '\0') {
        TRY(feat_claim_source(p, "source", m->source_text, FEAT_AS_TIME, &m->source));
        f->side = feat_source_side(&m->source);
    } else if (m->of_text[0] != '\0') {
        TRY(feat_claim_last(p, "of", m->of_text, &m->of));
        f->side = FEAT_CROSS;
    } else {
        TRY(feat_claim_match(p, "on", m->on_text, &m->on));
        TRY(feat_claim_scope(p, f, &m->scope_text, &m->scope));
        feat_claim_cell(p, f, m->scope);
    }
    return STATUS_OK;
}

static bool apply(const struct feat *f, const struct feat_update *u, struct slice old,
                  struct buf *out) {
    const struct params *m = f->params;
    if (feat_match_count(&m->on, u) == 0)
        return false;
    struct cursor c = cursor_of(old.p, old.n);
    if (old.n > 0 && feat_get_time(&c) >= u->event->event_time_us)
        return false;
    feat_put_time(out, u->event->event_time_us);
    return true;
}

/* Of `of`: item key -> 1 + index of its newest entry's time. */
struct work {
    struct feat_index at;
    int64_t *times_us;
};

static void begin(const struct feat *f, struct feat_read *r) {
    const struct params *m = f->params;
    if (m->of == NULL)
        return;
    struct work *w = ARENA_NEW(r->arena, struct work);
    struct feat_last_reader reader;
    struct feat_last_entry e;
    int n = feat_last_open(m->of, feat_last_cell(m->of, r), &reader), i = 0;
    feat_index_init(&w->at, r->arena, (size_t)n);
    w->times_us = ARENA_ARRAY(r->arena, int64_t, n);
    while (feat_last_next(&reader, &e)) {
        uint32_t *slot = feat_index_at(&w->at, e.item);
        w->times_us[i++] = e.time_us;
        if (*slot == 0) /* newest first */
            *slot = (uint32_t)i;
    }
    r->scratch[f->number] = w;
}

/* The moment in question; false when there is none. */
static bool moment(const struct feat *f, const struct feat_read *r, int row, double *out_us) {
    const struct params *m = f->params;
    if (m->of != NULL) {
        const struct work *w = r->scratch[f->number];
        uint32_t at = feat_index_get(&w->at, r->item_keys[row]);
        if (at > 0)
            *out_us = (double)w->times_us[at - 1];
        return at > 0;
    }
    if (m->source_text[0] != '\0') {
        static const double unit_us[] = {1e6, 1e3, 1};
        double v;
        if (!feat_source_number(&m->source, r, row, &v))
            return false;
        *out_us = v * unit_us[m->unit];
        return true;
    }
    struct slice cells[FEAT_SPOTS_MAX];
    int64_t newest_us = 0;
    for (int i = 0, n = feat_read_cells(r, f, 0, row, cells); i < n; i++) {
        struct cursor c = cursor_of(cells[i].p, cells[i].n);
        int64_t at_us = cells[i].n == 0 ? 0 : feat_get_time(&c);
        newest_us = at_us > newest_us ? at_us : newest_us;
    }
    *out_us = (double)newest_us;
    return newest_us > 0;
}

static void extract(const struct feat *f, struct feat_read *r, int row, float *dense,
                    uint32_t *ids) {
    (void)ids;
    const struct params *m = f->params;
    double at_us = 0;
    if (!moment(f, r, row, &at_us))
        return;
    double seconds = ((double)r->now_us - at_us) / 1e6;
    dense[0] = feat_scaled(m->scale, seconds > 0 ? seconds : 0);
}

const struct feat_kind feat_kind_time_since = {
    .name = "time_since",
    .doc = "Seconds since the last matching event, or since a moment in a field.",
    .params = items,
    .params_bytes = sizeof(struct params),
    .check = check,
    .apply = apply,
    .begin = begin,
    .extract = extract,
};
