/* survey_report.c: a survey in words. What the plan reads is told from its own canonical text: its
 * sources ("item.price"), its conditions ("rating where value >= 4") and its remembered fields. */
#include <math.h>
#include "base/heap.h"
#include "tools/survey.h"

static double share(int64_t part, int64_t whole) {
    return whole ? (double)part / (double)whole : NAN;
}

static void report_reasons(struct survey *s, struct report *r) {
    tally_sort(&s->reasons);
    report_table(r, "bad_lines", (const char *const[]){"count", "lines", "reason", NULL});
    for (int i = 0; i < s->reasons.n; i++) {
        const struct tally_entry *e = &s->reasons.entries[i];
        struct buf places = {0};
        for (int k = 0; k < TALLY_PLACES && e->places[k]; k++)
            buf_printf(&places, "%s%lld", k ? ", " : "", (long long)e->places[k]);
        if (e->count > TALLY_PLACES)
            buf_add_str(&places, ", ...");
        report_int(r, NULL, e->count);
        report_str(r, NULL, buf_slice(&places));
        report_cstr(r, NULL, e->word);
        buf_deinit(&places);
    }
    report_table_end(r);
}

static void report_times(const struct survey *s, struct report *r) {
    int64_t good = s->lines - s->bad;
    report_time(r, "first_us", s->first_us);
    report_time(r, "last_us", s->last_us);
    report_num(r, "out_of_order_share", share(s->out_of_order, good), 4);
    report_num(r, "furthest_behind_s", (double)s->behind_max_us * 1e-6, 3);
    if (s->plan)
        report_num(r, "too_late_share", share(s->too_late, good), 4);
    report_int(r, "too_far_ahead", s->too_far_ahead);
    report_int(r, "interactions", s->interactions);
    report_num(r, "on_unseen_items_share", share(s->on_unseen_items, s->interactions), 4);
    report_num(r, "with_ranking_share", share(s->with_ranking, s->interactions), 4);
    report_num(r, "naming_nobody_share", share(s->of_nobody, s->interactions), 4);
    report_num(r, "ranking_found_share", share(s->joined, s->with_ranking), 4);
    report_num(r, "ranking_of_same_key_share", share(s->same_key, s->with_ranking), 4);
    report_num(r, "item_was_shown_share", share(s->joined_item, s->with_ranking), 4);
}

/* ---- fields against the plan ------------------------------------------------------------------
 */

static void add_word(struct tally *t, const char *of, struct slice field) {
    struct buf word = {0};
    buf_printf(&word, "%s.%.*s", of, SLICE_ARG(field));
    if (!tally_find(t, buf_slice(&word)))
        tally_add(t, buf_slice(&word), 0);
    buf_deinit(&word);
}

/* "candidate.F" is a shown item's field in events, "context.F" the ranking's. */
static void read_by_text(struct tally *t, struct slice text) {
    static const char *const from[][2] = {
        {"item.", "item"}, {"user.", "user"}, {"context.", "ranking"}, {"candidate.", "shown"}};
    for (int k = 0; k < 4; k++) {
        size_t n = strlen(from[k][0]);
        if (text.n > n && memcmp(text.p, from[k][0], n) == 0)
            add_word(t, from[k][1], (struct slice){text.p + n, text.n - n});
    }
    static const char where[] = " where ";
    for (size_t i = 0; i + sizeof where <= text.n; i++)
        if (memcmp(text.p + i, where, sizeof where - 1) == 0) {
            struct slice field = {text.p + i + sizeof where - 1, 0};
            while (field.p + field.n < text.p + text.n && !strchr(" =!<>", field.p[field.n]))
                field.n++;
            add_word(t, "interaction", field);
        }
}

static void read_by_tree(struct tally *t, const struct node *n) {
    if (n->type == NODE_STRING)
        read_by_text(t, n->text);
    for (const struct node *c = n->first; c; c = c->next)
        read_by_tree(t, c);
}

