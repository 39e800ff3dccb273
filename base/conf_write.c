/* conf_write.c: settings tables written out: effective values as JSON that conf_read reads back to
 * the same values, and the Markdown reference. */
#include <stdio.h>
#include "base/conf_parts.h"

/* In the largest unit that divides it; 0 needs none, yet bears the smallest for the reader. */
static void write_unit(struct json *j, int64_t v, const struct conf_unit *units) {
    while (units[1].word && (v == 0 || v % (int64_t)units->size != 0))
        units++;
    char text[48];
    snprintf(text, sizeof text, "%lld%s", (long long)(v / (int64_t)units->size), units->word);
    json_cstr(j, text);
}

static void write_list(const struct conf_item *item, const void *field, struct json *j) {
    json_array(j);
    if (item->type == CONF_TYPE_STRINGS) {
        const struct conf_strings *l = field;
        for (int i = 0; i < l->n; i++)
            json_cstr(j, l->v[i]);
    } else if (item->type == CONF_TYPE_NUMBERS) {
        const struct conf_numbers *l = field;
        for (int i = 0; i < l->n; i++)
            json_num(j, l->v[i]);
    } else {
        const struct conf_times *l = field;
        for (int i = 0; i < l->n; i++)
            write_unit(j, l->v[i], conf_time_units);
    }
    json_array_end(j);
}

static void write_value(const struct conf_item *item, const void *field, struct json *j) {
    switch (item->type) {
    case CONF_TYPE_BOOL:
        json_bool(j, *(const bool *)field);
        break;
    case CONF_TYPE_INT:
        json_int(j, *(const int64_t *)field);
        break;
    case CONF_TYPE_FLOAT:
        json_num(j, *(const double *)field);
        break;
    case CONF_TYPE_STRING: {
        const char *s = *(const char *const *)field;
        json_cstr(j, s ? s : "");
        break;
    }
    case CONF_TYPE_ENUM:
        json_str(j, conf_choice_word(item->choices, *(const int *)field));
        break;
    case CONF_TYPE_TIME:
        write_unit(j, *(const int64_t *)field, conf_time_units);
        break;
    case CONF_TYPE_BYTES:
        write_unit(j, *(const int64_t *)field, conf_byte_units);
        break;
    default:
        write_list(item, field, j);
    }
}

void conf_write_json(const struct conf_item *items, const void *values, struct json *j) {
    for (; items->key; items++) {
        json_key(j, items->key);
        write_value(items, (const char *)values + items->offset, j);
    }
}

/* A table cell: a bar would end it. */
static void add_cell(struct buf *out, const char *s) {
    for (; *s; s++) {
        if (*s == '|')
            buf_add_byte(out, '\\');
        buf_add_byte(out, *s == '\n' ? ' ' : (uint8_t)*s);
    }
}

static void add_bound(struct buf *out, const struct conf_item *item, double bound) {
    bool is_time = item->type == CONF_TYPE_TIME || item->type == CONF_TYPE_TIMES;
    if (!is_time && item->type != CONF_TYPE_BYTES) {
        buf_printf(out, "%.15g", bound);
        return;
    }
    struct buf text = {0};
    struct json j;
    json_begin(&j, &text);
    write_unit(&j, (int64_t)bound, is_time ? conf_time_units : conf_byte_units);
    buf_add(out, text.p + 1, text.n - 2); /* without quotes */
    buf_deinit(&text);
}

static void add_bounds(struct buf *out, const struct conf_item *item) {
    if (item->type == CONF_TYPE_ENUM)
        add_cell(out, item->choices);
    if (item->min >= item->max)
        return;
    add_bound(out, item, item->min);
    buf_add_str(out, " .. ");
    add_bound(out, item, item->max);
}

void conf_write_markdown(const struct conf_item *items, struct buf *out) {
    static const char *const words[] = {"bool", "int",   "float",   "string",  "choice",
                                        "time", "bytes", "strings", "numbers", "times"};
    buf_add_str(out, "| key | type | default | bounds | meaning |\n|---|---|---|---|---|\n");
    for (; items->key; items++) {
        buf_printf(out, "| `%s` | %s", items->key, words[items->type]);
        if (items->unit && items->type != CONF_TYPE_BYTES)
            buf_printf(out, " (%s)", items->unit);
        buf_add_str(out, " | ");
        if (!items->value_default)
            buf_add_str(out, "required");
        else if (*items->value_default) {
            buf_add_byte(out, '`');
            add_cell(out, items->value_default);
            buf_add_byte(out, '`');
        }
        buf_add_str(out, " | ");
        add_bounds(out, items);
        buf_add_str(out, " | ");
        add_cell(out, items->doc ? items->doc : "");
        buf_add_str(out, " |\n");
    }
}
