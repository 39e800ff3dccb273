/* The rest of the plan under test, kind by kind, with the brute-force answers: values in other
 * forms, crossed scopes, decay, neighbours, texts, slates. */
#pragma once
#include "tests/contract/features_oracle.h"
#include <time.h>

static const struct ev_value *item_field(const struct oracle *o, int row, const char *name);
static bool is_a(const struct happening *h, const char *what);
static double smoothed(double top, double bottom, double weight, double prior);

static const char plan_more[] =
    "  - {name: adult, kind: boolean, source: item.adult}\n"
    "  - {name: sizes, kind: vector, source: item.sizes, take: 2,\n"
    "     reduce: [first, last, min, max, avg, sum, size, norm]}\n"
    "  - {name: n_sizes, kind: list_size, source: item.sizes}\n"
    "  - {name: n_title, kind: word_count, source: item.title, scale: log}\n"
    "  - {name: wait, kind: time_diff, from: item.created_at, to: item.released}\n"
    "  - {name: now, kind: local_time, utc_offset: 90m,\n"
    "     parts: [hour, weekday, weekend, day, month, year]}\n"
    "  - {name: local, kind: local_time, source: context.local, cyclic: true,\n"
    "     parts: [hour, weekday, month]}\n"
    "  - {name: there, kind: local_time, source: context.local,\n"
    "     parts: [hour, weekday, weekend, day, month, year]}\n"
    "  - {name: agent, kind: user_agent, source: context.agent or user.agent}\n"
    "  - {name: came, kind: referer, source: context.referer, internal: [shop.example],\n"
    "     remember: user}\n"
    "  - {name: comes, kind: referer, source: context.referer}\n"
    "  - {name: position, kind: position, serving: 7}\n"
    "  - {name: best_of, kind: number, source: candidate.score or item.year, scale: log}\n"
    "  - {name: fast, kind: decayed_count, scope: item, on: click, half_life: 30s}\n"
    "  - {name: slow, kind: decayed_count, scope: item, on: click, half_life: 300s, scale: log}\n"
    "  - {name: trend, kind: trending, fast: fast, slow: slow}\n"
    "  - {name: brand_heat, kind: decayed_count, scope: item.brand, on: any, half_life: 100s}\n"
    "  - {name: genre_clicks, kind: count, scope: [item.genres], on: click}\n"
    "  - {name: brand_shown, kind: window_count, scope: item.brand, on: impression, bucket: 10s,\n"
    "     windows: [50s, 200s]}\n"
    "  - {name: brand_ctr, kind: rate, scope: item.brand, top: click, bottom: impression,\n"
    "     bucket: 20s, windows: [60s, 200s], prior_counts: top, prior_weight: 2}\n"
    "  - {name: brand_stars, kind: mean, scope: item.brand, on: rating, value_field: value,\n"
    "     prior: 3}\n"
    "  - {name: user_brand, kind: count, scope: [user, event.brand], on: any}\n"
    "  - {name: seen_brand, kind: count, scope: [event.brand], on: impression}\n"
    "  - {name: item_query, kind: rate, scope: [item, context.query], top: click,\n"
    "     bottom: impression, prior_weight: 0}\n"
    "  - {name: query_busy, kind: window_count, scope: context.query, on: any, bucket: 10s,\n"
    "     windows: [100s]}\n"
    "  - {name: query_idle, kind: time_since, scope: [session, context.query], on: click}\n"
    "  - {name: lately, kind: last_n, on: impression, n: 4, distinct: true, times: true, slots: 3,\n"
    "     embed: true, table: item}\n"
    "  - {name: raters, kind: last_n, scope: item, on: rating, n: 4}\n"
    "  - {name: others, kind: cooccur, of: seen, users: raters, last: 3}\n"
    "  - {name: likes, kind: match, of: seen, fields: [genres, brand], within: 200s,\n"
    "     columns: [hits, count, age, daily, share, most]}\n"
    "  - {name: counts, kind: match, of: seen, fields: [genres, brand], within: 200s,\n"
    "     columns: [most, hits, weight]}\n"
    "  - {name: years, kind: habit, of: seen, source: item.year, prior: 1992, prior_weight: 2}\n"
    "  - {name: years_log, kind: habit, of: seen, source: item.year, scale: log, prior_weight: 0}\n"
    "  - {name: beside, kind: relative, source: candidate.score or item.year}\n"
    "  - {name: beside_ctr, kind: relative, of: brand_ctr, column: 200s, columns: [rank, median],\n"
    "     top: 5}\n"
    "  - {name: price_diff, kind: diversity, source: item.year, top: 4}\n"
    "  - {name: genre_diff, kind: diversity, source: item.genres, as: words}\n"
    "  - {name: title, kind: text_match, query: context.query, source: item.title}\n"
    "  - {name: letters, kind: text_match, query: context.query, source: item.title,\n"
    "     method: ngram, n: 2}\n"
    "  - {name: bm25, kind: text_match, query: context.query, source: item.title, method: bm25}\n";