static void read_by_plan(const struct feat_plan *p, struct tally *out) {
    struct arena a;
    struct node *root;
    arena_init(&a, 0);
    if (node_parse_json(&a, slice_of(p->json), "plan", &root) == STATUS_OK)
        read_by_tree(out, root);
    for (int i = 0; i < p->n_fields[FEAT_SCOPE_ITEM]; i++)
        add_word(out, "item", p->fields[FEAT_SCOPE_ITEM][i].name);
    for (int i = 0; i < p->n_fields[FEAT_SCOPE_USER]; i++)
        add_word(out, "user", p->fields[FEAT_SCOPE_USER][i].name);
    arena_deinit(&a);
}

static void report_fields(struct survey *s, struct report *r) {
    struct tally reads = {0};
    if (s->plan)
        read_by_plan(s->plan, &reads);
    tally_sort(&s->fields);
    report_table(r, "fields", (const char *const[]){"field", "count", "plan", NULL});
    for (int i = 0; i < s->fields.n; i++) {
        const struct tally_entry *e = &s->fields.entries[i];
        bool read = tally_find(&reads, slice_of(e->word));
        report_cstr(r, NULL, e->word);
        report_int(r, NULL, e->count);
        report_cstr(r, NULL, !s->plan ? "" : read ? "read" : "not read");
    }
    for (int i = 0; i < reads.n; i++) {
        const char *word = reads.entries[i].word;
        bool id = slice_is(slice_of(word), "item.id") || slice_is(slice_of(word), "user.id");
        if (id || tally_find(&s->fields, slice_of(word)))
            continue;
        report_cstr(r, NULL, word);
        report_int(r, NULL, 0);
        report_cstr(r, NULL, "read, never seen");
    }
    report_table_end(r);
    tally_deinit(&reads);
}

static void report_missing(const struct survey *s, struct report *r) {
    static const char *const sides[] = {"user", "context", "item", "cross"};
    report_int(r, "rows_made", s->n_rows);
    report_table(r, "features", (const char *const[]){"feature", "kind", "side", "missing", NULL});
    for (int k = 0; k < s->plan->n_features; k++) {
        const struct feat *f = s->plan->features[k];
        bool query = f->side == FEAT_USER || f->side == FEAT_CONTEXT;
        bool gives = f->n_columns || f->n_slots; /* some only keep state for others */
        int64_t of = query ? s->n_query : s->n_rows;
        report_cstr(r, NULL, f->name);
        report_cstr(r, NULL, f->kind->name);
        report_cstr(r, NULL, sides[f->side]);
        report_num(r, NULL, gives ? share(s->missing[k], of) : NAN, 4);
    }
    report_table_end(r);
}

/* Bytes of a feature's cells, per entity that the feature is about, and time per request and row.
 */
static void report_costs(const struct survey *s, struct report *r) {
    uint64_t *cells = HEAP_ARRAY(uint64_t, s->plan->n_features + 1);
    feat_state_cell_bytes(s->state, cells);
    report_table(r, "costs",
                 (const char *const[]){"feature", "bytes", "us_per_request", "us_per_row", NULL});
    for (int k = 0; k < s->plan->n_features; k++) {
        const struct feat *f = s->plan->features[k];
        struct feat_scope_bytes b = {0};
        if (f->n_cells > 0)
            b = feat_state_scope_bytes(s->state, f->cells[0].scope);
        double us = (double)s->ns[k] * 1e-3;
        report_cstr(r, NULL, f->name);
        report_num(r, NULL, b.entities ? (double)cells[k] / (double)b.entities : 0, 1);
        report_num(r, NULL, s->n_query ? us / (double)s->n_query : NAN, 3);
        report_num(r, NULL, s->n_rows ? us / (double)s->n_rows : NAN, 4);
    }
    report_table_end(r);
    heap_free(cells);
}

void survey_report(struct survey *s, struct report *r) {
    report_int(r, "lines", s->lines);
    report_int(r, "events", s->lines - s->bad);
    report_int(r, "bad", s->bad);
    if (s->bad)
        report_reasons(s, r);
    tally_sort(&s->kinds);
    report_table(r, "kinds", (const char *const[]){"kind", "count", NULL});
    for (int i = 0; i < s->kinds.n; i++) {
        report_cstr(r, NULL, s->kinds.entries[i].word);
        report_int(r, NULL, s->kinds.entries[i].count);
    }
    report_table_end(r);
    if (s->first_us)
        report_times(s, r);
    report_fields(s, r);
    if (s->plan)
        report_missing(s, r);
    if (s->ns)
        report_costs(s, r);
}
