/* propose_write.c: settings out of what was counted. The rules are few and said beside each line
 * they write, since a first plan is there to be read and changed:
 *   few words are columns, many are embeddings; numbers that span far are logarithms;
 *   moments are ages; texts of several words are lengths; each type of interaction has a rate, a
 *   count in windows that fit the stream's length, and a task. */
#include <math.h>
#include <stdio.h>
#include "base/node.h"
#include "tools/propose.h"

enum { FEW_WORDS = 12, NUMBERS_MIN = 8, MATCHES_MAX = 3 };

static bool mostly(int64_t part, const struct propose_field *f) { return part * 10 > f->n * 9; }

static void quote(struct buf *out, const char *text) {
    struct json j;
    json_begin(&j, out);
    json_cstr(&j, text);
}

/* A name that settings take: the field's, with what it is of where two would be alike. */
static const char *name_of(struct propose *p, const char *of, const char *name) {
    char *s = arena_printf(&p->a, "%s_%s", of, name);
    for (char *c = s; *c != '\0'; c++)
        if (!((*c | 32) >= 'a' && (*c | 32) <= 'z') && !(*c >= '0' && *c <= '9') && *c != '-')
            *c = '_';
    return s;
}

static int rows_of(int64_t distinct) {
    int rows = 16;
    while (rows < 4 * distinct && rows < 1 << 20)
        rows *= 2;
    return rows;
}

static int dim_of(int64_t distinct) { return distinct < 64 ? 4 : distinct < 2000 ? 8 : 16; }

/* ---- fields -----------------------------------------------------------------------------------
 */

static void write_words(struct propose *p, const struct propose_field *f, const char *name,
                        const char *source, struct buf *out) {
    (void)p;
    int slots = f->lists > 0 ? 3 : 1;
    buf_printf(out, "  - {name: %s, kind: category, source: ", name);
    quote(out, source);
    if (f->n_distinct <= FEW_WORDS) {
        buf_add_str(out, ", encode: onehot, values: [");
        for (int i = 0; i < f->n_distinct; i++) {
            quote(out, f->word[i]);
            buf_add_str(out, i + 1 < f->n_distinct ? ", " : "]}\n");
        }
        return;
    }
    buf_printf(out, ", hash: %d, embed: %d", rows_of(f->n_distinct), dim_of(f->n_distinct));
    buf_printf(out, slots > 1 ? ", slots: %d}\n" : "}\n", slots);
}

static void write_number(const struct propose_field *f, const char *name, const char *source,
                         struct buf *out) {
    bool is_time = f->least > 5e8 && f->most < 5e9 && strcmp(f->of, "shown") != 0;
    bool wide = f->least >= 0 && f->most > 50 * fmax(f->least, 1);
    buf_printf(out, "  - {name: %s, kind: %s, source: ", name, is_time ? "time_since" : "number");
    quote(out, source);
    buf_add_str(out, wide && !is_time ? ", scale: log}\n" : "}\n");
}

static void write_field(struct propose *p, const struct propose_field *f, struct buf *out) {
    static const char *const from[][2] = {
        {"item", "item"}, {"user", "user"}, {"ranking", "context"}, {"shown", "candidate"}};
    const char *source = NULL, *name = name_of(p, f->of, f->name);
    for (int i = 0; i < 4; i++)
        if (strcmp(f->of, from[i][0]) == 0)
            source = arena_printf(&p->a, "%s.%s", from[i][1], f->name);
    bool text = mostly(f->texts + f->lists, f), shown = strcmp(f->of, "shown") == 0;
    if (source == NULL || f->n == 0 || strchr(f->name, ' ') != NULL)
        return;
    if (mostly(f->numbers, f) && (f->n_distinct >= NUMBERS_MIN || shown))
        write_number(f, name, source, out);
    else if (shown)
        return; /* a request's columns are numbers */
    else if (mostly(f->flags, f))
        buf_printf(out, "  - {name: %s, kind: boolean, source: \"%s\"}\n", name, source);
    else if (mostly(f->moments, f))
        buf_printf(out, "  - {name: %s, kind: time_since, source: \"%s\"}\n", name, source);
    else if (mostly(f->vectors, f))
        buf_printf(out, "  - {name: %s, kind: vector, source: \"%s\"}\n", name, source);
    else if (mostly(f->texts, f) && f->words > 2 * f->texts)
        buf_printf(out, "  - {name: %s, kind: word_count, source: \"%s\"}\n", name, source);
    else if ((text || mostly(f->numbers, f)) && f->n_distinct < PROPOSE_DISTINCT)
        write_words(p, f, name, source, out);
}

/* ---- interactions -----------------------------------------------------------------------------
 */

/* Two windows that the stream is long enough for. */
static void windows_of(const struct propose *p, const char **bucket, const char **windows) {
    double days = (double)(p->last_us - p->first_us) / 86400e6;
    *bucket = days >= 14 ? "1d" : days >= 2 ? "6h" : "10m";
    *windows = days >= 14 ? "[1d, 7d]" : days >= 2 ? "[6h, 1d]" : "[1h, 6h]";
}

