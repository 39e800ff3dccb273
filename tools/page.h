/* page.h: one HTML file with drawings in it (inline SVG), readable by itself: no script, nothing
 * from elsewhere, light or dark as the reader's machine asks. Texts are escaped here. */
#pragma once
#include <stdbool.h>
#include "base/buf.h"
#include "base/status.h"

struct page {
    struct buf out;
};
void page_begin(struct page *p, const char *title);
enum status page_write(struct page *p, const char *path); /* ends it; atomic; frees */

void page_section(struct page *p, const char *title, const char *note);
void page_line(struct page *p, const char *kind, const char *format, ...)
    __attribute__((format(printf, 3, 4))); /* kind: "", "alarm", "good" */

/* A grid of values: the deeper the colour, the greater. NaN is an empty cell. */
struct page_heat {
    const char *title;
    int rows, cols;
    const char *const *row_names, *const *col_names;
    const double *v; /* [rows x cols] */
    double most;     /* value of the deepest colour; 0: the greatest there is */
    bool two_sided;  /* negative values in another colour */
    bool percent;
    int digits;
    const char *const *tips; /* [rows x cols] or NULL */
    const bool *weak;        /* [rows x cols] drawn without colour; NULL: none */
};
void page_heat(struct page *p, const struct page_heat *h);

/* Horizontal bars, to the left of zero for negative values; mark: a line across, NAN: none. */
struct page_bars {
    const char *title;
    int n;
    const char *const *names;
    const double *v;
    double mark;
    bool percent;
    int digits;
};
void page_bars(struct page *p, const struct page_bars *b);

/* A curve through (x, y) [n], x ascending. mark: a level across, NAN: none. */
struct page_curve {
    const char *title;
    int n;
    const double *x, *y;
    double mark;
    int digits;
};
void page_curve(struct page *p, const struct page_curve *c);

/* A table: head once, then cells row by row; "" is an empty cell. */
void page_table_begin(struct page *p, const char *const *head); /* NULL-ended */
void page_cell_text(struct page *p, const char *text);
void page_cell_num(struct page *p, double v, int digits); /* NaN: a dash */
void page_row_end(struct page *p);
void page_table_end(struct page *p);
