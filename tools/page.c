/* page.c: HTML and SVG as text. Colours are variables of the style sheet, strength of colour is
 * opacity, so that one drawing serves light and dark readers. */
#include "tools/page.h"
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "base/io.h"

enum { CHAR = 7, LINE = 24 };

static const char style[] =
    ":root{color-scheme:light dark;--paper:#fff;--ink:#1b1f24;--soft:#5b6470;--line:#d6dbe1;"
    "--deep:#3d86d8;--minus:#d8683d;--alarm:#b3261e;--good:#1f7a3f;--box:#f5f7f9}"
    "@media(prefers-color-scheme:dark){:root{--paper:#14171b;--ink:#e7eaee;--soft:#9aa4b0;"
    "--line:#343b44;--deep:#2f78cc;--minus:#c25a2f;--alarm:#ff8a80;--good:#7bd88f;--box:#1c2127}}"
    "body{background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,sans-serif;"
    "max-width:1100px;margin:2em auto;padding:0 1.2em}"
    "h1{font-size:1.5em}h2{font-size:1.15em;margin:2.2em 0 .2em;border-top:1px solid var(--line);"
    "padding-top:1em}h3{font-size:1em;margin:1.2em 0 .3em}"
    "p{margin:.2em 0}.note{color:var(--soft);max-width:75ch}"
    ".alarm{color:var(--alarm);font-weight:600}.good{color:var(--good)}"
    ".wide{overflow-x:auto}.row{display:flex;flex-wrap:wrap;gap:0 1.5em;align-items:flex-start}"
    "svg{display:block}svg text{font:12px system-ui,sans-serif;fill:var(--ink)}"
    "svg .s{fill:var(--soft)}svg .d{fill:var(--deep)}svg .m{fill:var(--minus)}"
    "svg .g{fill:none;stroke:var(--line)}svg .l{fill:none;stroke:var(--deep);stroke-width:2}svg .k{stroke:var(--ink);stroke-dasharray:3 3}"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums;margin:.6em 0}"
    "table{font-size:14px}th,td{padding:.15em .5em;text-align:right;border-bottom:1px solid var(--line);"
    "white-space:nowrap}th{color:var(--soft);font-weight:500}"
    "td.t,th:first-child{text-align:left}";

static void escaped(struct buf *b, const char *s) {
    for (; *s; s++)
        switch (*s) {
        case '<':
            buf_add_str(b, "&lt;");
            break;
        case '>':
            buf_add_str(b, "&gt;");
            break;
        case '&':
            buf_add_str(b, "&amp;");
            break;
        case '"':
            buf_add_str(b, "&quot;");
            break;
        default:
            buf_add_byte(b, (uint8_t)*s);
        }
}

void page_begin(struct page *p, const char *title) {
    *p = (struct page){0};
    buf_add_str(&p->out, "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
                         "<meta name=\"viewport\" content=\"width=device-width\"><title>");
    escaped(&p->out, title);
    buf_printf(&p->out, "</title><style>%s</style></head><body>\n<h1>", style);
    escaped(&p->out, title);
    buf_add_str(&p->out, "</h1>\n");
}

enum status page_write(struct page *p, const char *path) {
    buf_add_str(&p->out, "</body></html>\n");
    enum status status = io_write_file(path, buf_slice(&p->out));
    buf_deinit(&p->out);
    return status;
}

void page_section(struct page *p, const char *title, const char *note) {
    buf_add_str(&p->out, "<h2>");
    escaped(&p->out, title);
    buf_add_str(&p->out, "</h2>\n<p class=\"note\">");
    escaped(&p->out, note);
    buf_add_str(&p->out, "</p>\n");
}

void page_line(struct page *p, const char *kind, const char *format, ...) {
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    buf_printf(&p->out, "<p class=\"%s\">", kind);
    escaped(&p->out, text);
    buf_add_str(&p->out, "</p>\n");
}

/* ---- drawings ---------------------------------------------------------------------------------
 */

static int widest(const char *const *names, int n) {
    int most = 0;
    for (int i = 0; i < n; i++)
        most = (int)strlen(names[i]) > most ? (int)strlen(names[i]) : most;
    return most * CHAR + 10;
}

static void draw_text(struct buf *b, double x, double y, const char *extra, const char *text) {
    buf_printf(b, "<text x=\"%.0f\" y=\"%.0f\" %s>", x, y, extra);
    escaped(b, text);
    buf_add_str(b, "</text>");
}

