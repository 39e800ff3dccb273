/* plan.c: from YAML to an immutable feature plan: reads settings by each kind's table, lets the
 * kinds claim state and inputs, lays the columns out, and fingerprints the canonical text.
 * It knows no kind. */
#include "features/plan.h"
#include "base/hash.h"
#include "base/heap.h"
#include "features/joins.h"
#include "features/kind.h"
#include <ctype.h>

/* Bumped when the bytes of any cell or record change: old snapshots are then refused. */
#define STATE_FORMAT 5
#define COLUMNS_MAX  (1 << 16)

const char *const feat_scope_words[FEAT_SCOPES] = {
    [FEAT_SCOPE_GLOBAL] = "global", [FEAT_SCOPE_USER] = "user",   [FEAT_SCOPE_SESSION] = "session",
    [FEAT_SCOPE_ITEM] = "item",     [FEAT_SCOPE_VALUE] = "value", [FEAT_SCOPE_RANKING] = "ranking"};

struct plan_conf {
    int64_t lateness_us, ahead_us;
};
#define AHEAD_DEFAULT_US 86400000000
static const struct conf_item plan_items[] = {
    CONF_TIME(struct plan_conf, lateness_us, "lateness", "1h", 0, 366 * 86400e6,
              "How far behind its partition's newest event an event may be and still count."),
    CONF_TIME(struct plan_conf, ahead_us, "ahead", "1d", 0, 36600 * 86400e6,
              "How far beyond its arrival an event's time may lie; further, it is wrong and does "
              "not count. Without this one wrong clock would make all other events late."),
    CONF_END};

static enum status at_line(enum status status, const char *file, int line, const char *what) {
    return fail_in(status, "%s:%d: %s", file, line, what);
}

static enum status read_name(struct feat_plan *p, const struct node *map, const char *file,
                             int number, const char **out) {
    const struct node *name = node_get(map, "name");
    if (name == NULL || name->type != NODE_STRING || name->text.n == 0)
        return fail(STATUS_INVALID_ARGUMENT,
                    "%s:%d: features[%d].name: every feature needs a name that is a text", file,
                    map->line, number);
    for (size_t i = 0; i < name->text.n; i++)
        if (!isalnum((unsigned char)name->text.p[i]) && strchr("_-", name->text.p[i]) == NULL)
            return fail(STATUS_INVALID_ARGUMENT,
                        "%s:%d: features.%.*s.name: only letters, digits, _ and - are allowed",
                        file, name->line, SLICE_ARG(name->text));
    const char *word = arena_strdup(&p->arena, name->text);
    const struct feat *other = feat_plan_find(p, word);
    if (other != NULL)
        return fail(STATUS_INVALID_ARGUMENT,
                    "%s:%d: features.%s.name: line %d has a feature of that name", file, name->line,
                    word, other->line);
    *out = word;
    return STATUS_OK;
}

static enum status read_kind(const struct node *map, const char *file, const char *name,
                             const struct feat_kind **out) {
    const struct node *kind = node_get(map, "kind");
    if (kind == NULL || kind->type != NODE_STRING)
        return fail(STATUS_INVALID_ARGUMENT, "%s:%d: features.%s.kind: missing", file, map->line,
                    name);
    *out = feat_kind_find(kind->text);
    if (*out != NULL)
        return STATUS_OK;
    const char *words[64] = {NULL};
    for (int i = 0; feat_kinds[i] != NULL && i < 63; i++)
        words[i] = feat_kinds[i]->name;
    const char *near = conf_nearest(kind->text, words);
    return fail(STATUS_INVALID_ARGUMENT, "%s:%d: features.%s.kind: no kind '%.*s'%s%s%s", file,
                kind->line, name, SLICE_ARG(kind->text), near ? "; did you mean '" : "",
                near ? near : "", near ? "'?" : "");
}

/* A setting that an earlier version had. */
static enum status refuse_gone(const struct feat *f, const struct node *map, const char *file) {
    for (const struct feat_gone *g = f->kind->gone; g != NULL && g->key != NULL; g++) {
        const struct node *setting = node_get(map, g->key);
        if (setting != NULL)
            return fail(STATUS_INVALID_ARGUMENT, "%s:%d: features.%s.%s: %s", file, setting->line,
                        f->name, g->key, g->why);
    }
    return STATUS_OK;
}

