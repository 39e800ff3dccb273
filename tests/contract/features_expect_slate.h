/* Brute-force answers of the kinds that read lists, texts and the other candidates, and the table
 * of everything in features_expect_more.h. */
#pragma once
#include "tests/contract/features_expect_more.h"

/* ---- lists ---- */

/* The user's newest impressions, each item once, newest first. */
static int last_shown(const struct oracle *o, int most, const struct happening **out) {
    int n = 0;
    for (int i = o->n - 1; i >= 0 && n < most; i--) {
        const struct happening *h = &o->by_item[i];
        if (!happened_to(o, h, FEAT_SCOPE_USER, -1) || !is_a(h, "impression"))
            continue;
        bool again = false;
        for (int k = 0; k < n; k++)
            again |= slice_equal(out[k]->item, h->item);
        if (!again)
            out[n++] = h;
    }
    return n;
}
static double x_lately(const struct oracle *o, int row, const char *place) {
    const struct happening *last[4];
    (void)row;
    return last_shown(o, 4, last) < atoi(place)
               ? (double)NAN
               : log_seconds(o, (double)last[atoi(place) - 1]->e->event_time_us);
}
static uint32_t item_row(const struct oracle *o, struct slice item);
static void i_lately(const struct oracle *o, int row, uint32_t *out) {
    const struct happening *last[4];
    (void)row;
    int n = last_shown(o, 4, last);
    for (int i = 0; i < n && i < 3; i++)
        out[i] = item_row(o, last[i]->item);
}

/* Did the user rate the item among their newest five ratings? */
static bool has_in_list(const struct oracle *o, struct slice user, struct slice item) {
    int seen = 0;
    for (int i = o->n - 1; i >= 0 && seen < 5; i--) {
        const struct happening *h = &o->by_item[i];
        if (!is_here(o, h) || !is_a(h, "rating") || !slice_equal(h->e->user, user))
            continue;
        seen++;
        if (slice_equal(h->item, item))
            return true;
    }
    return false;
}
/* Of the other users among the item's newest four ratings, the part that rated the candidate. */
static double part_with(const struct oracle *o, struct slice item, struct slice candidate) {
    struct slice users[4];
    int raters = 0, n = 0, with = 0;
    for (int i = o->n - 1; i >= 0 && raters < 4; i--) {
        const struct happening *h = &o->by_user[i];
        if (!is_here(o, h) || !is_a(h, "rating") || !slice_equal(h->item, item))
            continue;
        raters++;
        bool again = slice_equal(h->e->user, o->q->user);
        for (int k = 0; k < n; k++)
            again |= slice_equal(users[k], h->e->user);
        if (again)
            continue;
        users[n++] = h->e->user;
        with += !slice_equal(item, candidate) && has_in_list(o, h->e->user, candidate);
    }
    return n == 0 ? 0 : (double)with / n;
}
static double x_others(const struct oracle *o, int row, const char *how) {
    const struct happening *last[5];
    struct slice own[3];
    int n = last_ratings(o, FEAT_SCOPE_USER, 5, last), n_own = 0;
    double sum = 0, best = 0;
    for (int i = 0; i < n && n_own < 3; i++) {
        bool again = false;
        for (int k = 0; k < n_own; k++)
            again |= slice_equal(own[k], last[i]->item);
        if (again)
            continue;
        own[n_own++] = last[i]->item;
        double part = part_with(o, last[i]->item, o->q->items[row]);
        sum += part;
        best = fmax(best, part);
    }
    return n_own == 0 ? (double)NAN : strcmp(how, "best") == 0 ? best : sum / n_own;
}

