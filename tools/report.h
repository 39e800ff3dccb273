/* report.h: a verb's result, said once: as one JSON object for programs, as aligned text for
 * people. Keys are the JSON's; text shows them with spaces.
 *
 *     report_begin(&r, call->json);
 *     report_int(&r, "events", n);
 *     report_table(&r, "tasks", (const char *const[]){"task", "auc", NULL});
 *     report_str(&r, NULL, "like"); report_num(&r, NULL, 0.75, 4);   <- cells of a row
 *     report_table_end(&r);
 *     TRY(report_end(&r, stdout));
 *
 * A NaN is null in JSON and "-" in text. */
#pragma once
#include <stdint.h>
#include "base/buf.h"
#include "base/node.h"
#include "base/status.h"

enum { REPORT_COLUMNS_MAX = 16, REPORT_DEPTH_MAX = 8 };

struct report {
    bool as_json;
    int depth; /* of groups, for the text's indent */
    struct json json;
    struct buf out;
    /* the open table; n_columns 0: none */
    int n_columns, column;
    const char *columns[REPORT_COLUMNS_MAX];
    bool right[REPORT_COLUMNS_MAX]; /* numbers stand on the right */
    struct buf cells;               /* text: NUL-ended, row after row */
};

void report_begin(struct report *r, bool as_json);
enum status report_end(struct report *r, void *file); /* a FILE; prints, frees */

void report_drop(struct report *r); /* frees, prints nothing */

/* Within a table the key is not looked at. `text`s are copied. */
void report_int(struct report *r, const char *key, int64_t v);
void report_num(struct report *r, const char *key, double v,
                int digits); /* after the point, text */
void report_str(struct report *r, const char *key, struct slice text);
void report_cstr(struct report *r, const char *key, const char *text);
void report_bool(struct report *r, const char *key, bool v);
void report_time(struct report *r, const char *key, int64_t time_us); /* text: UTC, ISO 8601 */

void report_group(struct report *r, const char *key);
void report_group_end(struct report *r);
/* Rows of cells, as many as columns. JSON: an array of objects. */
void report_table(struct report *r, const char *key, const char *const *columns);
void report_table_end(struct report *r);