/* ---- values in other forms ---- */
static double x_adult(const struct oracle *o, int row, const char *arg) {
    (void)arg;
    const struct ev_value *v = item_field(o, row, "adult");
    if (v == NULL)
        return (double)NAN;
    if (v->type == EV_BOOL)
        return v->boolean;
    return slice_is(v->string, "perhaps")
               ? (double)NAN
               : slice_is(v->string, "yes") || slice_is(v->string, "true");
}
static double x_sizes(const struct oracle *o, int row, const char *how) {
    const struct ev_value *v = item_field(o, row, "sizes");
    if (v == NULL || v->numbers.n == 0)
        return strcmp(how, "n") == 0 && v != NULL ? 0 : (double)NAN;
    int n = v->numbers.n, at = how[0] - '0';
    double least = INFINITY, most = -INFINITY, sum = 0, squares = 0;
    for (int i = 0; i < n; i++) {
        least = fmin(least, v->numbers.v[i]);
        most = fmax(most, v->numbers.v[i]);
        sum += v->numbers.v[i];
        squares += v->numbers.v[i] * v->numbers.v[i];
    }
    if (how[0] == '0' || how[0] == '1')
        return at < n ? v->numbers.v[at] : (double)NAN;
    return strcmp(how, "first") == 0  ? v->numbers.v[0]
           : strcmp(how, "last") == 0 ? v->numbers.v[n - 1]
           : strcmp(how, "min") == 0  ? least
           : strcmp(how, "max") == 0  ? most
           : strcmp(how, "avg") == 0  ? sum / n
           : strcmp(how, "sum") == 0  ? sum
           : strcmp(how, "norm") == 0 ? sqrt(squares)
                                      : n;
}

/* Lower-case words of a text, as strings. */
struct tokens {
    char word[64][16];
    int n;
};
static void tokens_of(const struct ev_value *v, struct tokens *t) {
    int letters = 0;
    t->n = 0;
    for (size_t i = 0; v != NULL && i <= v->string.n; i++) {
        char c = i < v->string.n ? v->string.p[i] : ' ';
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (letter)
            t->word[t->n][letters++] = (char)(c >= 'A' && c <= 'Z' ? c + 32 : c);
        else if (letters > 0) {
            t->word[t->n++][letters] = '\0';
            letters = 0;
        }
    }
}
static double x_n_title(const struct oracle *o, int row, const char *arg) {
    (void)arg;
    const struct ev_value *v = item_field(o, row, "title");
    struct tokens t;
    tokens_of(v, &t);
    return v == NULL ? (double)NAN : log1p(t.n);
}