/* arg: "genres hits" */
static double x_likes(const struct oracle *o, int row, const char *arg) {
    const struct happening *last[5];
    char field[8] = {0};
    const char *how = strchr(arg, ' ') + 1;
    memcpy(field, arg, (size_t)(how - arg - 1));
    struct slice mine[32];
    char text[32];
    int n = last_ratings(o, FEAT_SCOPE_USER, 5, last), kept = 0, hits = 0, count = 0;
    int n_mine = words_of_value(item_field(o, row, field), mine, text);
    int bears[32] = {0}, most = 0;
    double age = NAN, oldest_s = 0;
    if (o->q->user.n == 0 || n_mine == 0)
        return (double)NAN;
    for (int i = 0; i < n; i++) {
        double seconds = ((double)o->q->now_us - (double)last[i]->e->event_time_us) / 1e6;
        if (seconds >= 200)
            continue;
        kept++;
        oldest_s = fmax(seconds, 0);
        int shared = 0;
        for (int k = 0; k < n_mine; k++) {
            struct ev_value one = {EV_STRING, .string = mine[k]};
            shared += share_a_word(&one, newest_field(o, EV_ITEM, last[i]->item, field));
        }
        hits += shared;
        count += shared > 0;
        for (int k = 0; k < n_mine; k++) {
            struct ev_value one = {EV_STRING, .string = mine[k]};
            bears[k] += share_a_word(&one, newest_field(o, EV_ITEM, last[i]->item, field));
            most = bears[k] > most ? bears[k] : most;
        }
        if (shared > 0 && isnan(age))
            age = log_seconds(o, (double)last[i]->e->event_time_us);
    }
    return strcmp(how, "hits") == 0     ? hits
           : strcmp(how, "count") == 0  ? count
           : strcmp(how, "most") == 0   ? most
           : strcmp(how, "daily") == 0  ? count / fmax(oldest_s / 86400, 1)
           : kept == 0                  ? (double)NAN
           : strcmp(how, "age") == 0    ? age
           : strcmp(how, "weight") == 0 ? (double)hits / (n_mine * kept)
                                        : (double)count / kept;
}

/* arg: column, weight of the prior, "log" */
static double x_habit(const struct oracle *o, int row, const char *arg) {
    const struct happening *last[5];
    bool log = strstr(arg, "log") != NULL;
    double prior = log ? 0 : 1992, weight = log ? 0 : 2;
    double sum = prior * weight, count = weight;
    for (int i = 0, n = last_ratings(o, FEAT_SCOPE_USER, 5, last); i < n; i++) {
        double v = number_of_value(newest_field(o, EV_ITEM, last[i]->item, "year"));
        if (isnan(v))
            continue;
        sum += log ? log1p(v) : v;
        count++;
    }
    double v = number_of_value(item_field(o, row, "year")), mean = sum / count;
    v = log ? log1p(v) : v;
    if (o->q->user.n == 0 || count == 0)
        return (double)NAN;
    return arg[0] == 'm' ? mean : arg[0] == 'd' ? v - mean : (mean - prior) * (v - prior);
}

/* ---- the slate ---- */

