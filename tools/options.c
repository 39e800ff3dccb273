/* options.c: the one option parser. It walks argv, finds each option in the verb's settings table
 * and lets base/conf.h read and check the value, so a number out of bounds reads the same on the
 * command line and in a file. Help is printed from the same table.
 *
 * Deliberately without short options, abbreviations or bundling: scripts stay readable. */
#include "tools/options.h"
#include <stdio.h>
#include <string.h>
#include "ranker/config.h"

struct common {
    bool json, quiet, help;
};
static const struct conf_item common_items[] = {
    CONF_BOOL(struct common, json, "json", "false", "prints the result as one JSON object"),
    CONF_BOOL(struct common, quiet, "quiet", "false", "no progress on stderr"),
    CONF_BOOL(struct common, help, "help", "false", "prints this (also -h)"), CONF_END};

enum { ITEMS_MAX = 128, HELP_COLUMN = 30, HELP_WIDTH = 100 };

struct parse {
    const struct verb *verb;
    struct arena *arena;
    void *options;
    struct common common;
    bool given[ITEMS_MAX];
    const char **operands;
    int n_operands;
};

static struct buf *help_sink;

void verb_help_to(struct buf *out) { help_sink = out; }

/* ---- parsing ----------------------------------------------------------------------------------
 */

static const struct conf_item *find(const struct conf_item *items, struct slice key) {
    for (; items->key; items++)
        if (slice_is(key, items->key))
            return items;
    return NULL;
}

static enum status fail_unknown(const struct verb *v, struct slice key) {
    const char *words[2 * ITEMS_MAX];
    int n = 0;
    for (const struct conf_item *i = v->items; i->key; i++)
        words[n++] = i->key;
    for (const struct conf_item *i = common_items; i->key; i++)
        words[n++] = i->key;
    words[n] = NULL;
    const char *near = conf_nearest(key, words);
    if (near)
        return fail(STATUS_INVALID_ARGUMENT, "unknown option --%.*s; did you mean --%s?",
                    SLICE_ARG(key), near);
    return fail(STATUS_INVALID_ARGUMENT, "unknown option --%.*s; moerank %s --help lists them",
                SLICE_ARG(key), v->name);
}

static void append(struct conf_strings *list, const char *value, struct arena *a) {
    const char **v = ARENA_ARRAY(a, const char *, list->n + 1);
    if (list->n)
        memcpy(v, list->v, (size_t)list->n * sizeof *v);
    v[list->n] = value;
    list->v = v;
    list->n++;
}

static enum status set(struct parse *p, const struct conf_item *items, const struct conf_item *item,
                       const char *value, void *out) {
    if (item->type == CONF_TYPE_STRINGS) {
        append((struct conf_strings *)((char *)out + item->offset), value, p->arena);
        return STATUS_OK;
    }
    static const char here[] = "option";
    enum status status = conf_set(items, slice_of(item->key), slice_of(value),
                                  (struct conf_place){here, NULL}, out, p->arena);
    if (status == STATUS_OK)
        return status;
    return fail(status, "--%s", status_message() + sizeof here + 1); /* "option: rows: ..." */
}

/* One option at argv[*i]; takes the next argument where it needs a value. */
static enum status parse_option(struct parse *p, int argc, char **argv, int *i) {
    const char *text = argv[*i] + 2, *equals = strchr(text, '=');
    struct slice key = equals ? (struct slice){text, (size_t)(equals - text)} : slice_of(text);
    const struct conf_item *items = p->verb->items, *item = find(items, key);
    void *out = p->options;
    if (item)
        p->given[item - items] = true;
    if (!item) {
        items = common_items;
        item = find(items, key);
        out = &p->common;
    }
    if (!item)
        return fail_unknown(p->verb, key);
    const char *value = equals ? equals + 1 : NULL;
    if (!value && item->type == CONF_TYPE_BOOL)
        value = "true";
    if (!value) {
        if (*i + 1 >= argc)
            return fail(STATUS_INVALID_ARGUMENT, "--%s needs a value", item->key);
        value = argv[++*i];
    }
    return set(p, items, item, value, out);
}

static enum status parse_all(struct parse *p, int argc, char **argv) {
    bool only_operands = false;
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i];
        if (!only_operands && strcmp(word, "--") == 0) {
            only_operands = true;
        } else if (!only_operands && strcmp(word, "-h") == 0) {
            p->common.help = true;
        } else if (!only_operands && strncmp(word, "--", 2) == 0) {
            TRY(parse_option(p, argc, argv, &i));
        } else if (!only_operands && word[0] == '-' && word[1]) {
            return fail(STATUS_INVALID_ARGUMENT, "'%s': options begin with two dashes", word);
        } else if (p->n_operands < p->verb->operands_max) {
            p->operands[p->n_operands++] = word;
        } else {
            return fail(STATUS_INVALID_ARGUMENT, "'%s' is not expected here; moerank %s --help",
                        word, p->verb->name);
        }
    }
    return STATUS_OK;
}

static enum status check_given(const struct parse *p) {
    const struct conf_item *items = p->verb->items;
    for (int i = 0; items[i].key; i++)
        if (!items[i].value_default && !p->given[i])
            return fail(STATUS_INVALID_ARGUMENT, "--%s must be given; moerank %s --help",
                        items[i].key, p->verb->name);
    return STATUS_OK;
}

