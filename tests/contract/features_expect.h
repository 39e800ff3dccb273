/* The plan under test, and for each of its columns and ids the brute-force answer. */
#pragma once
#include "features/keys.h"
#include "tests/contract/features_expect_slate.h"

static const char plan_head[] =
    "lateness: 60s\n"
    "features:\n"
    "  - {name: year, kind: number, source: item.year}\n"
    "  - {name: age, kind: number, source: user.age}\n"
    "  - {name: hour, kind: number, source: context.hour}\n"
    "  - {name: score, kind: number, source: candidate.score}\n"
    "  - {name: genre, kind: category, source: item.genres, values: [drama, war], encode: onehot}\n"
    "  - {name: year_index, kind: category, source: item.year, values: [1990, 1991, 1992],\n"
    "     encode: index}\n"
    "  - {name: genre_ids, kind: category, source: item.genres, hash: 11, embed: 4, slots: 2}\n"
    "  - {name: item_id, kind: category, source: item.id, values: [i0, i1, i2, i3, i4, i5],\n"
    "     embed: 4, table: item}\n"
    "  - {name: country, kind: category, source: user.country, values: [c0, c1], embed: 2}\n"
    "  - {name: page, kind: category, source: context.page, hash: 6, encode: index}\n"
    "  - {name: ratings, kind: count, scope: item, on: rating}\n"
    "  - {name: liked, kind: count, scope: user, on: rating where value >= 4, scale: log}\n"
    "  - {name: shown, kind: count, scope: session, on: impression}\n"
    "  - {name: all, kind: count, scope: global, on: any}\n"
    "  - {name: shown_2, kind: count, scope: item, on: impression where value == 2}\n"
    "  - {name: shown_home, kind: count, scope: item, on: 'impression where page != \"search\"'}\n"
    "  - {name: clicks, kind: window_count, scope: item, on: click, bucket: 10s,\n"
    "     windows: [10s, 60s, 300s]}\n"
    "  - {name: busy, kind: window_count, scope: user, on: any, bucket: 7s, windows: [100s],\n"
    "     scale: log}\n"
    "  - {name: like, kind: rate, scope: item, top: rating where value >= 4, bottom: rating,\n"
    "     prior_weight: 3}\n"
    "  - {name: ctr, kind: rate, scope: user, top: click, bottom: impression, prior: 0.25}\n"
    "  - {name: ctr_now, kind: rate, scope: item, top: click, bottom: impression, bucket: 20s,\n"
    "     window: 200s, prior: global, prior_weight: 5}\n"
    "  - {name: click_share, kind: rate, scope: global, top: click, bottom: any}\n"
    "  - {name: seen, kind: last_n, on: rating, n: 5, value_field: value, embed: true,\n"
    "     table: item, slots: 4}\n"
    "  - {name: in_session, kind: last_n, scope: session, on: rating, n: 3}\n"
    "  - {name: stars, kind: mean, scope: item, on: rating, value_field: value, prior_weight: 3}\n"
    "  - {name: my_stars, kind: mean, scope: user, on: rating, value_field: value, prior: 2.5}\n"
    "  - {name: kind, kind: residual, of: seen, against: stars, prior_weight: 2}\n"
    "  - {name: mood, kind: residual, of: seen, against: stars, last: 2, prior_weight: 0}\n"
    "  - {name: idle, kind: time_since, scope: user, on: click}\n"
    "  - {name: item_age, kind: time_since, source: item.created_at}\n"
    "  - {name: since_this, kind: time_since, of: seen}\n"
    "  - {name: fit, kind: match, of: seen, field: genres, prior_weight: 2}\n"
    "  - {name: fit_like, kind: match, of: seen, field: genres, at_least: 4, prior_weight: 2}\n"
    "  - {name: fit_session, kind: match, of: in_session, field: genres}\n"
    "  - {name: again, kind: match, of: seen, field: id}\n";

#define SEEN_N 5

