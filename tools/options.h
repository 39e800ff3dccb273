/* options.h: what a verb of the program is: a settings table (base/conf.h) filled from the command
 * line, a few words for its help, and one function. Every verb has the same manners:
 *
 *     --name VALUE, --name=VALUE, --flag     long options only; -h is --help
 *     --json    the result is one JSON object on stdout; else text for people
 *     --quiet   no progress on stderr
 *     --help    synopsis, options with defaults, an example, exit codes
 *
 *     static const struct conf_item items[] = {OPTION_CONFIG(struct options, config), ...,
 * CONF_END}; static const struct verb verb = {.name = "train", .items = items, .run = run, ...};
 *     enum status cmd_train(int argc, char **argv) { return verb_main(&verb, argc, argv); }
 *
 * An item without default (NULL) must be given. A list option (CONF_STRINGS) takes one element each
 * time it is given, commas and all. A table's `unit` is what help shows for the value. */
#pragma once
#include "base/arena.h"
#include "base/buf.h"
#include "base/conf.h"
#include "base/status.h"

struct verb_call {
    struct arena *arena; /* lives until the verb returns */
    bool json, quiet;
    const char *const *operands; /* [n_operands] */
    int n_operands;
};

struct verb {
    const char *name;     /* as typed */
    const char *operands; /* what stands behind the options in the synopsis; NULL: none */
    int operands_max;
    const char *about;   /* what it does, a paragraph */
    const char *example; /* lines, without indent */
    const char *exits;   /* what the exit codes mean beyond the usual, or NULL */
    const struct conf_item *items;
    size_t bytes; /* of the struct the table fills */
    enum status (*run)(const struct verb_call *call, void *options);
};

/* argv[0] is the verb. Errors: INVALID_ARGUMENT names the option and the nearest right one. */
enum status verb_main(const struct verb *v, int argc, char **argv);
/* Where --help goes instead of stdout; NULL: back to stdout. For docs/cli.md. */
void verb_help_to(struct buf *out);

/* The settings file and its overrides, as every verb that has them spells them. */
struct option_config {
    const char *path;
    struct conf_strings sets;
};
#define OPTION_TEXT(st, field, key, dflt, unit, doc)                                               \
    { key, CONF_TYPE_STRING, offsetof(st, field), dflt, 0, 0, NULL, unit, doc }
#define OPTION_CONFIG_OR(st, field, dflt)                                                          \
    OPTION_TEXT(st, field.path, "config", dflt, "FILE", "settings (docs/config.md)"), {            \
        "set", CONF_TYPE_STRINGS, offsetof(st, field.sets), "", 0, 0, NULL, "SECTION.KEY=VALUE",   \
            "overrides one setting; may be given again"                                            \
    }
#define OPTION_CONFIG(st, field) OPTION_CONFIG_OR(st, field, NULL)
struct rk_config;
/* No path: the defaults with the overrides. */
enum status option_config_load(const struct option_config *o, struct rk_config **out);