/* ---- help -------------------------------------------------------------------------------------
 */

static const char *value_word(const struct conf_item *item) {
    if (item->type == CONF_TYPE_ENUM)
        return item->choices;
    if (item->unit && item->type != CONF_TYPE_BYTES)
        return item->unit;
    switch (item->type) {
    case CONF_TYPE_BOOL:
        return NULL;
    case CONF_TYPE_INT:
    case CONF_TYPE_FLOAT:
        return "N";
    case CONF_TYPE_TIME:
        return "TIME";
    case CONF_TYPE_BYTES:
        return "SIZE";
    default:
        return "TEXT";
    }
}

/* `text` from column `indent` on, broken between words. */
static void add_wrapped(struct buf *out, size_t indent, const char *text) {
    size_t column = indent;
    while (*text) {
        size_t n = strcspn(text, " ");
        if (column > indent && column + 1 + n > HELP_WIDTH) {
            buf_printf(out, "\n%*s", (int)indent, "");
            column = indent;
        } else if (column > indent) {
            buf_add_byte(out, ' ');
            column++;
        }
        buf_add(out, text, n);
        column += n;
        text += n + strspn(text + n, " ");
    }
}

static void help_item(struct buf *out, const struct conf_item *item) {
    struct buf line = {0};
    const char *word = value_word(item);
    buf_printf(&line, "  --%s%s%s", item->key, word ? " " : "", word ? word : "");
    if (line.n >= HELP_COLUMN)
        buf_printf(&line, "\n%*s", HELP_COLUMN, "");
    else
        buf_printf(&line, "%*s", (int)(HELP_COLUMN - line.n), "");
    struct buf text = {0};
    buf_add_str(&text, item->doc);
    if (!item->value_default)
        buf_add_str(&text, " (required)");
    else if (item->type != CONF_TYPE_BOOL && *item->value_default)
        buf_printf(&text, " (default %s)", item->value_default);
    buf_add_byte(&text, '\0');
    buf_add(out, line.p, line.n);
    add_wrapped(out, HELP_COLUMN, text.p);
    buf_add_byte(out, '\n');
    buf_deinit(&text);
    buf_deinit(&line);
}

static void add_indented(struct buf *out, const char *lines) {
    while (*lines) {
        size_t n = strcspn(lines, "\n");
        buf_printf(out, "  %.*s\n", (int)n, lines);
        lines += n + (lines[n] == '\n');
    }
}

static void help(const struct verb *v, struct buf *out) {
    buf_printf(out, "Usage: moerank %s", v->name);
    for (const struct conf_item *i = v->items; i->key; i++)
        if (!i->value_default)
            buf_printf(out, " --%s %s", i->key, value_word(i));
    buf_printf(out, " [options]%s%s\n\n", v->operands ? " " : "", v->operands ? v->operands : "");
    add_wrapped(out, 0, v->about);
    buf_add_str(out, "\n\nOptions:\n");
    for (const struct conf_item *i = v->items; i->key; i++)
        help_item(out, i);
    for (const struct conf_item *i = common_items; i->key; i++)
        help_item(out, i);
    buf_add_str(out, "\nExample:\n");
    add_indented(out, v->example);
    buf_add_str(out, "\nExit codes:\n");
    if (v->exits)
        add_indented(out, v->exits);
    add_indented(out, "0 done; 1 failed; 2 wrong option or setting; 3 a file or thing is missing;\n"
                      "4 a service could not be reached in time");
}

static enum status show_help(const struct verb *v) {
    struct buf text = {0};
    help(v, &text);
    if (help_sink)
        buf_add(help_sink, text.p, text.n);
    else
        fwrite(text.p, 1, text.n, stdout);
    buf_deinit(&text);
    return STATUS_OK;
}

enum status option_config_load(const struct option_config *o, struct rk_config **out) {
    return rk_config_load(*o->path ? o->path : NULL, o->sets.v, o->sets.n, out);
}

/* ---- a verb's life ----------------------------------------------------------------------------
 */

static enum status parse_and_run(struct parse *p, int argc, char **argv) {
    TRY(parse_all(p, argc, argv));
    if (p->common.help)
        return show_help(p->verb);
    TRY(check_given(p));
    struct verb_call call = {.arena = p->arena,
                             .json = p->common.json,
                             .quiet = p->common.quiet,
                             .operands = p->operands,
                             .n_operands = p->n_operands};
    TRY(p->verb->run(&call, p->options));
    if (fflush(stdout) != 0 || ferror(stdout))
        return fail(STATUS_UNKNOWN, "stdout: the output could not be written");
    return STATUS_OK;
}

enum status verb_main(const struct verb *v, int argc, char **argv) {
    struct arena a;
    arena_init(&a, 0);
    struct parse p = {.verb = v, .arena = &a};
    p.options = arena_zalloc(&a, v->bytes + 1);
    p.operands = ARENA_ARRAY(&a, const char *, v->operands_max + 1);
    conf_defaults(v->items, p.options, &a);
    enum status status = parse_and_run(&p, argc, argv);
    arena_deinit(&a);
    return status;
}
