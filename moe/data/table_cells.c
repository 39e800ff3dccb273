/* table_cells.c: lines cut into cells. Quotes as RFC 4180 has them, but for line ends inside a
 * quoted cell, which are refused; blanks around a cell are not part of it. A JSON line is one
 * object of scalars. LibSVM: LABEL [qid:N] INDEX:VALUE ... [# comment].
 *
 * AUTO is told by the first line: "{" is JSON, a tab TSV, INDEX:VALUE words LibSVM, else CSV. */
#include <ctype.h>
#include <stdlib.h>
#include "base/hash.h"
#include "base/heap.h"
#include "base/node.h"
#include "moe/data/table_impl.h"

#define LINE_BYTES_MAX ((size_t)16 << 20)

static uint64_t name_hash(struct slice s) { return hash_bytes(s, 7); }

static struct slice trim(struct slice s) {
    while (s.n && isspace((unsigned char)s.p[0]))
        s.p++, s.n--;
    while (s.n && isspace((unsigned char)s.p[s.n - 1]))
        s.n--;
    return s;
}

static enum status bad(const struct moe_cells *c, const char *what) {
    return fail(STATUS_INVALID_ARGUMENT, "%s:%lld: %s", c->path,
                (long long)io_lines_number(c->lines), what);
}

static enum status add_name(struct moe_cells *c, struct slice name) {
    uint64_t was;
    if (c->n == MOE_TABLE_CELLS_MAX)
        return fail(STATUS_RESOURCE_EXHAUSTED, "%s: more than %d columns", c->path,
                    MOE_TABLE_CELLS_MAX);
    if (map_get(&c->by_name, name_hash(name), &was))
        return fail(STATUS_INVALID_ARGUMENT, "%s: column '%.*s' stands twice", c->path,
                    SLICE_ARG(name));
    if (c->n == c->cap) {
        c->cap = c->cap ? 2 * c->cap : 64;
        c->names = heap_grow(c->names, (size_t)c->cap * sizeof *c->names);
        c->cell = heap_grow(c->cell, (size_t)c->cap * sizeof *c->cell);
    }
    map_put(&c->by_name, name_hash(name), (uint64_t)c->n);
    c->cell[c->n] = (struct slice){0};
    c->names[c->n++] = arena_strdup(&c->names_arena, name);
    return STATUS_OK;
}

int moe_cells_find(const struct moe_cells *c, const char *name) {
    uint64_t at;
    return map_get(&c->by_name, name_hash(slice_of(name)), &at) ? (int)at : -1;
}

/* --- delimited text ------------------------------------------------------------------------------
 */

/* One cell from *p; leaves *p behind its delimiter, NULL at the line's end. */
static enum status take_cell(struct moe_cells *c, const char **p, const char *end,
                             struct slice *out) {
    const char *s = *p;
    while (s < end && isspace((unsigned char)*s) && *s != c->delimiter)
        s++;
    if (s == end || *s != '"') {
        const char *stop = memchr(s, c->delimiter, (size_t)(end - s));
        stop = stop ? stop : end;
        *out = trim((struct slice){s, (size_t)(stop - s)});
        *p = stop < end ? stop + 1 : NULL;
        return STATUS_OK;
    }
    char *text = arena_alloc(&c->arena, (size_t)(end - s) + 1);
    size_t n = 0;
    for (s++; s < end && (*s != '"' || (s + 1 < end && s[1] == '"')); s++) {
        s += *s == '"';
        text[n++] = *s;
    }
    if (s == end)
        return bad(c, "a quoted cell does not end on its line");
    for (s++; s < end && *s != c->delimiter; s++)
        if (!isspace((unsigned char)*s))
            return bad(c, "text after a quoted cell");
    *out = (struct slice){text, n};
    *p = s < end ? s + 1 : NULL;
    return STATUS_OK;
}

static enum status cut_delimited(struct moe_cells *c) {
    const char *p = c->line.p ? c->line.p : "", *end = p + c->line.n;
    int n = 0;
    for (; p; n++) {
        struct slice cell;
        TRY(take_cell(c, &p, end, &cell));
        if (n < c->n)
            c->cell[n] = cell;
    }
    if (n != c->n)
        return fail(STATUS_INVALID_ARGUMENT, "%s:%lld: %d cells, %d are expected", c->path,
                    (long long)io_lines_number(c->lines), n, c->n);
    return STATUS_OK;
}

static enum status read_header(struct moe_cells *c) {
    const char *p = c->line.p ? c->line.p : "", *end = p + c->line.n;
    while (p) {
        struct slice cell;
        TRY(take_cell(c, &p, end, &cell));
        TRY(add_name(c, cell));
    }
    return STATUS_OK;
}

