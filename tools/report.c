/* report.c: one sequence of calls, two forms. JSON goes out as it comes; a text table waits until
 * all of its cells are known, because its columns are as wide as their widest cell.
 *
 * Deliberately without colours, paging or locale. */
#include "tools/report.h"
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

void report_begin(struct report *r, bool as_json) {
    *r = (struct report){.as_json = as_json};
    if (as_json) {
        json_begin(&r->json, &r->out);
        json_object(&r->json);
    }
}

enum status report_end(struct report *r, void *file) {
    if (r->as_json) {
        json_object_end(&r->json);
        buf_add_byte(&r->out, '\n');
    }
    size_t written = fwrite(r->out.p, 1, r->out.n, file);
    bool good = written == r->out.n && fflush(file) == 0;
    report_drop(r);
    if (!good)
        return fail(STATUS_UNKNOWN, "the result could not be written");
    return STATUS_OK;
}

void report_drop(struct report *r) {
    buf_deinit(&r->out);
    buf_deinit(&r->cells);
}

/* ---- text -------------------------------------------------------------------------------------
 */

static void add_key(struct report *r, const char *key, size_t width) {
    size_t n = strlen(key);
    buf_printf(&r->out, "%*s", 2 * r->depth, "");
    for (size_t i = 0; i < n; i++)
        buf_add_byte(&r->out, key[i] == '_' ? ' ' : (uint8_t)key[i]);
    if (width > n)
        buf_printf(&r->out, "%*s", (int)(width - n), "");
}

/* A value as text: a line of its own, or a cell. */
static void add_text(struct report *r, const char *key, struct slice text, bool right) {
    if (!r->n_columns) {
        add_key(r, key, (size_t)(22 - 2 * r->depth));
        buf_printf(&r->out, "  %.*s\n", SLICE_ARG(text));
        return;
    }
    for (size_t i = 0; i < text.n; i++) /* a NUL would end the cell */
        buf_add_byte(&r->cells, text.p[i] ? (uint8_t)text.p[i] : '?');
    buf_add_byte(&r->cells, '\0');
    r->right[r->column] = right;
}

/* Where the next JSON value goes: behind its key, or into the row, which opens with column 0. */
static void json_place(struct report *r, const char *key) {
    if (r->n_columns && r->column == 0)
        json_object(&r->json);
    json_key(&r->json, r->n_columns ? r->columns[r->column] : key);
}

static void next_column(struct report *r) {
    if (!r->n_columns || ++r->column < r->n_columns)
        return;
    r->column = 0;
    if (r->as_json)
        json_object_end(&r->json);
}

/* ---- values -----------------------------------------------------------------------------------
 */

void report_int(struct report *r, const char *key, int64_t v) {
    char text[32];
    int n = snprintf(text, sizeof text, "%lld", (long long)v);
    if (r->as_json) {
        json_place(r, key);
        json_int(&r->json, v);
    } else {
        add_text(r, key, (struct slice){text, (size_t)n}, true);
    }
    next_column(r);
}

void report_num(struct report *r, const char *key, double v, int digits) {
    char text[64];
    int n = isfinite(v) ? snprintf(text, sizeof text, "%.*f", digits, v)
                        : snprintf(text, sizeof text, "-");
    if (r->as_json) {
        json_place(r, key);
        json_num(&r->json, v);
    } else {
        add_text(r, key, (struct slice){text, (size_t)n}, true);
    }
    next_column(r);
}

void report_str(struct report *r, const char *key, struct slice text) {
    if (r->as_json) {
        json_place(r, key);
        json_str(&r->json, text);
    } else {
        add_text(r, key, text, false);
    }
    next_column(r);
}

void report_cstr(struct report *r, const char *key, const char *text) {
    report_str(r, key, slice_of(text));
}

void report_bool(struct report *r, const char *key, bool v) {
    if (r->as_json) {
        json_place(r, key);
        json_bool(&r->json, v);
    } else {
        add_text(r, key, slice_of(v ? "yes" : "no"), false);
    }
    next_column(r);
}

void report_time(struct report *r, const char *key, int64_t time_us) {
    if (r->as_json) {
        report_int(r, key, time_us);
        return;
    }
    time_t seconds = (time_t)(time_us / 1000000);
    struct tm tm;
    char text[64];
    gmtime_r(&seconds, &tm);
    size_t n = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm);
    add_text(r, key, (struct slice){text, n}, false);
    next_column(r);
}

/* ---- groups and tables ------------------------------------------------------------------------
 */

void report_group(struct report *r, const char *key) {
    assert(!r->n_columns && r->depth < REPORT_DEPTH_MAX);
    if (r->as_json) {
        json_key(&r->json, key);
        json_object(&r->json);
    } else {
        add_key(r, key, 0);
        buf_add_str(&r->out, ":\n");
    }
    r->depth++;
}

void report_group_end(struct report *r) {
    r->depth--;
    if (r->as_json)
        json_object_end(&r->json);
}

void report_table(struct report *r, const char *key, const char *const *columns) {
    assert(!r->n_columns);
    if (r->as_json) {
        json_key(&r->json, key);
        json_array(&r->json);
    } else {
        add_key(r, key, 0);
        buf_add_str(&r->out, ":\n");
    }
    for (; columns[r->n_columns]; r->n_columns++) {
        assert(r->n_columns < REPORT_COLUMNS_MAX);
        r->columns[r->n_columns] = columns[r->n_columns];
        r->right[r->n_columns] = false;
    }
    r->column = 0;
    buf_clear(&r->cells);
}

static void print_row(struct report *r, const char **cells, const size_t *width) {
    size_t start = r->out.n;
    buf_printf(&r->out, "%*s", 2 * r->depth + 2, "");
    for (int c = 0; c < r->n_columns; c++)
        buf_printf(&r->out, "%s%*s", c ? "  " : "", r->right[c] ? (int)width[c] : -(int)width[c],
                   cells[c]);
    while (r->out.n > start && r->out.p[r->out.n - 1] == ' ')
        r->out.n--;
    buf_add_byte(&r->out, '\n');
}

/* Calls print_row for the head and each row; with `width` still open: measures. */
static void each_row(struct report *r, size_t *width, bool measure) {
    const char *row[REPORT_COLUMNS_MAX];
    const char *p = r->cells.p, *end = p + r->cells.n;
    memcpy(row, r->columns, sizeof row);
    for (;;) {
        for (int c = 0; measure && c < r->n_columns; c++)
            width[c] = strlen(row[c]) > width[c] ? strlen(row[c]) : width[c];
        if (!measure)
            print_row(r, row, width);
        if (p == end)
            return;
        for (int c = 0; c < r->n_columns; c++, p += strlen(p) + 1)
            row[c] = p;
    }
}

void report_table_end(struct report *r) {
    assert(r->n_columns && r->column == 0);
    if (r->as_json) {
        json_array_end(&r->json);
    } else {
        size_t width[REPORT_COLUMNS_MAX] = {0};
        each_row(r, width, true);
        each_row(r, width, false);
    }
    r->n_columns = 0;
}