/* ---- moments ---- */
static double released_s(const struct ev_value *v) {
    const double t0 = (double)(T0_US / 1000000);
    if (v == NULL || slice_is(v->string, "soon"))
        return (double)NAN;
    if (slice_is(v->string, "2023-11-14"))
        return t0 - (22 * 3600 + 13 * 60 + 20);
    return v->string.p[v->string.n - 1] == 'Z' ? t0 + 1.5 : t0;
}
static double x_wait(const struct oracle *o, int row, const char *arg) {
    (void)arg;
    return released_s(item_field(o, row, "released")) -
           number_of_value(item_field(o, row, "created_at"));
}
/* By the C library's calendar. */
static double time_part(double local_s, const char *part) {
    time_t whole = (time_t)floor(local_s);
    struct tm tm;
    gmtime_r(&whole, &tm);
    double hour = tm.tm_hour + tm.tm_min / 60.0 + (tm.tm_sec + local_s - (double)whole) / 3600;
    int weekday = tm.tm_wday == 0 ? 7 : tm.tm_wday;
    double turn = strncmp(part, "hour", 4) == 0      ? hour / 24
                  : strncmp(part, "weekday", 7) == 0 ? (weekday - 1) / 7.0
                                                     : tm.tm_mon / 12.0;
    const char *dot = strchr(part, '.');
    if (dot != NULL)
        return strcmp(dot, ".sin") == 0 ? sin(2 * M_PI * turn) : cos(2 * M_PI * turn);
    return strcmp(part, "hour") == 0      ? hour
           : strcmp(part, "weekday") == 0 ? weekday
           : strcmp(part, "weekend") == 0 ? weekday > 5
           : strcmp(part, "day") == 0     ? tm.tm_mday
           : strcmp(part, "month") == 0   ? tm.tm_mon + 1
                                          : tm.tm_year + 1900;
}
static double x_now(const struct oracle *o, int row, const char *part) {
    (void)row;
    return time_part((double)o->q->now_us / 1e6 + 90 * 60, part);
}
static double x_local(const struct oracle *o, int row, const char *part) {
    (void)row;
    const struct ev_value *v = value_in(o->q->context, o->q->n_context, "local");
    for (int i = 0; v != NULL && i < 3; i++)
        if (slice_is(v->string, clocks[i]))
            return time_part(clocks_s[i], part);
    return (double)NAN;
}

/* ---- the browser ---- */
static double x_agent(const struct oracle *o, int row, const char *word) {
    static const char *const truth[] = {"mobile ios safari", "desktop windows edge",
                                        "platform-other os-other browser-other bot"};
    (void)row;
    const struct ev_value *v = value_in(o->q->context, o->q->n_context, "agent");
    if (v == NULL)
        v = newest_field(o, EV_USER, o->q->user, "agent");
    for (int i = 0; v != NULL && i < 3; i++)
        if (slice_is(v->string, agents[i]))
            return strstr(truth[i], word) != NULL;
    return (double)NAN;
}
static int medium_of(const struct ev_value *v, bool internal) {
    static const int truth[] = {1, 3, 2, 0};
    for (int i = 0; v != NULL && i < 4; i++)
        if (slice_is(v->string, referers[i]))
            return i == 2 && !internal ? 0 : truth[i];
    return -1;
}
static double x_comes(const struct oracle *o, int row, const char *medium) {
    (void)row;
    int is = medium_of(value_in(o->q->context, o->q->n_context, "referer"), false);
    return is < 0 ? (double)NAN : is == atoi(medium);
}
static double x_came(const struct oracle *o, int row, const char *medium) {
    (void)row;
    bool any = false, has = false;
    for (int i = -1; i < EVENTS; i++) {
        const struct ev_event *e = i < 0 ? NULL : &o->w->events[i];
        if (e != NULL &&
            (!o->w->accepted[i] || (e->kind != EV_RANKING && e->kind != EV_INTERACTION) ||
             o->q->user.n == 0 || !slice_equal(e->user, o->q->user) ||
             !slice_equal(e->tenant, o->q->tenant)))
            continue;
        int is = medium_of(e == NULL ? value_in(o->q->context, o->q->n_context, "referer")
                                     : value_in(e->fields, e->n_fields, "referer"),
                           true);
        any |= is >= 0;
        has |= is == atoi(medium);
    }
    return any ? has : (double)NAN;
}
static double x_position(const struct oracle *o, int row, const char *arg) {
    (void)arg;
    return row < o->q->n_placed ? row : 7;
}
static double score_or_year(const struct oracle *o, int row) {
    return isnan(o->q->scores[row]) ? number_of_value(item_field(o, row, "year"))
                                    : (double)o->q->scores[row];
}
static double x_best_of(const struct oracle *o, int row, const char *arg) {
    (void)arg;
    return log1p(score_or_year(o, row)); /* none is below 0 */
}

/* ---- crossed scopes ---- */