/* --- JSON lines ----------------------------------------------------------------------------------
 */

static enum status cut_json(struct moe_cells *c) {
    struct node *map;
    char *name = arena_printf(&c->arena, "%s:%lld", c->path, (long long)io_lines_number(c->lines));
    TRY(node_parse_json(&c->arena, c->line, name, &map));
    if (map->type != NODE_MAP)
        return bad(c, "not a JSON object");
    for (int i = 0; i < c->n; i++)
        c->cell[i] = (struct slice){0};
    for (const struct node *k = map->first; k; k = k->next) {
        uint64_t at;
        if (!map_get(&c->by_name, name_hash(k->key), &at))
            continue;
        if (k->type == NODE_LIST || k->type == NODE_MAP)
            return fail(STATUS_INVALID_ARGUMENT, "%s: column '%.*s': must be a number or a text",
                        name, SLICE_ARG(k->key));
        if (k->type == NODE_BOOL)
            c->cell[at] = slice_of(k->boolean ? "1" : "0");
        else if (k->type != NODE_NULL)
            c->cell[at] = k->text;
    }
    return STATUS_OK;
}

/* --- LibSVM
 * ---------------------------------------------------------------------------------------- */

static struct slice word(struct slice *rest) {
    *rest = trim(*rest);
    size_t n = 0;
    while (n < rest->n && !isspace((unsigned char)rest->p[n]))
        n++;
    struct slice out = {rest->p, n};
    rest->p += n;
    rest->n -= n;
    return out;
}

/* "12:0.5" -> 12 and the slice of the value; 0 for qid; -1: neither */
static int64_t split_word(struct slice w, struct slice *value) {
    const char *colon = w.n ? memchr(w.p, ':', w.n) : NULL;
    int64_t index = 0;
    if (!colon || colon == w.p)
        return -1;
    *value = (struct slice){colon + 1, (size_t)(w.p + w.n - colon - 1)};
    if (slice_is((struct slice){w.p, (size_t)(colon - w.p)}, "qid"))
        return 0;
    for (const char *p = w.p; p < colon; p++) {
        if (!isdigit((unsigned char)*p) || index > MOE_TABLE_CELLS_MAX)
            return -1;
        index = index * 10 + (*p - '0');
    }
    return index > 0 ? index : -1;
}

static struct slice without_comment(struct slice line) {
    const char *hash = line.n ? memchr(line.p, '#', line.n) : NULL;
    return trim(hash ? (struct slice){line.p, (size_t)(hash - line.p)} : line);
}

enum { CELL_LABEL, CELL_QID, CELL_FEATURES };

static enum status cut_libsvm(struct moe_cells *c) {
    struct slice rest = without_comment(c->line), value;
    for (int i = 0; i < c->n; i++)
        c->cell[i] = (struct slice){0};
    c->cell[CELL_LABEL] = word(&rest);
    while (rest.n) {
        struct slice w = word(&rest);
        int64_t index = split_word(w, &value);
        if (index < 0)
            return fail(STATUS_INVALID_ARGUMENT, "%s:%lld: '%.*s' is not INDEX:VALUE", c->path,
                        (long long)io_lines_number(c->lines), SLICE_ARG(w));
        if (index > c->n - CELL_FEATURES)
            return fail(STATUS_INVALID_ARGUMENT, "%s:%lld: feature %lld; there are %d", c->path,
                        (long long)io_lines_number(c->lines), (long long)index,
                        c->n - CELL_FEATURES);
        c->cell[index ? CELL_FEATURES + index - 1 : CELL_QID] = value;
        rest = trim(rest);
    }
    return STATUS_OK;
}

/* The greatest index of a file, by reading it once. */
static enum status count_features(const char *path, int64_t *out) {
    struct io_lines *lines;
    struct slice line, value;
    int64_t most = 0;
    enum status status;
    if (strcmp(path, "-") == 0)
        return fail(STATUS_INVALID_ARGUMENT,
                    "stdin: table.features must say how many features LibSVM rows have");
    TRY(io_lines_open(path, LINE_BYTES_MAX, &lines));
    while ((status = io_lines_next(lines, &line)) == STATUS_OK) {
        for (struct slice rest = without_comment(line); rest.n; rest = trim(rest)) {
            int64_t index = split_word(word(&rest), &value);
            most = index > most ? index : most;
        }
    }
    io_lines_close(lines);
    if (status != STATUS_OUT_OF_RANGE)
        return status;
    *out = most;
    return STATUS_OK;
}

