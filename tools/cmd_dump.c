/* cmd_dump.c: a snapshot as canonical text, for eyes and for comparing: equal states give equal
 * bytes, whatever order the events came in. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/io.h"
#include "features/state.h"
#include "ranker/config.h"
#include "tools/options.h"
#include "tools/verbs.h"

struct options {
    struct option_config config;
    const char *state, *to;
    int64_t as_of_us;
};
static const struct conf_item items[] = {
    OPTION_CONFIG(struct options, config),
    OPTION_TEXT(struct options, state, "state", "", "FILE",
                "instead of the settings' state.snapshot"),
    OPTION_TEXT(struct options, to, "to", "-", "FILE", "where to; - is stdout"),
    CONF_INT(struct options, as_of_us, "as-of", "0", 0, 9e18, "MICROSECONDS",
             "leaves out what has expired by then; 0: by the greatest event time seen"),
    CONF_END};

/* The dump is written as a file, all or nothing; for stdout it takes a file on the way. */
static enum status dump_to_stdout(struct feat_state *state, int64_t as_of_us, struct arena *a) {
    const char *folder = getenv("TMPDIR");
    char *path = arena_printf(a, "%s/moerank-dump.%d", folder ? folder : "/tmp", (int)getpid());
    struct buf text = {0};
    enum status status = feat_state_dump(state, as_of_us, path);
    if (status == STATUS_OK)
        status = io_read_file(path, SIZE_MAX, &text);
    unlink(path);
    if (status == STATUS_OK && fwrite(text.p, 1, text.n, stdout) != text.n)
        status = fail(STATUS_UNKNOWN, "stdout: the dump could not be written");
    buf_deinit(&text);
    return status;
}

static enum status dump(const struct options *o, const struct rk_config *c, struct arena *a) {
    struct feat_state *state;
    const char *path = *o->state ? o->state : c->state.snapshot;
    if (!c->plan)
        return fail(STATUS_FAILED_PRECONDITION, "%s: no section 'features'", c->file);
    bool shared = !*o->state && c->state.store.kind == FEAT_STORE_REDIS;
    if (!*path && !shared)
        return fail(STATUS_INVALID_ARGUMENT, "which snapshot? give --state, or set state.snapshot");
    if (shared)
        TRY(feat_state_open(c->plan, &c->state.store, &state));
    else
        TRY(feat_state_load(c->plan, path, &state));
    enum status status = strcmp(o->to, "-") == 0 ? dump_to_stdout(state, o->as_of_us, a)
                                                 : feat_state_dump(state, o->as_of_us, o->to);
    feat_state_free(state);
    return status;
}

static enum status run(const struct verb_call *call, void *options) {
    const struct options *o = options;
    struct rk_config *c;
    TRY(option_config_load(&o->config, &c));
    enum status status = dump(o, c, call->arena);
    rk_config_free(c);
    return status;
}

static const struct verb verb = {
    .name = "dump",
    .about =
        "Prints a snapshot, or the state in Redis, as text: one line of JSON per user, item and session, sorted, then the "
        "offsets applied. Equal states give equal bytes.",
    .example = "moerank dump --config moerank.yaml --state state.snap --to state.jsonl",
    .items = items,
    .bytes = sizeof(struct options),
    .run = run,
};

enum status cmd_dump(int argc, char **argv) { return verb_main(&verb, argc, argv); }
