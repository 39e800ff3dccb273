/* Rankings joined with the interactions that answer them, by brute force: for every pair of events,
 * features_world.h; the counting is features_expect.h's, over what is left. */
#pragma once

static const char plan_joins[] =
    "  - {name: visit, kind: join, window: 100s}\n"
    "  - {name: seen_n, kind: count, scope: item, on: impression, cascade: visit}\n"
    "  - {name: seen_2, kind: count, scope: item, on: impression where value == 2, cascade: visit}\n"
    "  - {name: seen_home, kind: count, scope: user, on: 'impression where page != \"search\"',\n"
    "     cascade: visit}\n"
    "  - {name: seen_ctr, kind: rate, scope: item, top: click, bottom: impression, cascade: visit,\n"
    "     bucket: 20s, windows: [200s, 400s], prior_weight: 2}\n"
    "  - {name: joined_ctr, kind: rate, scope: user, top: click, bottom: impression, prior: 0.5,\n"
    "     cascade: visit, attribution: visit}\n"
    "  - {name: answers, kind: window_count, scope: item, on: any, attribution: visit,\n"
    "     bucket: 10s, windows: [100s, 300s]}\n"
    "  - {name: answers_session, kind: count, scope: session, on: rating, attribution: visit}\n"
    "  - {name: brand_seen, kind: count, scope: item.brand, on: impression, cascade: visit}\n"
    "  - {name: brand_answers, kind: count, scope: event.brand, on: any, attribution: visit}\n"
    "  - {name: stars_joined, kind: mean, scope: item, on: rating, value_field: value, prior: 3,\n"
    "     attribution: visit}\n"
    "  - {name: idle_joined, kind: time_since, scope: user, on: click, attribution: visit}\n"
    "  - {name: fast_joined, kind: decayed_count, scope: item, on: click, half_life: 30s,\n"
    "     attribution: visit}\n"
    "  - {name: last_joined, kind: last_n, on: rating, n: 3, attribution: visit}\n"
    "  - {name: fit_joined, kind: match, of: last_joined, field: genres}\n"
    "  - {name: brief, kind: join, window: 100s}\n" /* keeps no fields */
    "  - {name: brief_seen, kind: count, scope: item, on: impression, cascade: brief}\n"
    "  - {name: brief_answers, kind: count, scope: user, on: click, attribution: brief}\n";

static int keep_joined(const struct oracle *o, const struct happening *from, bool cascade,
                       bool answers, struct happening *left) {
    int n = 0;
    for (int i = 0; i < o->n; i++) {
        const struct happening *h = &from[i];
        const bool *is = o->w->joined[h->e - o->w->events];
        if (h->shown == NULL ? !answers || is[0] : !cascade || is[h->shown - h->e->shown])
            left[n++] = *h;
    }
    return n;
}

/* The oracle with only what is joined, of impressions (cascade) and of interactions (answers).
 * Until the next call. */
static const struct oracle *joined(const struct oracle *o, bool cascade, bool answers) {
    static struct happening all[EVENTS * SHOWN], by_item[EVENTS * SHOWN];
    static struct oracle only;
    only = *o;
    only.all = all;
    only.by_item = by_item;
    only.n = keep_joined(o, o->all, cascade, answers, all);
    keep_joined(o, o->by_item, cascade, answers, by_item);
    return &only;
}