static void number(char *out, size_t n, double v, bool percent, int digits) {
    snprintf(out, n, "%.*f%s", digits, percent ? 100 * v : v, percent ? "%" : "");
}

static void open_drawing(struct buf *b, const char *title, int width, int height) {
    buf_add_str(b, "<div class=\"wide\"><h3>");
    escaped(b, title);
    buf_printf(b, "</h3><svg role=\"img\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\">", width,
               height, width, height);
}

static double greatest(const double *v, int n) {
    double most = 0;
    for (int i = 0; i < n; i++)
        most = fabs(v[i]) > most ? fabs(v[i]) : most;
    return most;
}

struct grid {
    int left, top, width; /* of labels on the left, of those above, of a cell */
    bool turned;
};
static struct grid layout(const struct page_heat *h) {
    struct grid g = {.left = widest(h->row_names, h->rows)};
    int label = widest(h->col_names, h->cols);
    g.width = h->cols <= 10 ? 62 : h->cols <= 20 ? 44 : 20;
    g.turned = label > g.width + 6;
    g.top = g.turned ? (int)(0.72 * label) + 12 : 20;
    return g;
}

static void draw_cell(struct buf *b, const struct page_heat *h, const struct grid *g, int r, int c,
                      double most) {
    double v = h->v[r * h->cols + c], x = g->left + c * g->width, y = g->top + r * LINE;
    char text[48];
    buf_printf(b, "<g><rect class=\"g\" x=\"%.0f\" y=\"%.0f\" width=\"%d\" height=\"%d\"/>", x, y,
               g->width, LINE);
    if (!isnan(v)) {
        bool weak = h->weak && h->weak[r * h->cols + c];
        double depth = most > 0 && !weak ? fmin(1, fabs(v) / most) : 0;
        number(text, sizeof text, v, h->percent, h->digits);
        buf_printf(b,
                   "<rect class=\"%s\" fill-opacity=\"%.3f\" x=\"%.0f\" y=\"%.0f\" width=\"%d\" "
                   "height=\"%d\"/>",
                   h->two_sided && v < 0 ? "m" : "d", 0.85 * depth, x, y, g->width, LINE);
        if (g->width > 40)
            draw_text(b, x + g->width / 2.0, y + 16, "text-anchor=\"middle\"", text);
        buf_add_str(b, "<title>");
        escaped(b, h->row_names[r]);
        buf_add_str(b, " / ");
        escaped(b, h->col_names[c]);
        buf_printf(b, ": %s", h->tips ? "" : text);
        escaped(b, h->tips ? h->tips[r * h->cols + c] : "");
        buf_add_str(b, "</title>");
    }
    buf_add_str(b, "</g>");
}

void page_heat(struct page *p, const struct page_heat *h) {
    struct grid g = layout(h);
    struct buf *b = &p->out;
    double most = h->most > 0 ? h->most : greatest(h->v, h->rows * h->cols);
    int over = g.turned ? widest(h->col_names, h->cols) : 10;
    open_drawing(b, h->title, g.left + h->cols * g.width + over, g.top + h->rows * LINE + 4);
    for (int c = 0; c < h->cols; c++) {
        char turn[96];
        double x = g.left + (c + 0.5) * g.width, y = g.top - 6;
        snprintf(turn, sizeof turn, "class=\"s\" transform=\"rotate(-45 %.0f %.0f)\"", x, y);
        draw_text(b, x, y, g.turned ? turn : "class=\"s\" text-anchor=\"middle\"", h->col_names[c]);
    }
    for (int r = 0; r < h->rows; r++) {
        draw_text(b, g.left - 6, g.top + r * LINE + 16, "text-anchor=\"end\"", h->row_names[r]);
        for (int c = 0; c < h->cols; c++)
            draw_cell(b, h, &g, r, c, most);
    }
    buf_add_str(b, "</svg></div>\n");
}