/* Two columns of one name would be two inputs of one meaning, which no report could tell apart. */
static enum status check_names(const struct feat *f) {
    for (int i = 0; f->column_names != NULL && i < f->n_columns; i++)
        for (int k = 0; k < i; k++)
            if (f->column_names[i] != NULL && f->column_names[k] != NULL &&
                strcmp(f->column_names[i], f->column_names[k]) == 0)
                return fail(STATUS_INVALID_ARGUMENT, "two columns are called '%s'",
                            f->column_names[i]);
    return STATUS_OK;
}

static enum status read_feature(struct feat_plan *p, const struct node *map, const char *file,
                                int number) {
    static const char *const common[] = {"name", "kind", "cascade", "attribution", NULL};
    if (map->type != NODE_MAP)
        return fail(STATUS_INVALID_ARGUMENT,
                    "%s:%d: features[%d]: a %s where {name: ..., kind: ..., ...} should stand",
                    file, map->line, number, node_type_word(map->type));
    struct feat *f = ARENA_NEW(&p->arena, struct feat);
    f->number = number;
    f->line = map->line;
    f->table = f->place = -1;
    TRY(read_name(p, map, file, number, &f->name));
    TRY(read_kind(map, file, f->name, &f->kind));
    f->params = arena_zalloc(&p->arena, f->kind->params_bytes);
    const char *section = arena_printf(&p->arena, "features.%s", f->name);
    struct conf_place place = {file, section};
    TRY(refuse_gone(f, map, file));
    TRY(conf_read(f->kind->params, map, place, common, f->params, &p->arena));
    p->wanted = 0;
    TRY(at_line(f->kind->check(p, f), file, f->line, section));
    TRY(at_line(check_names(f), file, f->line, section));
    TRY(at_line(feat_join_claim(p, f, map), file, f->line, section));
    f->wants = p->wanted != 0 ? p->wanted : FEAT_WANTS_IMPRESSIONS | FEAT_WANTS_INTERACTIONS;
    p->features[number] = f;
    return STATUS_OK;
}

static bool is_checked_first(const struct node *map) {
    const struct node *word = map->type == NODE_MAP ? node_get(map, "kind") : NULL;
    const struct feat_kind *kind = word != NULL ? feat_kind_find(word->text) : NULL;
    return kind != NULL && kind->checked_first;
}

/* Twice over the list: what declares tables, then what may refer to earlier features. */
static enum status read_features(struct feat_plan *p, const struct node *list, const char *file) {
    p->features = ARENA_ARRAY(&p->arena, struct feat *, list->n);
    p->n_features = list->n;
    for (int turn = 0; turn < 2; turn++) {
        int number = 0;
        for (const struct node *n = list->first; n != NULL; n = n->next, number++)
            if (is_checked_first(n) == (turn == 0))
                TRY(read_feature(p, n, file, number));
    }
    return STATUS_OK;
}

static bool is_query_side(enum feat_side side) { return side == FEAT_USER || side == FEAT_CONTEXT; }

/* Columns and slots side by side, in plan order within a side. */
static void lay_out(struct feat_plan *p) {
    for (int side = 0; side < FEAT_SIDES; side++) {
        bool query = is_query_side((enum feat_side)side);
        int *columns = query ? &p->query_columns : &p->cand_columns;
        int *slots = query ? &p->query_slots : &p->cand_slots;
        int before = *columns;
        for (int i = 0; i < p->n_features; i++) {
            struct feat *f = p->features[i];
            if (f->side != (enum feat_side)side)
                continue;
            f->column = *columns;
            f->slot = *slots;
            *columns += f->n_columns;
            *slots += f->n_slots;
        }
        p->side_columns[side] = *columns - before;
    }
}

static void name_columns(struct feat_plan *p) {
    p->query_names = ARENA_ARRAY(&p->arena, const char *, p->query_columns + 1);
    p->cand_names = ARENA_ARRAY(&p->arena, const char *, p->cand_columns + 1);
    for (int i = 0; i < p->n_features; i++) {
        const struct feat *f = p->features[i];
        const char **names = is_query_side(f->side) ? p->query_names : p->cand_names;
        for (int k = 0; k < f->n_columns; k++)
            names[f->column + k] =
                f->column_names == NULL || f->column_names[k] == NULL
                    ? f->name
                    : arena_printf(&p->arena, "%s.%s", f->name, f->column_names[k]);
    }
}