/* ---- fields ---- */
static const struct ev_value *item_field(const struct oracle *o, int row, const char *name) {
    return newest_field(o, EV_ITEM, o->q->items[row], name);
}
static double x_item_number(const struct oracle *o, int row, const char *name) {
    return number_of_value(item_field(o, row, name));
}
static double x_user_number(const struct oracle *o, int row, const char *name) {
    (void)row;
    return number_of_value(newest_field(o, EV_USER, o->q->user, name));
}
static double x_context(const struct oracle *o, int row, const char *name) {
    (void)row;
    return number_of_value(value_in(o->q->context, o->q->n_context, name));
}
static double x_score(const struct oracle *o, int row, const char *arg) {
    (void)arg;
    return (double)o->q->scores[row];
}
static double x_genre(const struct oracle *o, int row, const char *word) {
    struct slice words[32];
    char text[32];
    int n = words_of_value(item_field(o, row, "genres"), words, text), has = 0;
    for (int i = 0; i < n; i++)
        has |= slice_is(words[i], word);
    return n == 0 ? (double)NAN : has;
}
static double x_year_index(const struct oracle *o, int row, const char *arg) {
    (void)arg;
    struct slice words[32];
    char text[32];
    if (words_of_value(item_field(o, row, "year"), words, text) == 0)
        return (double)NAN;
    for (int i = 0; i < 3; i++)
        if (words[0].n == 4 && memcmp(words[0].p, "199", 3) == 0 && words[0].p[3] == '0' + i)
            return 2 + i;
    return 1;
}
static double x_page(const struct oracle *o, int row, const char *arg) {
    (void)row, (void)arg;
    const struct ev_value *v = value_in(o->q->context, o->q->n_context, "page");
    return v == NULL ? (double)NAN : 2 + (double)(feat_text_key(v->string) % 4);
}

/* ---- counts ---- */

/* Predicates by name: what the plan says in its own words. */
static bool is_a(const struct happening *h, const char *what) {
    double v = own_value(h);
    if (strcmp(what, "impression") == 0)
        return h->shown != NULL;
    if (strcmp(what, "impression2") == 0)
        return h->shown != NULL && v == 2;
    if (strcmp(what, "home") == 0) {
        const struct ev_value *page = value_in(h->e->fields, h->e->n_fields, "page");
        return h->shown != NULL && page != NULL && !slice_is(page->string, "search");
    }
    if (h->shown != NULL)
        return false;
    if (strcmp(what, "like") == 0)
        return slice_is(h->e->type, "rating") && v >= 4;
    return strcmp(what, "any") == 0 || slice_is(h->e->type, what);
}

/* In the window's buckets (bucket_s 0: ever). */
static double count_of(const struct oracle *o, enum feat_scope scope, int row, const char *what,
                       int bucket_s, int window_s) {
    int64_t bucket_us = bucket_s * 1000000ll;
    double n = 0;
    for (int i = 0; i < o->n; i++) {
        if (!happened_to(o, &o->all[i], scope, row) || !is_a(&o->all[i], what))
            continue;
        if (bucket_s > 0) {
            int64_t now = o->q->now_us / bucket_us;
            int64_t bucket = o->all[i].e->event_time_us / bucket_us;
            if (bucket > now || bucket <= now - (window_s + bucket_s - 1) / bucket_s)
                continue;
        }
        n++;
    }
    return is_named(o, scope) ? n : (double)NAN;
}
static double x_count_item(const struct oracle *o, int row, const char *what) {
    return count_of(o, FEAT_SCOPE_ITEM, row, what, 0, 0);
}
static double x_count_session(const struct oracle *o, int row, const char *what) {
    return count_of(o, FEAT_SCOPE_SESSION, row, what, 0, 0);
}
static double x_count_global(const struct oracle *o, int row, const char *what) {
    return count_of(o, FEAT_SCOPE_GLOBAL, row, what, 0, 0);
}
static double x_liked(const struct oracle *o, int row, const char *what) {
    return log1p(count_of(o, FEAT_SCOPE_USER, row, what, 0, 0));
}
static double x_clicks(const struct oracle *o, int row, const char *window_s) {
    return count_of(o, FEAT_SCOPE_ITEM, row, "click", 10, atoi(window_s));
}
static double x_busy(const struct oracle *o, int row, const char *what) {
    return log1p(count_of(o, FEAT_SCOPE_USER, row, what, 7, 100));
}