void page_bars(struct page *p, const struct page_bars *s) {
    struct buf *b = &p->out;
    int left = widest(s->names, s->n), room = 170, n = s->n;
    double low = 0, high = isnan(s->mark) ? 0 : s->mark;
    for (int i = 0; i < n; i++) {
        low = s->v[i] < low ? s->v[i] : low;
        high = s->v[i] > high ? s->v[i] : high;
    }
    double scale = high > low ? room / (high - low) : 0, zero = left - low * scale;
    open_drawing(b, s->title, left + room + 62, n * LINE + 6);
    for (int i = 0; i < n; i++) {
        char text[48];
        double end = zero + s->v[i] * scale, from = fmin(zero, end);
        if (isnan(s->v[i]))
            continue;
        number(text, sizeof text, s->v[i], s->percent, s->digits);
        draw_text(b, left - 6, i * LINE + 16, "text-anchor=\"end\"", s->names[i]);
        buf_printf(b, "<rect class=\"%s\" x=\"%.1f\" y=\"%d\" width=\"%.1f\" height=\"%d\"/>",
                   s->v[i] < 0 ? "m" : "d", from, i * LINE + 4, fabs(end - zero), LINE - 8);
        draw_text(b, left + room + 8, i * LINE + 16, "class=\"s\"", text);
    }
    if (!isnan(s->mark))
        buf_printf(b, "<line class=\"k\" x1=\"%.1f\" x2=\"%.1f\" y1=\"0\" y2=\"%d\"/>",
                   zero + s->mark * scale, zero + s->mark * scale, n * LINE + 4);
    buf_add_str(b, "</svg></div>\n");
}

void page_curve(struct page *p, const struct page_curve *c) {
    enum { LEFT = 70, WIDTH = 380, HEIGHT = 150, BELOW = 22 };
    struct buf *b = &p->out;
    double low = c->mark, high = c->mark;
    char text[48];
    if (c->n == 0)
        return;
    for (int i = 0; i < c->n; i++) {
        low = fmin(low, c->y[i]);
        high = fmax(high, c->y[i]);
    }
    double up = high > low ? (HEIGHT - 20) / (high - low) : 0;
    double along = c->x[c->n - 1] > c->x[0] ? WIDTH / (c->x[c->n - 1] - c->x[0]) : 0;
    open_drawing(b, c->title, LEFT + WIDTH + 20, HEIGHT + BELOW);
    for (int k = 0; k < 2; k++) {
        number(text, sizeof text, k ? high : low, false, c->digits);
        draw_text(b, LEFT - 6, k ? 14 : HEIGHT - 6, "class=\"s\" text-anchor=\"end\"", text);
        number(text, sizeof text, c->x[k ? c->n - 1 : 0], false, 0);
        draw_text(b, k ? LEFT + WIDTH : LEFT, HEIGHT + 16,
                  k ? "class=\"s\" text-anchor=\"end\"" : "class=\"s\"", text);
    }
    buf_printf(b, "<path class=\"g\" d=\"M%d 4V%dH%d\"/><polyline class=\"l\" points=\"", LEFT,
               HEIGHT, LEFT + WIDTH);
    for (int i = 0; i < c->n; i++)
        buf_printf(b, "%.1f,%.1f ", LEFT + (c->x[i] - c->x[0]) * along,
                   HEIGHT - 10 - (c->y[i] - low) * up);
    buf_add_str(b, "\"/>");
    if (!isnan(c->mark))
        buf_printf(b, "<line class=\"k\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>", LEFT,
                   LEFT + WIDTH, HEIGHT - 10 - (c->mark - low) * up,
                   HEIGHT - 10 - (c->mark - low) * up);
    buf_add_str(b, "</svg></div>\n");
}

/* ---- tables -----------------------------------------------------------------------------------
 */

void page_table_begin(struct page *p, const char *const *head) {
    buf_add_str(&p->out, "<div class=\"wide\"><table><tr>");
    for (int i = 0; head[i]; i++) {
        buf_add_str(&p->out, "<th>");
        escaped(&p->out, head[i]);
        buf_add_str(&p->out, "</th>");
    }
    buf_add_str(&p->out, "</tr>\n<tr>");
}
void page_cell_text(struct page *p, const char *text) {
    buf_add_str(&p->out, "<td class=\"t\">");
    escaped(&p->out, text);
    buf_add_str(&p->out, "</td>");
}
void page_cell_num(struct page *p, double v, int digits) {
    if (isnan(v))
        buf_add_str(&p->out, "<td>–</td>");
    else
        buf_printf(&p->out, "<td>%.*f</td>", digits, v);
}
void page_row_end(struct page *p) { buf_add_str(&p->out, "</tr>\n<tr>"); }
void page_table_end(struct page *p) { buf_add_str(&p->out, "</tr></table></div>\n"); }