static void write_type(struct propose *p, int t, const char *bottom, struct buf *out) {
    const struct propose_type *type = &p->types[t];
    const char *bucket, *windows, *name = name_of(p, "", type->name) + 1;
    windows_of(p, &bucket, &windows);
    if (strcmp(bottom, type->name) != 0) {
        buf_printf(out, "  - {name: item_%s_rate, kind: rate, scope: item, top: ", name);
        quote(out, type->name);
        buf_add_str(out, ", bottom: ");
        quote(out, bottom);
        buf_add_str(out, "}\n");
    }
    buf_printf(out, "  - {name: item_%s_lately, kind: window_count, scope: item, on: ", name);
    quote(out, type->name);
    buf_printf(out, ", bucket: %s, windows: %s, scale: log}\n", bucket, windows);
    buf_printf(out, "  - {name: user_%s, kind: count, scope: user, on: ", name);
    quote(out, type->name);
    buf_add_str(out, ", scale: log}\n");
    static const char *const scopes[] = {"item", "user"};
    for (int i = 0; type->has_value && i < 2; i++) {
        buf_printf(out, "  - {name: %s_%s_mean, kind: mean, scope: %s, on: ", scopes[i], name,
                   scopes[i]);
        quote(out, type->name);
        buf_add_str(out, ", value_field: value}\n");
    }
}

static int most_frequent(const struct propose *p) {
    int best = 0;
    for (int t = 1; t < p->n_types; t++)
        if (p->types[t].n > p->types[best].n)
            best = t;
    return best;
}

/* The user's last items of the most frequent type, and what they share with the candidate. */
static void write_history(struct propose *p, int t, struct buf *out) {
    int64_t n_items = (int64_t)p->items.n;
    buf_printf(
        out, "  - {name: item, kind: category, source: item.id, hash: %d, embed: 8, table: item}\n",
        rows_of(n_items));
    buf_add_str(out, "  - {name: last, kind: last_n, on: ");
    quote(out, p->types[t].name);
    buf_add_str(out, ", n: 20, embed: true, table: item}\n");
    int matches = 0;
    for (int i = 0; i < p->n_fields && matches < MATCHES_MAX; i++) {
        const struct propose_field *f = &p->fields[i];
        bool words = strcmp(f->of, "item") == 0 && (mostly(f->lists, f) || mostly(f->texts, f)) &&
                     f->words <= 2 * f->texts && f->n_distinct * 4 < n_items &&
                     strchr(f->name, ' ') == NULL;
        if (!words)
            continue;
        buf_printf(
            out, "  - {name: last_%s, kind: match, of: last, field: ", name_of(p, "", f->name) + 1);
        quote(out, f->name);
        buf_add_str(out, "}\n");
        matches++;
    }
}

/* A task of each type; one that nearly always follows another is learnt from what had that. */
static void write_tasks(struct propose *p, int first, bool lists, struct buf *out) {
    buf_add_str(out, "tasks:\n");
    for (int t = 0; t < p->n_types; t++) {
        const struct propose_type *type = &p->types[t];
        bool follows = t != first && type->after[first] * 10 >= type->n * 9;
        if (t != first && type->n < 20)
            continue;
        buf_printf(out, "  - {name: %s, positive: ", name_of(p, "", type->name) + 1);
        if (type->has_value && !lists && type->n_values > 0)
            quote(out, arena_printf(&p->a, "%s where value >= %.4g", type->name,
                                    type->value_sum / (double)type->n_values));
        else
            quote(out, type->name);
        if (follows && lists) {
            buf_add_str(out, ", given: ");
            quote(out, p->types[first].name);
        }
        if (!lists && !type->has_value)
            buf_add_str(out, ", space: all");
        buf_add_str(out, "}\n");
    }
}

enum status propose_write(struct propose *p, struct buf *out) {
    if (p->n_types == 0)
        return fail(STATUS_FAILED_PRECONDITION,
                    "no interaction among %lld events: nothing to learn from",
                    (long long)p->events);
    int first = most_frequent(p);
    bool lists = p->rankings > 0 && p->types[first].joined * 2 > p->types[first].n;
    buf_printf(out,
               "# Proposed by moerank autofeature from %lld events: %llu users, %llu items, %lld "
               "lists. A start: docs/features.md.\n"
               "kafka: {brokers: \"\"}\nstate: {snapshot: \"\"}\nlateness: 1h\nfeatures:\n",
               (long long)p->events, (unsigned long long)p->users.n, (unsigned long long)p->items.n,
               (long long)p->rankings);
    for (int i = 0; i < p->n_fields; i++)
        write_field(p, &p->fields[i], out);
    for (int t = 0; t < p->n_types; t++)
        if (p->types[t].n >= 20 || t == first)
            write_type(p, t, lists ? "impression" : p->types[first].name, out);
    write_history(p, first, out);
    if (lists)
        buf_printf(out, "  - {name: position, kind: position, serving: %lld}\n",
                   (long long)(p->shown / p->rankings / 3));
    bool ask = !lists && !p->types[first].has_value;
    buf_add_str(out, lists ? "examples: {from: ranking, window: 30m}\n" : "examples: {from: ");
    if (!lists) {
        quote(out, p->types[first].name);
        buf_add_str(out, ask ? ", negatives: 4}\n" : "}\n");
    }
    write_tasks(p, first, lists, out);
    buf_add_str(out, "model:\n"
                     "  numbers: {encode: [value, ple], bins: 8}\n"
                     "  layers:\n"
                     "    - {kind: mmoe, experts: 4, expert: {kind: mlp, hidden: [32], out: 16}}\n"
                     "  tower: {hidden: []}\n"
                     "  wide: true\n"
                     "train: {epochs: 3, batch_rows: 1024, rate: 0.003}\n");
    return STATUS_OK;
}