/* Not where they are not set: plans from before there were joins keep their hash. */
static void name_joins(const struct feat *f, struct json *j) {
    if (f->cascade != NULL) {
        json_key(j, "cascade");
        json_cstr(j, f->cascade->name);
    }
    if (f->attribution != NULL) {
        json_key(j, "attribution");
        json_cstr(j, f->attribution->name);
    }
}

static void fingerprint(struct feat_plan *p) {
    struct buf text = {0};
    struct json j;
    json_begin(&j, &text);
    json_object(&j);
    json_key(&j, "format");
    json_int(&j, STATE_FORMAT);
    json_key(&j, "lateness_us");
    json_int(&j, p->lateness_us);
    if (p->ahead_us != AHEAD_DEFAULT_US) { /* else plans from before it would have another hash */
        json_key(&j, "ahead_us");
        json_int(&j, p->ahead_us);
    }
    json_key(&j, "features");
    json_array(&j);
    for (int i = 0; i < p->n_features; i++) {
        const struct feat *f = p->features[i];
        json_object(&j);
        json_key(&j, "name");
        json_cstr(&j, f->name);
        json_key(&j, "kind");
        json_cstr(&j, f->kind->name);
        conf_write_json(f->kind->params, f->params, &j);
        name_joins(f, &j);
        json_object_end(&j);
    }
    json_array_end(&j);
    json_object_end(&j);
    p->fingerprint = hash_bytes(buf_slice(&text), 0);
    p->json = arena_strdup(&p->arena, buf_slice(&text));
    buf_deinit(&text);
}

static enum status fill(struct feat_plan *p, const struct node *map, const char *file) {
    static const char *const also[] = {"features", NULL};
    if (map->type != NODE_MAP)
        return fail(STATUS_INVALID_ARGUMENT, "%s: a plan is a map with the key 'features'", file);
    struct plan_conf conf = {0};
    TRY(conf_read(plan_items, map, (struct conf_place){file, "plan"}, also, &conf, &p->arena));
    p->lateness_us = conf.lateness_us;
    p->ahead_us = conf.ahead_us;
    const struct node *list = node_get(map, "features");
    if (list == NULL || list->type != NODE_LIST || list->n == 0)
        return fail(STATUS_INVALID_ARGUMENT, "%s:%d: features: a list of features is needed", file,
                    list == NULL ? map->line : list->line);
    if (list->n > FEAT_FEATURES_MAX)
        return fail(STATUS_INVALID_ARGUMENT, "%s:%d: features: %d features; at most %d", file,
                    list->line, list->n, FEAT_FEATURES_MAX);
    p->tables = ARENA_ARRAY(&p->arena, struct feat_table, list->n);
    for (int scope = 0; scope < FEAT_SCOPES; scope++)
        p->n_cells[scope] = 1; /* cell 0: the remembered fields */
    TRY(read_features(p, list, file));
    lay_out(p);
    if (p->query_columns + p->cand_columns > COLUMNS_MAX ||
        p->query_slots + p->cand_slots > COLUMNS_MAX)
        return fail(STATUS_INVALID_ARGUMENT, "%s: %d columns and %d id slots; at most %d of each",
                    file, p->query_columns + p->cand_columns, p->query_slots + p->cand_slots,
                    COLUMNS_MAX);
    name_columns(p);
    fingerprint(p);
    return STATUS_OK;
}

enum status feat_plan_parse(const struct node *map, const char *file, struct feat_plan **out) {
    struct feat_plan *p = HEAP_NEW(struct feat_plan);
    arena_init(&p->arena, 0);
    enum status status = fill(p, map, file);
    if (status != STATUS_OK) {
        feat_plan_free(p);
        return status;
    }
    *out = p;
    return STATUS_OK;
}

enum status feat_plan_load(const char *path, struct feat_plan **out) {
    struct arena a;
    arena_init(&a, 0);
    struct node *map = NULL;
    enum status status = node_load_yaml(&a, path, &map);
    if (status == STATUS_OK)
        status = feat_plan_parse(map, path, out);
    arena_deinit(&a);
    return status;
}

void feat_plan_free(struct feat_plan *p) {
    if (p == NULL)
        return;
    arena_deinit(&p->arena);
    heap_free(p);
}
