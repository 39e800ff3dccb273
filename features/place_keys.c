/* place_keys.c: crossed scopes: their settings, and their keys. A record that stands for a value or
 * a pair has a key that mixes the place's name, the tenant and the parts' keys. */
#include "features/places.h"
#include "base/hash.h"
#include "features/claim.h"
#include "features/shares.h"

/* ---- settings ---- */

static enum status fail_part(const char *text) {
    if (strcmp(text, "global") == 0)
        return fail(STATUS_INVALID_ARGUMENT, "scope: 'global' crosses nothing and stands alone");
    if (strncmp(text, "user.", 5) == 0)
        return fail(STATUS_INVALID_ARGUMENT,
                    "scope: '%s': what a user bears is no scope; context.%s is the field as the "
                    "event itself carries it",
                    text, text + 5);
    static const char *const words[] = {"global", "user",    "session", "item",
                                        "event",  "context", NULL};
    struct slice head = slice_of(text);
    const char *dot = strchr(text, '.');
    if (dot != NULL)
        head.n = (size_t)(dot - text);
    const char *near = conf_nearest(head, words);
    return fail(STATUS_INVALID_ARGUMENT,
                "scope: '%s' is none of global user session item item.FIELD event.FIELD "
                "context.FIELD%s%s%s",
                text, near != NULL ? "; did you mean '" : "", near != NULL ? near : "",
                near != NULL ? "'?" : "");
}

static bool has_head(const char *text, const char *head) {
    size_t n = strlen(head);
    return strncmp(text, head, n) == 0 && text[n] == '.' && text[n + 1] != '\0';
}

static enum status read_part(struct feat_plan *p, const char *text, struct feat_part *out) {
    static const struct {
        const char *word;
        enum feat_part_kind kind;
    } ids[] = {{"user", FEAT_PART_USER}, {"session", FEAT_PART_SESSION}, {"item", FEAT_PART_ITEM}};
    for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++)
        if (strcmp(text, ids[i].word) == 0) {
            *out = (struct feat_part){.kind = ids[i].kind};
            return STATUS_OK;
        }
    enum feat_part_kind kind = has_head(text, "item")      ? FEAT_PART_SUM
                               : has_head(text, "event")   ? FEAT_PART_EVENT
                               : has_head(text, "context") ? FEAT_PART_CONTEXT
                                                           : FEAT_PART_USER;
    if (kind == FEAT_PART_USER)
        return fail_part(text);
    const char *field = strchr(text, '.') + 1;
    const char *source =
        arena_printf(&p->arena, "%s.%s", kind == FEAT_PART_CONTEXT ? "context" : "item", field);
    *out = (struct feat_part){.kind = kind, .field = arena_dup(&p->arena, slice_of(field))};
    return feat_claim_source(p, "scope", source, FEAT_AS_IDS, &out->source);
}

static bool is_of_item(enum feat_part_kind kind) {
    return kind == FEAT_PART_ITEM || kind == FEAT_PART_EVENT || kind == FEAT_PART_SUM;
}

/* An equal place, or a new one. */
static enum status add_place(struct feat_plan *p, const struct feat_place *place, int *out) {
    int i = 0;
    while (i < p->n_places && strcmp(p->places[i].text, place->text) != 0)
        i++;
    if (i == FEAT_PLACES_MAX)
        return fail(STATUS_INVALID_ARGUMENT, "scope: '%s' is the %dth crossed scope; at most %d",
                    place->text, i + 1, FEAT_PLACES_MAX);
    if (i == p->n_places) {
        p->places[p->n_places++] = *place;
        p->sums_items |= place->sums;
        p->places[i].seed = hash_bytes(slice_of(place->text), 0x706c616365ull);
    }
    *out = i;
    return STATUS_OK;
}

static enum feat_side place_side(const struct feat_place *pl) {
    int of_item = 0;
    for (int i = 0; i < pl->n_parts; i++)
        of_item += is_of_item(pl->parts[i].kind);
    return of_item == 0 ? FEAT_CONTEXT : of_item == pl->n_parts ? FEAT_ITEM : FEAT_CROSS;
}