static bool is_here(const struct oracle *o, const struct happening *h) {
    return slice_equal(h->e->tenant, o->q->tenant);
}
/* Distinct words of the row's field that the item of `h` bears now, too. */
static int shared_now(const struct oracle *o, int row, const struct happening *h,
                      const char *field) {
    struct slice mine[32], other[32];
    char text[32], text2[32];
    int n = words_of_value(item_field(o, row, field), mine, text), shared = 0;
    int m = words_of_value(newest_field(o, EV_ITEM, h->item, field), other, text2);
    for (int i = 0; i < n; i++) {
        bool again = false, has = false;
        for (int k = 0; k < i; k++)
            again |= slice_equal(mine[i], mine[k]);
        for (int k = 0; k < m; k++)
            has |= slice_equal(mine[i], other[k]);
        shared += has && !again;
    }
    return shared;
}
static bool bears_any(const struct oracle *o, int row, const char *field) {
    struct slice words[32];
    char text[32];
    return words_of_value(item_field(o, row, field), words, text) > 0;
}
static bool in_window(const struct oracle *o, const struct happening *h, int bucket_s,
                      int window_s) {
    int64_t bucket_us = bucket_s * 1000000ll, now = o->q->now_us / bucket_us;
    int64_t bucket = h->e->event_time_us / bucket_us;
    return bucket <= now && bucket > now - (window_s + bucket_s - 1) / bucket_s;
}
static double x_genre_clicks(const struct oracle *o, int row, const char *arg) {
    (void)arg;
    double n = 0;
    for (int i = 0; i < o->n; i++)
        if (is_here(o, &o->all[i]) && is_a(&o->all[i], "click"))
            n += shared_now(o, row, &o->all[i], "genres");
    return bears_any(o, row, "genres") ? n : (double)NAN;
}
static double brand_count(const struct oracle *o, int row, const char *what, int bucket_s,
                          int window_s) {
    double n = 0;
    for (int i = 0; i < o->n; i++)
        if (is_here(o, &o->all[i]) && is_a(&o->all[i], what) &&
            in_window(o, &o->all[i], bucket_s, window_s))
            n += shared_now(o, row, &o->all[i], "brand");
    return bears_any(o, row, "brand") ? n : (double)NAN;
}
static double x_brand_shown(const struct oracle *o, int row, const char *window_s) {
    return brand_count(o, row, "impression", 10, atoi(window_s));
}
static double x_brand_ctr(const struct oracle *o, int row, const char *window_s) {
    double top = 0, bottom = 0;
    for (int i = 0; i < o->n; i++)
        if (is_here(o, &o->all[i]) && in_window(o, &o->all[i], 20, atoi(window_s))) {
            top += is_a(&o->all[i], "click");
            bottom += is_a(&o->all[i], "impression");
        }
    double prior = bottom > 0 ? top / bottom : (double)NAN;
    double mine = brand_count(o, row, "click", 20, atoi(window_s));
    double of = brand_count(o, row, "impression", 20, atoi(window_s));
    if (isnan(prior) || prior == 0)
        return isnan(of) || of == 0 ? (double)NAN : mine / of;
    return (mine + 2) / (of + 2 / prior);
}
static double x_brand_stars(const struct oracle *o, int row, const char *arg) {
    (void)arg;
    double sum = 0, n = 0;
    for (int i = 0; i < o->n; i++) {
        const struct happening *h = &o->all[i];
        if (!is_here(o, h) || !is_a(h, "rating") || isnan(own_value(h)) ||
            shared_now(o, row, h, "brand") == 0)
            continue;
        sum += own_value(h);
        n++;
    }
    return bears_any(o, row, "brand") ? (sum + 10 * 3) / (n + 10) : (double)NAN;
}
/* The brand that the event itself carries: an impression's own first. */
static bool carries(const struct happening *h, const char *field, const struct ev_value *v) {
    const struct ev_value *own = NULL;
    if (h->shown != NULL)
        own = value_in(h->shown->fields, h->shown->n_fields, field);
    if (own == NULL)
        own = value_in(h->e->fields, h->e->n_fields, field);
    return own != NULL && v != NULL && slice_equal(own->string, v->string);
}
static double x_user_brand(const struct oracle *o, int row, const char *arg) {
    (void)arg;
    const struct ev_value *brand = item_field(o, row, "brand");
    double n = 0;
    for (int i = 0; i < o->n; i++)
        n += happened_to(o, &o->all[i], FEAT_SCOPE_USER, row) && is_a(&o->all[i], "any") &&
             carries(&o->all[i], "brand", brand);
    return brand == NULL || o->q->user.n == 0 ? (double)NAN : n;
}
static double x_seen_brand(const struct oracle *o, int row, const char *arg) {
    (void)arg;
    const struct ev_value *brand = item_field(o, row, "brand");
    double n = 0;
    for (int i = 0; i < o->n; i++)
        n += is_here(o, &o->all[i]) && is_a(&o->all[i], "impression") &&
             carries(&o->all[i], "brand", brand);
    return brand == NULL ? (double)NAN : n;
}
static double x_item_query(const struct oracle *o, int row, const char *arg) {
    (void)arg;
    const struct ev_value *query = value_in(o->q->context, o->q->n_context, "query");
    double top = 0, bottom = 0;
    for (int i = 0; i < o->n; i++) {
        if (!happened_to(o, &o->all[i], FEAT_SCOPE_ITEM, row) ||
            !carries(&o->all[i], "query", query))
            continue;
        top += is_a(&o->all[i], "click");
        bottom += is_a(&o->all[i], "impression");
    }
    return bottom > 0 ? top / bottom : (double)NAN;
}
static double x_query_busy(const struct oracle *o, int row, const char *arg) {
    (void)row, (void)arg;
    const struct ev_value *query = value_in(o->q->context, o->q->n_context, "query");
    double n = 0;
    for (int i = 0; i < o->n; i++)
        n += is_here(o, &o->all[i]) && is_a(&o->all[i], "any") &&
             carries(&o->all[i], "query", query) && in_window(o, &o->all[i], 10, 100);
    return query == NULL ? (double)NAN : n;
}
static double x_query_idle(const struct oracle *o, int row, const char *arg) {
    (void)row, (void)arg;
    const struct ev_value *query = value_in(o->q->context, o->q->n_context, "query");
    for (int i = o->n - 1; i >= 0; i--)
        if (happened_to(o, &o->all[i], FEAT_SCOPE_SESSION, -1) && is_a(&o->all[i], "click") &&
            carries(&o->all[i], "query", query))
            return log_seconds(o, (double)o->all[i].e->event_time_us);
    return (double)NAN;
}