/* ---- rates ---- */
static double smoothed(double top, double bottom, double weight, double prior) {
    if (isnan(prior))
        return bottom > 0 ? top / bottom : (double)NAN;
    return (top + weight * prior) / (bottom + weight);
}
static double x_like(const struct oracle *o, int row, const char *arg) {
    (void)arg;
    double all = count_of(o, FEAT_SCOPE_GLOBAL, row, "rating", 0, 0);
    double prior = all > 0 ? count_of(o, FEAT_SCOPE_GLOBAL, row, "like", 0, 0) / all : (double)NAN;
    return smoothed(x_count_item(o, row, "like"), x_count_item(o, row, "rating"), 3, prior);
}
static double x_ctr(const struct oracle *o, int row, const char *arg) {
    (void)arg;
    return smoothed(count_of(o, FEAT_SCOPE_USER, row, "click", 0, 0),
                    count_of(o, FEAT_SCOPE_USER, row, "impression", 0, 0), 10, 0.25);
}
static double x_ctr_now(const struct oracle *o, int row, const char *arg) {
    (void)arg;
    double all = count_of(o, FEAT_SCOPE_GLOBAL, row, "impression", 20, 200);
    double prior =
        all > 0 ? count_of(o, FEAT_SCOPE_GLOBAL, row, "click", 20, 200) / all : (double)NAN;
    return smoothed(count_of(o, FEAT_SCOPE_ITEM, row, "click", 20, 200),
                    count_of(o, FEAT_SCOPE_ITEM, row, "impression", 20, 200), 5, prior);
}
static double x_click_share(const struct oracle *o, int row, const char *arg) {
    (void)arg;
    return smoothed(x_count_global(o, row, "click"), x_count_global(o, row, "any"), 0, (double)NAN);
}

/* ---- means ---- */
/* Of the item, of the user (item.n == 0), or of everything (all). */
static double mean_of(const struct oracle *o, struct slice item, bool all, double weight,
                      double prior) {
    double sum = 0, n = 0;
    for (int i = 0; i < o->n; i++) {
        const struct happening *h = &o->all[i];
        bool whose = all || (item.n > 0 ? slice_equal(h->item, item)
                                        : happened_to(o, h, FEAT_SCOPE_USER, -1));
        if (!whose || !happened_to(o, h, FEAT_SCOPE_GLOBAL, -1) || isnan(own_value(h)) ||
            !slice_is(h->e->type, "rating"))
            continue;
        sum += own_value(h);
        n++;
    }
    return smoothed(sum, n, weight, prior);
}
static double stars_of(const struct oracle *o, struct slice item) {
    return mean_of(o, item, false, 3, mean_of(o, item, true, 0, (double)NAN));
}
static double x_stars(const struct oracle *o, int row, const char *arg) {
    (void)arg;
    return stars_of(o, o->q->items[row]);
}
static double x_my_stars(const struct oracle *o, int row, const char *arg) {
    (void)row, (void)arg;
    return o->q->user.n == 0 ? (double)NAN : mean_of(o, (struct slice){0}, false, 10, 2.5);
}
/* arg: how many of the newest ratings, and the weight of zero */
static double x_residual(const struct oracle *o, int row, const char *arg) {
    (void)row;
    const struct happening *last[SEEN_N];
    int most = arg[0] - '0', weight = arg[2] - '0';
    int n = last_ratings(o, FEAT_SCOPE_USER, most, last);
    double sum = 0, count = 0;
    for (int i = 0; i < n; i++) {
        double stars = stars_of(o, last[i]->item);
        if (isnan(own_value(last[i])) || isnan(stars))
            continue;
        sum += own_value(last[i]) - stars;
        count++;
    }
    return o->q->user.n == 0 || count + weight == 0 ? (double)NAN : sum / (count + weight);
}