static enum status read_place(struct feat_plan *p, const struct conf_strings *text,
                              struct feat_place *pl) {
    if (text->n > FEAT_PARTS_MAX)
        return fail(STATUS_INVALID_ARGUMENT, "scope: %d parts; at most %d", text->n,
                    FEAT_PARTS_MAX);
    *pl = (struct feat_place){.text = "", .n_parts = text->n};
    for (int i = 0; i < text->n; i++) {
        struct feat_part *part = &pl->parts[i];
        TRY(read_part(p, text->v[i], part));
        for (int k = 0; k < i; k++)
            if (strcmp(text->v[i], text->v[k]) == 0)
                return fail(STATUS_INVALID_ARGUMENT, "scope: '%s' stands there twice", text->v[i]);
        if (part->kind == FEAT_PART_SUM && text->n > 1)
            return fail(STATUS_INVALID_ARGUMENT,
                        "scope: '%s' sums over items and stands alone; event.%s is the field as "
                        "the event itself carries it",
                        text->v[i], part->field.p);
        pl->sums |= part->kind == FEAT_PART_SUM;
        pl->by_row |= is_of_item(part->kind);
        pl->text = arena_printf(&p->arena, "%s%s%s", pl->text, i > 0 ? ", " : "", text->v[i]);
    }
    pl->is_read = true;
    return STATUS_OK;
}

enum status feat_claim_scope(struct feat_plan *p, struct feat *f, const struct conf_strings *text,
                             enum feat_scope *out) {
    if (text->n == 0)
        return fail(STATUS_INVALID_ARGUMENT, "scope: names nothing");
    for (int i = 0; text->n == 1 && i < FEAT_SCOPE_VALUE; i++)
        if (strcmp(text->v[0], feat_scope_words[i]) == 0) {
            *out = (enum feat_scope)i;
            f->side = feat_scope_side(*out);
            return STATUS_OK;
        }
    struct feat_place place;
    TRY(read_place(p, text, &place));
    if (place.sums && f->kind->merge == NULL)
        return fail(STATUS_INVALID_ARGUMENT,
                    "scope: kind %s does not add up over items; use "
                    "event.FIELD",
                    f->kind->name);
    TRY(add_place(p, &place, &f->place));
    f->side = place_side(&place);
    *out = FEAT_SCOPE_VALUE;
    return STATUS_OK;
}

int feat_claim_cell(struct feat_plan *p, struct feat *f, enum feat_scope scope) {
    int number = f->n_cells;
    feat_plan_cell(p, f, scope);
    if (scope == FEAT_SCOPE_VALUE && p->places[f->place].sums)
        feat_plan_cell(p, f, FEAT_SCOPE_ITEM);
    return number;
}

enum status feat_claim_sum(struct feat_plan *p, struct feat *f, const struct feat_source *source,
                           bool with_total) {
    struct feat_place place = {.n_parts = 1, .sums = true, .has_total = with_total};
    place.parts[0] =
        (struct feat_part){.kind = FEAT_PART_SUM, .field = source->field, .source = *source};
    place.text = arena_printf(&p->arena, "item.%s in form %d", source->field.p, (int)source->form);
    TRY(add_place(p, &place, &f->place));
    feat_plan_cell(p, f, FEAT_SCOPE_VALUE);
    return STATUS_OK;
}

/* ---- keys ---- */

#define TOTAL_VALUE 0x746f74616cull

uint64_t feat_place_start(const struct feat_place *pl, uint64_t tenant_hash) {
    return hash_mix(pl->seed, feat_global_key(tenant_hash));
}

static uint64_t not_zero(uint64_t key) { return key == 0 ? 1 : key; }

uint64_t feat_place_value_key(const struct feat_place *pl, uint64_t tenant_hash, uint64_t value) {
    return feat_sum_key(
        hash_mix(feat_place_start(pl, tenant_hash), value == 0 ? TOTAL_VALUE : value));
}

void feat_choices_add(struct feat_choices *c, uint64_t v, int max) {
    if (v == 0 || c->n == max)
        return;
    for (int i = 0; i < c->n; i++)
        if (c->v[i] == v)
            return;
    c->v[c->n++] = v;
}

int feat_place_keys(const struct feat_place *pl, uint64_t tenant_hash,
                    const struct feat_choices *choices, uint64_t *out) {
    uint64_t from[FEAT_SPOTS_MAX] = {feat_place_start(pl, tenant_hash)};
    int n = 1;
    for (int part = 0; part < pl->n_parts; part++) {
        int made = 0;
        for (int i = 0; i < n; i++)
            for (int k = 0; k < choices[part].n && made < FEAT_SPOTS_MAX; k++)
                out[made++] = hash_mix(from[i], choices[part].v[k]);
        n = made;
        memcpy(from, out, (size_t)n * sizeof *out);
    }
    for (int i = 0; i < n; i++)
        out[i] = pl->sums ? feat_sum_key(out[i]) : not_zero(out[i]);
    return n;
}
