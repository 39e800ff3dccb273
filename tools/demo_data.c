/* demo_data.c: the demo's events: MovieLens-100K in RecBole's form, or any JSON-lines file of the
 * same shape (item and user events, then "rating" interactions with a `value`). Ratings are sorted
 * by (time, user, item), so that everybody who splits this data by time splits it the same way.
 * Nothing is written here; the data's licence forbids to pass it on. */
#include <stdlib.h>
#include <string.h>

#include "base/heap.h"
#include "base/io.h"
#include "base/map.h"
#include "base/hash.h"
#include "tools/demo.h"

#define COLUMNS_MAX 8

/* Splits a tab-separated line; returns the number of columns. */
static int split_tabs(struct slice line, struct slice *out) {
    int n = 0;
    const char *p = line.p, *end = line.p + line.n;
    while (n < COLUMNS_MAX) {
        const char *tab = memchr(p, '\t', (size_t)(end - p));
        out[n++] = (struct slice){p, (size_t)((tab ? tab : end) - p)};
        if (!tab) {
            break;
        }
        p = tab + 1;
    }
    return n;
}

static double number_of(struct slice s) {
    char text[32];
    size_t n = s.n < sizeof text - 1 ? s.n : sizeof text - 1;
    memcpy(text, s.p, n);
    text[n] = 0;
    return strtod(text, NULL);
}

typedef void (*line_reader)(struct demo_data *d, const struct slice *columns, int row);

/* Calls `read` for each data line (the first line is the header). */
static enum status read_table(struct demo_data *d, const char *folder, const char *name,
                              int columns, line_reader read, int *rows) {
    const char *path = arena_printf(&d->arena, "%s/%s", folder, name);
    struct io_lines *lines;
    TRY(io_lines_open(path, 1 << 20, &lines));
    struct slice line, cells[COLUMNS_MAX];
    enum status status;
    int row = -1;
    while ((status = io_lines_next(lines, &line)) == STATUS_OK) {
        if (row >= 0) {
            if (split_tabs(line, cells) < columns) {
                long long at = io_lines_number(lines);
                io_lines_close(lines);
                return fail(STATUS_DATA_LOSS, "%s:%lld: fewer than %d columns; fetch it again",
                            path, at, columns);
            }
            read(d, cells, row);
        }
        row++;
    }
    io_lines_close(lines);
    if (status != STATUS_OUT_OF_RANGE) {
        return status;
    }
    *rows = row < 0 ? 0 : row;
    return STATUS_OK;
}

static struct ev_field text_field(const char *name, struct slice text) {
    return (struct ev_field){slice_of(name), {.type = EV_STRING, .string = text}};
}
static struct ev_field number_field(const char *name, double number) {
    return (struct ev_field){slice_of(name), {.type = EV_NUMBER, .number = number}};
}

static struct ev_event *next_event(struct demo_data *d, enum ev_kind kind) {
    if ((d->n_events & (d->n_events - 1)) == 0) {
        size_t cap = d->n_events ? 2 * (size_t)d->n_events : 1;
        d->events = heap_grow(d->events, cap * sizeof *d->events);
    }
    struct ev_event *e = &d->events[d->n_events++];
    *e = (struct ev_event){.kind = kind};
    e->id = slice_of(arena_printf(&d->arena, "e%d", d->n_events));
    return e;
}

static struct ev_value words_value(struct arena *a, struct slice text) {
    struct slice *words = ARENA_ARRAY(a, struct slice, EV_LIST_MAX);
    int n = 0;
    const char *p = text.p, *end = text.p + text.n;
    while (p < end && n < EV_LIST_MAX) {
        const char *space = memchr(p, ' ', (size_t)(end - p));
        size_t length = (size_t)((space ? space : end) - p);
        if (length) {
            words[n++] = (struct slice){p, length};
        }
        p += length + 1;
    }
    struct ev_value v = {.type = EV_STRINGS};
    struct slice *kept = ARENA_ARRAY(a, struct slice, n ? n : 1);
    memcpy(kept, words, (size_t)n * sizeof *kept);
    v.strings.v = kept;
    v.strings.n = n;
    return v;
}

/* item_id, movie_title, release_year, class */
static void read_film(struct demo_data *d, const struct slice *c, int row) {
    (void)row;
    struct ev_event *e = next_event(d, EV_ITEM);
    struct ev_field *fields = ARENA_ARRAY(&d->arena, struct ev_field, 4);
    e->item = arena_dup(&d->arena, c[0]);
    fields[0] = text_field("title", arena_dup(&d->arena, c[1]));
    fields[1] =
        (struct ev_field){SLICE_LIT("genres"), words_value(&d->arena, arena_dup(&d->arena, c[3]))};
    double year = number_of(c[2]);
    fields[2] = number_field("year", year);
    fields[3] = text_field("era", slice_of(arena_printf(&d->arena, "%d", (int)year / 5 * 5)));
    e->fields = fields;
    e->n_fields = year > 0 ? 4 : 2;
}

/* user_id, age, gender, occupation, zip_code */
static void read_user(struct demo_data *d, const struct slice *c, int row) {
    (void)row;
    struct ev_event *e = next_event(d, EV_USER);
    struct ev_field *fields = ARENA_ARRAY(&d->arena, struct ev_field, 3);
    e->user = arena_dup(&d->arena, c[0]);
    fields[0] = number_field("age", number_of(c[1]));
    fields[1] = text_field("gender", arena_dup(&d->arena, c[2]));
    fields[2] = text_field("occupation", arena_dup(&d->arena, c[3]));
    e->fields = fields;
    e->n_fields = 3;
}