static double x_seen_item(const struct oracle *o, int row, const char *what) {
    return x_count_item(joined(o, true, false), row, what);
}
static double x_seen_home(const struct oracle *o, int row, const char *what) {
    return count_of(joined(o, true, false), FEAT_SCOPE_USER, row, what, 0, 0);
}
static double x_seen_ctr(const struct oracle *o, int row, const char *window_s) {
    int s = atoi(window_s);
    const struct oracle *q = joined(o, true, false);
    double all = count_of(q, FEAT_SCOPE_GLOBAL, row, "impression", 20, s);
    double prior =
        all > 0 ? count_of(q, FEAT_SCOPE_GLOBAL, row, "click", 20, s) / all : (double)NAN;
    return smoothed(count_of(q, FEAT_SCOPE_ITEM, row, "click", 20, s),
                    count_of(q, FEAT_SCOPE_ITEM, row, "impression", 20, s), 2, prior);
}
static double x_joined_ctr(const struct oracle *o, int row, const char *arg) {
    (void)arg;
    const struct oracle *q = joined(o, true, true);
    return smoothed(count_of(q, FEAT_SCOPE_USER, row, "click", 0, 0),
                    count_of(q, FEAT_SCOPE_USER, row, "impression", 0, 0), 10, 0.5);
}
static double x_answers(const struct oracle *o, int row, const char *window_s) {
    return count_of(joined(o, false, true), FEAT_SCOPE_ITEM, row, "any", 10, atoi(window_s));
}
static double x_answers_session(const struct oracle *o, int row, const char *what) {
    return x_count_session(joined(o, false, true), row, what);
}
static double x_brief_answers(const struct oracle *o, int row, const char *what) {
    return count_of(joined(o, false, true), FEAT_SCOPE_USER, row, what, 0, 0);
}
static double x_brand_seen(const struct oracle *o, int row, const char *arg) {
    (void)arg;
    return brand_count(joined(o, true, false), row, "impression", 1000, 1000000000);
}
static double x_brand_answers(const struct oracle *o, int row, const char *arg) {
    (void)arg;
    const struct oracle *q = joined(o, false, true);
    const struct ev_value *brand = item_field(o, row, "brand");
    double n = 0;
    for (int i = 0; i < q->n && brand != NULL; i++)
        n += happened_to(q, &q->all[i], FEAT_SCOPE_GLOBAL, row) && q->all[i].shown == NULL &&
             carries(&q->all[i], "brand", brand);
    return brand == NULL ? (double)NAN : n;
}
static double x_stars_joined(const struct oracle *o, int row, const char *arg) {
    (void)arg;
    return mean_of(joined(o, false, true), o->q->items[row], false, 10, 3);
}

static double x_idle_joined(const struct oracle *o, int row, const char *arg) {
    return x_idle(joined(o, false, true), row, arg);
}
static double x_fast_joined(const struct oracle *o, int row, const char *arg) {
    return x_fast(joined(o, false, true), row, arg);
}
static double x_share_joined(const struct oracle *o, int row, const char *arg) {
    (void)arg;
    return share_in(joined(o, false, true), row, FEAT_SCOPE_USER, 3);
}
static double x_weight_joined(const struct oracle *o, int row, const char *arg) {
    (void)arg;
    return weight_in(joined(o, false, true), row, FEAT_SCOPE_USER, 3);
}

#define JOIN_COLUMNS                                                                               \
    {"seen_n", x_seen_item, "impression"}, {"seen_2", x_seen_item, "impression2"},                 \
        {"seen_home", x_seen_home, "home"}, {"seen_ctr.200s", x_seen_ctr, "200"},                  \
        {"seen_ctr.400s", x_seen_ctr, "400"}, {"joined_ctr", x_joined_ctr, ""},                    \
        {"answers.100s", x_answers, "100"}, {"answers.5m", x_answers, "300"},                      \
        {"idle_joined", x_idle_joined, ""}, {"fast_joined", x_fast_joined, ""},                    \
        {"fit_joined.share", x_share_joined, ""}, {"fit_joined.weight", x_weight_joined, ""},      \
        {"brief_seen", x_seen_item, "impression"}, {"brief_answers", x_brief_answers, "click"},    \
        {"answers_session", x_answers_session, "rating"}, {"brand_seen", x_brand_seen, ""},        \
        {"brand_answers", x_brand_answers, ""}, {                                                  \
        "stars_joined", x_stars_joined, ""                                                         \
    }