/* how: of v[row] beside the first `top` values that are there */
static double beside(const double *v, int n, int row, int top, const char *how) {
    double kept[16], sum = 0, squares = 0, least = INFINITY, most = -INFINITY;
    int m = 0, less = 0, equal = 0;
    for (int i = 0; i < n && m < top; i++)
        if (!isnan(v[i]))
            kept[m++] = v[i];
    if (isnan(v[row]) || m == 0)
        return (double)NAN;
    for (int i = 0; i < m; i++) {
        for (int k = i; k > 0 && kept[k] < kept[k - 1]; k--) {
            double swap = kept[k];
            kept[k] = kept[k - 1];
            kept[k - 1] = swap;
        }
    }
    for (int i = 0; i < m; i++) {
        sum += kept[i];
        squares += kept[i] * kept[i];
        least = fmin(least, kept[i]);
        most = fmax(most, kept[i]);
        less += kept[i] < v[row];
        equal += kept[i] == v[row];
    }
    double mean = sum / m, variance = squares / m - mean * mean;
    double median = m % 2 == 1 ? kept[m / 2] : (kept[m / 2 - 1] + kept[m / 2]) / 2;
    int others = m - (equal > 0);
    if (strcmp(how, "rank") == 0)
        return others < 1 ? 0.5 : (less + (equal > 0 ? (equal - 1) / 2.0 : 0)) / others;
    return strcmp(how, "min") == 0      ? v[row] - least
           : strcmp(how, "max") == 0    ? v[row] - most
           : strcmp(how, "median") == 0 ? v[row] - median
           : least == most              ? 0
                                        : (v[row] - mean) / sqrt(variance);
}
static double x_beside(const struct oracle *o, int row, const char *how) {
    double v[16];
    for (int i = 0; i < o->q->n_items; i++)
        v[i] = score_or_year(o, i);
    return beside(v, o->q->n_items, row, 16, how);
}
static double x_beside_ctr(const struct oracle *o, int row, const char *how) {
    double v[16];
    for (int i = 0; i < o->q->n_items; i++)
        v[i] = (double)(float)x_brand_ctr(o, i, "200");
    return beside(v, o->q->n_items, row, 5, how);
}
static double x_price_diff(const struct oracle *o, int row, const char *how) {
    double v[16];
    for (int i = 0; i < o->q->n_items; i++)
        v[i] = number_of_value(item_field(o, i, "year"));
    return beside(v, o->q->n_items, row, 4, how);
}
static double x_genre_diff(const struct oracle *o, int row, const char *arg) {
    struct slice mine[32], other[32];
    char text[32], text2[32];
    int n = words_of_value(item_field(o, row, "genres"), mine, text);
    double shared = 0, total = 0;
    (void)arg;
    for (int i = 0; i < o->q->n_items; i++) {
        int m = words_of_value(item_field(o, i, "genres"), other, text2);
        total += m;
        for (int k = 0; k < m; k++)
            for (int h = 0; h < n; h++)
                shared += slice_equal(mine[h], other[k]);
    }
    return n == 0 ? (double)NAN : shared / total;
}

/* ---- texts ---- */

static void add_token(struct tokens *t, const char *word, size_t n) {
    char buf[16] = {0};
    memcpy(buf, word, n);
    for (int i = 0; i < t->n; i++)
        if (strcmp(t->word[i], buf) == 0)
            return;
    memcpy(t->word[t->n++], buf, sizeof buf);
}
/* Distinct words, or distinct pairs of letters within words. */
static void distinct_of(const struct ev_value *v, int letters, struct tokens *out) {
    struct tokens all;
    tokens_of(v, &all);
    out->n = 0;
    for (int i = 0; i < all.n; i++) {
        size_t n = strlen(all.word[i]), run = letters == 0 || n < 2 ? n : 2;
        for (size_t k = 0; k + run <= n; k++)
            add_token(out, all.word[i] + k, run);
    }
}
static double overlap(const struct oracle *o, int row, int letters, const char *how) {
    const struct ev_value *query = value_in(o->q->context, o->q->n_context, "query");
    struct tokens a, b;
    int shared = 0;
    distinct_of(query, letters, &a);
    distinct_of(item_field(o, row, "title"), letters, &b);
    if (a.n == 0 || b.n == 0)
        return (double)NAN;
    for (int i = 0; i < a.n; i++)
        for (int k = 0; k < b.n; k++)
            shared += strcmp(a.word[i], b.word[k]) == 0;
    return strcmp(how, "query") == 0 ? (double)shared / a.n : (double)shared / (a.n + b.n - shared);
}
static double x_title(const struct oracle *o, int row, const char *how) {
    return overlap(o, row, 0, how);
}
static double x_letters(const struct oracle *o, int row, const char *how) {
    return overlap(o, row, 2, how);
}
/* By the textbook, over the titles of all items as they are now. */
static double x_bm25(const struct oracle *o, int row, const char *arg) {
    const struct ev_value *query = value_in(o->q->context, o->q->n_context, "query");
    struct tokens sought, mine, title;
    double items = 0, length = 0, with[64] = {0}, score = 0;
    (void)arg;
    distinct_of(query, 0, &sought);
    tokens_of(item_field(o, row, "title"), &mine);
    if (sought.n == 0 || mine.n == 0)
        return (double)NAN;
    for (uint32_t i = 0; i < 12; i++) {
        char name[8];
        snprintf(name, sizeof name, "i%u", i);
        tokens_of(newest_field(o, EV_ITEM, slice_of(name), "title"), &title);
        items += title.n > 0;
        length += title.n;
        for (int s = 0; s < sought.n; s++) {
            bool has = false;
            for (int k = 0; k < title.n; k++)
                has |= strcmp(title.word[k], sought.word[s]) == 0;
            with[s] += has;
        }
    }
    for (int s = 0; s < sought.n; s++) {
        double times = 0;
        for (int k = 0; k < mine.n; k++)
            times += strcmp(mine.word[k], sought.word[s]) == 0;
        score += log(1 + (items - with[s] + 0.5) / (with[s] + 0.5)) * times * 2.2 /
                 (times + 1.2 * (0.25 + 0.75 * mine.n / (length / items)));
    }
    return score;
}