/* user_id, item_id, rating, timestamp */
static void read_rating(struct demo_data *d, const struct slice *c, int row) {
    (void)row;
    struct ev_event *e = next_event(d, EV_INTERACTION);
    struct ev_field *field = ARENA_NEW(&d->arena, struct ev_field);
    e->user = arena_dup(&d->arena, c[0]);
    e->item = arena_dup(&d->arena, c[1]);
    e->type = SLICE_LIT("rating");
    *field = number_field("value", number_of(c[2]));
    e->fields = field;
    e->n_fields = 1;
    e->event_time_us = (int64_t)number_of(c[3]) * 1000000;
}

/* Ids that are numbers sort as numbers: a shorter one is smaller. */
static int compare_ids(struct slice a, struct slice b) {
    if (a.n != b.n) {
        return a.n < b.n ? -1 : 1;
    }
    return a.n ? memcmp(a.p, b.p, a.n) : 0;
}

static int by_time_user_item(const void *pa, const void *pb) {
    const struct ev_event *a = pa, *b = pb;
    if (a->event_time_us != b->event_time_us) {
        return a->event_time_us < b->event_time_us ? -1 : 1;
    }
    int order = compare_ids(a->user, b->user);
    return order ? order : compare_ids(a->item, b->item);
}

/* Fills films and ratings from the events. */
static enum status index_events(struct demo_data *d) {
    struct map films = {0};
    d->films = HEAP_ARRAY(struct demo_film, d->n_events);
    d->ratings = HEAP_ARRAY(struct demo_rating, d->n_events);
    for (int i = 0; i < d->n_events; i++) {
        const struct ev_event *e = &d->events[i];
        if (e->kind == EV_ITEM) {
            const struct ev_value *title = ev_field_get(e->fields, e->n_fields, "title");
            struct slice shown = title && title->type == EV_STRING ? title->string : e->item;
            map_put(&films, hash_bytes(e->item, 0), (uint64_t)d->n_films);
            d->films[d->n_films++] = (struct demo_film){e->item, shown};
        }
        uint64_t film;
        double value;
        const struct ev_value *v = ev_field_get(e->fields, e->n_fields, "value");
        if (e->kind != EV_INTERACTION || !slice_is(e->type, "rating") ||
            !map_get(&films, hash_bytes(e->item, 0), &film) || !v || !ev_value_number(v, &value)) {
            continue;
        }
        d->ratings[d->n_ratings++] = (struct demo_rating){(int)film, i, (int)value, e->user};
    }
    map_deinit(&films);
    if (d->n_ratings == 0) {
        return fail(STATUS_DATA_LOSS, "%s: no ratings of known films", d->name);
    }
    return STATUS_OK;
}

enum status demo_data_movielens(const char *folder, struct demo_data *out) {
    struct demo_data d = {.name = "MovieLens-100K", .real = true};
    arena_init(&d.arena, 1 << 20);
    int films = 0, users = 0, ratings = 0;
    enum status status = read_table(&d, folder, "ml-100k.item", 4, read_film, &films);
    if (status == STATUS_OK) {
        status = read_table(&d, folder, "ml-100k.user", 5, read_user, &users);
    }
    int first = d.n_events;
    if (status == STATUS_OK) {
        status = read_table(&d, folder, "ml-100k.inter", 4, read_rating, &ratings);
    }
    if (status == STATUS_OK && ratings == 0) {
        status =
            fail(STATUS_DATA_LOSS, "%s/ml-100k.inter holds no ratings; fetch it again", folder);
    }
    if (status == STATUS_OK) {
        qsort(d.events + first, (size_t)ratings, sizeof *d.events, by_time_user_item);
        int64_t before_us = d.events[first].event_time_us - 1000000;
        for (int i = 0; i < first; i++) {
            d.events[i].event_time_us = before_us;
        }
        status = index_events(&d);
    }
    if (status != STATUS_OK) {
        demo_data_deinit(&d);
        return status;
    }
    *out = d;
    return STATUS_OK;
}

enum status demo_data_lines(const char *path, struct demo_data *out) {
    struct demo_data d = {.name = "synthetic"};
    arena_init(&d.arena, 1 << 20);
    struct io_lines *lines;
    TRY(io_lines_open(path, EV_BYTES_MAX, &lines));
    struct slice line;
    enum status status;
    while ((status = io_lines_next(lines, &line)) == STATUS_OK) {
        struct ev_event event;
        status = ev_decode_json(&d.arena, arena_dup(&d.arena, line), &event);
        if (status != STATUS_OK) {
            status = fail_in(status, "%s:%lld", path, (long long)io_lines_number(lines));
            break;
        }
        *next_event(&d, event.kind) = event;
    }
    io_lines_close(lines);
    if (status == STATUS_OUT_OF_RANGE) {
        status = index_events(&d);
    }
    if (status != STATUS_OK) {
        demo_data_deinit(&d);
        return status;
    }
    *out = d;
    return STATUS_OK;
}

void demo_data_deinit(struct demo_data *d) {
    heap_free(d->events);
    heap_free(d->films);
    heap_free(d->ratings);
    arena_deinit(&d->arena);
    *d = (struct demo_data){0};
}