/* ---- times ---- */
static double x_idle(const struct oracle *o, int row, const char *arg) {
    (void)row, (void)arg;
    for (int i = o->n - 1; i >= 0; i--)
        if (happened_to(o, &o->all[i], FEAT_SCOPE_USER, -1) && is_a(&o->all[i], "click"))
            return log_seconds(o, (double)o->all[i].e->event_time_us);
    return (double)NAN;
}
static double x_item_age(const struct oracle *o, int row, const char *arg) {
    (void)arg;
    double created = x_item_number(o, row, "created_at");
    return isnan(created) ? created : log_seconds(o, created * 1e6);
}

/* ---- last-N ---- */
static double x_since_this(const struct oracle *o, int row, const char *arg) {
    (void)arg;
    const struct happening *last[SEEN_N];
    int n = last_ratings(o, FEAT_SCOPE_USER, SEEN_N, last);
    for (int i = 0; i < n; i++)
        if (slice_equal(last[i]->item, o->q->items[row]))
            return log_seconds(o, (double)last[i]->e->event_time_us);
    return (double)NAN;
}
static double x_seen(const struct oracle *o, int row, const char *arg) {
    return o->q->user.n == 0 ? (double)NAN : !isnan(x_since_this(o, row, arg));
}

static const struct ev_value *genres_of(const struct oracle *o, struct slice item) {
    return newest_field(o, EV_ITEM, item, "genres");
}
static double share_in(const struct oracle *o, int row, enum feat_scope scope, int most) {
    const struct happening *last[SEEN_N];
    const struct ev_value *mine = item_field(o, row, "genres");
    int n = last_ratings(o, scope, most, last);
    double sharing = 0;
    if (n == 0 || mine == NULL || mine->strings.n == 0)
        return (double)NAN;
    for (int i = 0; i < n; i++)
        sharing += share_a_word(mine, genres_of(o, last[i]->item));
    return sharing / n;
}
static double weight_in(const struct oracle *o, int row, enum feat_scope scope, int most) {
    const struct happening *last[SEEN_N];
    const struct ev_value *mine = item_field(o, row, "genres");
    int n = last_ratings(o, scope, most, last);
    double sum = 0;
    if (n == 0 || mine == NULL || mine->strings.n == 0)
        return (double)NAN;
    for (int k = 0; k < mine->strings.n; k++) {
        struct ev_value one = {EV_STRING, .string = mine->strings.v[k]};
        for (int i = 0; i < n; i++)
            sum += share_a_word(&one, genres_of(o, last[i]->item));
    }
    return sum / (n * mine->strings.n);
}
static double x_share(const struct oracle *o, int row, const char *arg) {
    (void)arg;
    return share_in(o, row, FEAT_SCOPE_USER, SEEN_N);
}
static double x_weight(const struct oracle *o, int row, const char *arg) {
    (void)arg;
    return weight_in(o, row, FEAT_SCOPE_USER, SEEN_N);
}
static double x_session_share(const struct oracle *o, int row, const char *arg) {
    (void)arg;
    return share_in(o, row, FEAT_SCOPE_SESSION, 3);
}
static double x_session_weight(const struct oracle *o, int row, const char *arg) {
    (void)arg;
    return weight_in(o, row, FEAT_SCOPE_SESSION, 3);
}
/* arg: "likes" turns values into 0/1 and pulls towards the user's rate, else towards 0 */
static double x_fit_value(const struct oracle *o, int row, const char *arg) {
    const struct happening *last[SEEN_N];
    bool likes = strcmp(arg, "likes") == 0;
    int n = last_ratings(o, FEAT_SCOPE_USER, SEEN_N, last);
    double x[SEEN_N], mean = 0, n_mean = 0, sum = 0, n_sum = 0;
    if (isnan(x_share(o, row, arg)))
        return (double)NAN;
    for (int i = 0; i < n; i++) {
        x[i] = own_value(last[i]);
        if (likes && !isnan(x[i]))
            x[i] = x[i] >= 4;
        mean += isnan(x[i]) ? 0 : x[i];
        n_mean += !isnan(x[i]);
    }
    if (n_mean == 0)
        return (double)NAN;
    mean /= n_mean;
    for (int i = 0; i < n; i++) {
        if (isnan(x[i]) || !share_a_word(item_field(o, row, "genres"), genres_of(o, last[i]->item)))
            continue;
        sum += likes ? x[i] : x[i] - mean;
        n_sum++;
    }
    return (sum + 2 * (likes ? mean : 0)) / (n_sum + 2);
}