#define MORE_COLUMNS                                                                               \
    {"adult", x_adult, ""}, {"sizes.first", x_sizes, "first"}, {"sizes.last", x_sizes, "last"},    \
        {"sizes.min", x_sizes, "min"}, {"sizes.max", x_sizes, "max"},                              \
        {"sizes.avg", x_sizes, "avg"}, {"sizes.sum", x_sizes, "sum"},                              \
        {"sizes.size", x_sizes, "size"}, {"sizes.norm", x_sizes, "norm"},                          \
        {"sizes.0", x_sizes, "0"}, {"sizes.1", x_sizes, "1"}, {"n_sizes", x_sizes, "n"},           \
        {"n_title", x_n_title, ""}, {"wait", x_wait, ""}, {"now.hour", x_now, "hour"},             \
        {"now.weekday", x_now, "weekday"}, {"now.weekend", x_now, "weekend"},                      \
        {"now.day", x_now, "day"}, {"now.month", x_now, "month"}, {"now.year", x_now, "year"},     \
        {"local.hour.sin", x_local, "hour.sin"}, {"local.hour.cos", x_local, "hour.cos"},          \
        {"local.weekday.sin", x_local, "weekday.sin"},                                             \
        {"local.weekday.cos", x_local, "weekday.cos"}, {"local.month.sin", x_local, "month.sin"},  \
        {"local.month.cos", x_local, "month.cos"}, {"there.hour", x_local, "hour"},                \
        {"there.weekday", x_local, "weekday"}, {"there.weekend", x_local, "weekend"},              \
        {"there.day", x_local, "day"}, {"there.month", x_local, "month"},                          \
        {"there.year", x_local, "year"}, {"agent.platform.desktop", x_agent, "desktop"},           \
        {"agent.platform.mobile", x_agent, "mobile"},                                              \
        {"agent.platform.tablet", x_agent, "tablet"},                                              \
        {"agent.platform.other", x_agent, "platform-other"},                                       \
        {"agent.os.windows", x_agent, "windows"}, {"agent.os.macos", x_agent, "macos"},            \
        {"agent.os.linux", x_agent, "linux"}, {"agent.os.chromeos", x_agent, "chromeos"},          \
        {"agent.os.android", x_agent, "android"}, {"agent.os.ios", x_agent, "ios"},                \
        {"agent.os.other", x_agent, "os-other"}, {"agent.browser.chrome", x_agent, "chrome"},      \
        {"agent.browser.safari", x_agent, "safari"},                                               \
        {"agent.browser.firefox", x_agent, "firefox"}, {"agent.browser.edge", x_agent, "edge"},    \
        {"agent.browser.opera", x_agent, "opera"}, {"agent.browser.samsung", x_agent, "samsung"},  \
        {"agent.browser.ie", x_agent, "-ie-"}, {"agent.browser.other", x_agent, "browser-other"},  \
        {"agent.bot", x_agent, "bot"}, {"came.unknown", x_came, "0"},                              \
        {"came.search", x_came, "1"}, {"came.internal", x_came, "2"},                              \
        {"came.social", x_came, "3"}, {"came.email", x_came, "4"}, {"came.paid", x_came, "5"},     \
        {"comes.unknown", x_comes, "0"}, {"comes.search", x_comes, "1"},                           \
        {"comes.internal", x_comes, "2"}, {"comes.social", x_comes, "3"},                          \
        {"comes.email", x_comes, "4"}, {"comes.paid", x_comes, "5"}, {"position", x_position, ""}, \
        {"best_of", x_best_of, ""}, {"fast", x_fast, ""}, {"slow", x_slow, ""},                    \
        {"trend", x_trend, ""}, {"brand_heat", x_brand_heat, ""},                                  \
        {"genre_clicks", x_genre_clicks, ""}, {"brand_shown.50s", x_brand_shown, "50"},            \
        {"brand_shown.200s", x_brand_shown, "200"}, {"brand_ctr.1m", x_brand_ctr, "60"},           \
        {"brand_ctr.200s", x_brand_ctr, "200"}, {"brand_stars", x_brand_stars, ""},                \
        {"user_brand", x_user_brand, ""}, {"seen_brand", x_seen_brand, ""},                        \
        {"item_query", x_item_query, ""}, {"query_busy.100s", x_query_busy, ""},                   \
        {"query_idle", x_query_idle, ""}, {"lately.1", x_lately, "1"},                             \
        {"lately.2", x_lately, "2"}, {"lately.3", x_lately, "3"},                                  \
        {"others.mean", x_others, "mean"}, {"others.best", x_others, "best"},                      \
        {"likes.genres.hits", x_likes, "genres hits"},                                             \
        {"likes.genres.count", x_likes, "genres count"},                                           \
        {"likes.genres.age", x_likes, "genres age"},                                               \
        {"likes.genres.daily", x_likes, "genres daily"},                                           \
        {"likes.genres.share", x_likes, "genres share"},                                           \
        {"likes.genres.most", x_likes, "genres most"},                                             \
        {"counts.genres.most", x_likes, "genres most"},                                            \
        {"counts.genres.hits", x_likes, "genres hits"},                                            \
        {"counts.genres.weight", x_likes, "genres weight"},                                        \
        {"counts.brand.most", x_likes, "brand most"},                                              \
        {"counts.brand.hits", x_likes, "brand hits"},                                              \
        {"counts.brand.weight", x_likes, "brand weight"},                                          \
        {"likes.brand.most", x_likes, "brand most"}, {"years.mean", x_habit, "mean"},              \
        {"years.diff", x_habit, "diff"}, {"years.lean", x_habit, "lean"},                          \
        {"years_log.mean", x_habit, "mean log"}, {"years_log.diff", x_habit, "diff log"},          \
        {"years_log.lean", x_habit, "lean log"}, {"likes.brand.hits", x_likes, "brand hits"},      \
        {"likes.brand.count", x_likes, "brand count"}, {"likes.brand.age", x_likes, "brand age"},  \
        {"likes.brand.daily", x_likes, "brand daily"},                                             \
        {"likes.brand.share", x_likes, "brand share"}, {"beside.min", x_beside, "min"},            \
        {"beside.max", x_beside, "max"}, {"beside.median", x_beside, "median"},                    \
        {"beside.rank", x_beside, "rank"}, {"beside.z", x_beside, "z"},                            \
        {"beside_ctr.rank", x_beside_ctr, "rank"}, {"beside_ctr.median", x_beside_ctr, "median"},  \
        {"price_diff", x_price_diff, "median"}, {"genre_diff", x_genre_diff, ""},                  \
        {"title.union", x_title, "union"}, {"title.query", x_title, "query"},                      \
        {"letters.union", x_letters, "union"}, {"letters.query", x_letters, "query"},              \
        {"bm25", x_bm25, ""},