/* ---- decay ---- */
/* Halved with every half-life, as a float would do it; of the reader's half-life and before. */
static double decayed(const struct oracle *o, const struct happening *h, double half_life_s) {
    double half_life_us = half_life_s * 1e6, t = (double)h->e->event_time_us;
    double at = floor(t / half_life_us), now = floor((double)o->q->now_us / half_life_us);
    if (at > now || at <= now - 24)
        return 0;
    return exp2(-((double)o->q->now_us - t) / half_life_us);
}
static double decayed_clicks(const struct oracle *o, int row, double half_life_s) {
    double sum = 0;
    for (int i = 0; i < o->n; i++)
        if (happened_to(o, &o->all[i], FEAT_SCOPE_ITEM, row) && is_a(&o->all[i], "click"))
            sum += decayed(o, &o->all[i], half_life_s);
    return sum;
}
static double x_fast(const struct oracle *o, int row, const char *arg) {
    (void)arg;
    return decayed_clicks(o, row, 30);
}
static double x_slow(const struct oracle *o, int row, const char *arg) {
    (void)arg;
    return log1p(decayed_clicks(o, row, 300));
}
static double x_trend(const struct oracle *o, int row, const char *arg) {
    (void)arg;
    return log((decayed_clicks(o, row, 30) * 10 + 1) / (decayed_clicks(o, row, 300) + 1));
}
static double x_brand_heat(const struct oracle *o, int row, const char *arg) {
    (void)arg;
    double sum = 0;
    for (int i = 0; i < o->n; i++)
        if (is_here(o, &o->all[i]) && is_a(&o->all[i], "any"))
            sum += shared_now(o, row, &o->all[i], "brand") * decayed(o, &o->all[i], 100);
    return bears_any(o, row, "brand") ? sum : (double)NAN;
}