#include "tests/contract/features_expect_joins.h" /* the same once more, of what is joined */

/* ---- ids ---- */
static uint32_t item_row(const struct oracle *o, struct slice item) {
    (void)o;
    return item.n == 2 && item.p[1] >= '0' && item.p[1] <= '5' ? 2 + (uint32_t)(item.p[1] - '0')
                                                               : 1;
}
static void i_item(const struct oracle *o, int row, uint32_t *out) {
    out[0] = item_row(o, o->q->items[row]);
}
static void i_genres(const struct oracle *o, int row, uint32_t *out) {
    struct slice words[32];
    char text[32];
    int n = words_of_value(item_field(o, row, "genres"), words, text);
    for (int i = 0; i < n && i < 2; i++)
        out[i] = 2 + (uint32_t)(feat_text_key(words[i]) % 9);
}
static void i_country(const struct oracle *o, int row, uint32_t *out) {
    (void)row;
    const struct ev_value *v = newest_field(o, EV_USER, o->q->user, "country");
    if (v != NULL)
        out[0] = slice_is(v->string, "c0") ? 2 : slice_is(v->string, "c1") ? 3 : 1;
}
static void i_seen(const struct oracle *o, int row, uint32_t *out) {
    (void)row;
    const struct happening *last[4];
    int n = last_ratings(o, FEAT_SCOPE_USER, 4, last);
    for (int i = 0; i < n; i++)
        out[i] = item_row(o, last[i]->item);
}

static const struct expect_column {
    const char *name;
    double (*value)(const struct oracle *o, int row, const char *arg);
    const char *arg;
} expect_columns[] = {{"year", x_item_number, "year"},
                      {"age", x_user_number, "age"},
                      {"hour", x_context, "hour"},
                      {"score", x_score, ""},
                      {"genre.drama", x_genre, "drama"},
                      {"genre.war", x_genre, "war"},
                      {"year_index", x_year_index, ""},
                      {"page", x_page, ""},
                      {"stars", x_stars, ""},
                      {"my_stars", x_my_stars, ""},
                      {"kind", x_residual, "5 2"},
                      {"mood", x_residual, "2 0"},
                      {"ratings", x_count_item, "rating"},
                      {"liked", x_liked, "like"},
                      {"all", x_count_global, "any"},
                      {"shown", x_count_session, "impression"},
                      {"shown_home", x_count_item, "home"},
                      {"shown_2", x_count_item, "impression2"},
                      {"clicks.10s", x_clicks, "10"},
                      {"clicks.1m", x_clicks, "60"},
                      {"clicks.5m", x_clicks, "300"},
                      {"busy.100s", x_busy, "any"},
                      {"like", x_like, ""},
                      {"ctr", x_ctr, ""},
                      {"ctr_now", x_ctr_now, ""},
                      {"click_share", x_click_share, ""},
                      {"idle", x_idle, ""},
                      {"item_age", x_item_age, ""},
                      {"since_this", x_since_this, ""},
                      {"fit.share", x_share, ""},
                      {"fit.weight", x_weight, ""},
                      {"fit.value", x_fit_value, ""},
                      {"fit_like.share", x_share, ""},
                      {"fit_like.weight", x_weight, ""},
                      {"fit_like.value", x_fit_value, "likes"},
                      {"fit_session.share", x_session_share, ""},
                      {"fit_session.weight", x_session_weight, ""},
                      {"again.seen", x_seen, ""},
                      {"again.age", x_since_this, ""},
                      JOIN_COLUMNS,
                      MORE_COLUMNS};

static const struct expect_ids {
    const char *name;
    void (*ids)(const struct oracle *o, int row, uint32_t *out);
} expect_ids[] = {{"item_id", i_item},
                  {"genre_ids", i_genres},
                  {"country", i_country},
                  {"seen", i_seen},
                  {"lately", i_lately}};