static enum status name_features(struct moe_cells *c) {
    int64_t n = c->t->conf.features;
    if (n == 0 && c->t->learnt)
        n = c->t->inputs.cand_columns;
    if (n == 0)
        TRY(count_features(c->path, &n));
    TRY(add_name(c, SLICE_LIT("label")));
    TRY(add_name(c, SLICE_LIT("qid")));
    for (int64_t i = 1; i <= n; i++)
        TRY(add_name(c, slice_of(arena_printf(&c->arena, "%lld", (long long)i))));
    return STATUS_OK;
}

/* --- a file
 * ---------------------------------------------------------------------------------------- */

static bool looks_like_libsvm(struct slice line) {
    struct slice rest = without_comment(line), value;
    word(&rest);
    rest = trim(rest);
    return rest.n && split_word(word(&rest), &value) >= 0;
}

static enum moe_table_format tell(struct slice line) {
    struct slice text = trim(line);
    if (text.n && text.p[0] == '{')
        return MOE_FORMAT_JSONL;
    if (line.n && memchr(line.p, '\t', line.n))
        return MOE_FORMAT_TSV;
    return looks_like_libsvm(line) ? MOE_FORMAT_LIBSVM : MOE_FORMAT_CSV;
}

/* Names of the cells a JSON line is asked for. */
static enum status name_wanted(struct moe_cells *c) {
    for (int i = 0; i < c->t->n_columns; i++)
        if (c->t->columns[i].from && moe_cells_find(c, c->t->columns[i].from) < 0)
            TRY(add_name(c, slice_of(c->t->columns[i].from)));
    for (int i = 0; i < c->t->n_tasks; i++)
        if (moe_cells_find(c, c->t->tasks[i].from) < 0)
            TRY(add_name(c, slice_of(c->t->tasks[i].from)));
    return STATUS_OK;
}

static enum status name_delimited(struct moe_cells *c) {
    const struct moe_table_conf *conf = &c->t->conf;
    c->delimiter = *conf->delimiter ? conf->delimiter[0] : c->format == MOE_FORMAT_TSV ? '\t' : ',';
    for (int i = 0; i < conf->names.n; i++)
        TRY(add_name(c, slice_of(conf->names.v[i])));
    if (!conf->header)
        return conf->names.n
                   ? STATUS_OK
                   : fail(STATUS_INVALID_ARGUMENT,
                          "%s: table.names must name the columns of a file without header",
                          c->t->file);
    c->pending = false;
    return conf->names.n ? STATUS_OK : read_header(c);
}

static enum status open_cells(struct moe_cells *c) {
    TRY(io_lines_open(c->path, LINE_BYTES_MAX, &c->lines));
    enum status status = io_lines_next(c->lines, &c->line);
    if (status == STATUS_OUT_OF_RANGE)
        return fail(STATUS_FAILED_PRECONDITION, "%s: the file is empty", c->path);
    TRY(status);
    c->pending = true;
    c->format = c->t->conf.format == MOE_FORMAT_AUTO ? tell(c->line)
                                                     : (enum moe_table_format)c->t->conf.format;
    switch (c->format) {
    case MOE_FORMAT_JSONL:
        return name_wanted(c);
    case MOE_FORMAT_LIBSVM:
        return name_features(c);
    default:
        return name_delimited(c);
    }
}

enum status moe_cells_open(const struct moe_table *t, const char *path, struct moe_cells *c) {
    *c = (struct moe_cells){.t = t, .path = path};
    arena_init(&c->arena, 0);
    arena_init(&c->names_arena, 0);
    enum status status = open_cells(c);
    if (status != STATUS_OK)
        moe_cells_close(c);
    return status;
}

void moe_cells_close(struct moe_cells *c) {
    io_lines_close(c->lines);
    map_deinit(&c->by_name);
    heap_free(c->names);
    heap_free(c->cell);
    arena_deinit(&c->arena);
    arena_deinit(&c->names_arena);
    *c = (struct moe_cells){0};
}

enum status moe_cells_next(struct moe_cells *c) {
    do {
        enum status status = c->pending ? STATUS_OK : io_lines_next(c->lines, &c->line);
        c->pending = false;
        if (status == STATUS_RESOURCE_EXHAUSTED)
            return bad(c, "the line is too long");
        TRY(status);
    } while (trim(c->line).n == 0);
    arena_reset(&c->arena);
    switch (c->format) {
    case MOE_FORMAT_JSONL:
        return cut_json(c);
    case MOE_FORMAT_LIBSVM:
        return cut_libsvm(c);
    default:
        return cut_delimited(c);
    }
}
