/* spots.c: a request's view of crossed scopes: which records of FEAT_SCOPE_VALUE each row reads.
 * One fetch per place; rows that share a value share its view. */
#include "features/places.h"
#include "features/index.h"
#include "features/shares.h"
#include "features/state_parts.h"

/* What a part can be at a row. */
static void choose(const struct feat_part *part, const struct feat_read *r, int row,
                   struct feat_choices *out) {
    uint64_t keys[FEAT_IDS_MAX];
    out->n = 0;
    switch (part->kind) {
    case FEAT_PART_USER:
        feat_choices_add(out, r->user_key, FEAT_SPOTS_MAX);
        return;
    case FEAT_PART_SESSION:
        feat_choices_add(out, r->session_key, FEAT_SPOTS_MAX);
        return;
    case FEAT_PART_ITEM:
        feat_choices_add(out, r->item_keys[row], FEAT_SPOTS_MAX);
        return;
    default:
        for (int i = 0, n = feat_source_ids(&part->source, r, row, keys); i < n; i++)
            feat_choices_add(out, keys[i], FEAT_SPOTS_MAX);
    }
}

static int keys_of_row(const struct feat_place *pl, const struct feat_read *r, int row,
                       uint64_t *out) {
    struct feat_choices choices[FEAT_PARTS_MAX];
    for (int i = 0; i < pl->n_parts; i++)
        choose(&pl->parts[i], r, row, &choices[i]);
    return feat_place_keys(pl, r->tenant_hash, choices, out);
}

/* Each key once, fetched; row by row the views. */
static void read_place(const struct feat_place *pl, struct feat_read *r, struct feat_spots *out) {
    int n_rows = pl->by_row ? r->n_rows : 1, total = 0, distinct = 0;
    size_t most = (size_t)n_rows * FEAT_SPOTS_MAX;
    uint64_t *keys = arena_alloc(r->arena, most * sizeof *keys);
    uint64_t *once = arena_alloc(r->arena, most * sizeof *once);
    uint32_t *which = arena_alloc(r->arena, most * sizeof *which);
    struct feat_index known;
    feat_index_init(&known, r->arena, most);
    out->first = ARENA_ARRAY(r->arena, int, n_rows);
    out->n = ARENA_ARRAY(r->arena, int, n_rows);
    out->same = ARENA_ARRAY(r->arena, int, n_rows);
    int *bearer = arena_alloc(r->arena, most * sizeof *bearer); /* the first row with just this */
    for (int row = 0; row < n_rows; row++) {
        out->first[row] = total;
        out->n[row] = keys_of_row(pl, r, pl->by_row ? row : -1, keys + total);
        for (int i = total; i < total + out->n[row]; i++) {
            uint32_t *slot = feat_index_at(&known, keys[i]);
            if (*slot == 0) {
                bearer[distinct] = -1;
                once[distinct++] = keys[i];
                *slot = (uint32_t)distinct;
            }
            which[i] = *slot - 1;
        }
        out->same[row] = row;
        if (out->n[row] == 1) {
            int *first = &bearer[which[total]];
            *first = *first < 0 ? row : *first;
            out->same[row] = *first;
        }
        total += out->n[row];
    }
    const struct feat_record **views =
        arena_alloc(r->arena, (size_t)distinct * sizeof(const struct feat_record *));
    if (pl->sums)
        feat_state_sums(r->state, r->arena, once, distinct, views);
    else
        feat_state_records(r->state, r->arena, FEAT_SCOPE_VALUE, once, distinct, views);
    out->records = arena_alloc(r->arena, (size_t)total * sizeof *out->records);
    for (int i = 0; i < total; i++)
        out->records[i] = views[which[i]];
}

const struct feat_spots *feat_places_read(struct feat_read *r) {
    const struct feat_plan *p = r->plan;
    struct feat_spots *spots = ARENA_ARRAY(r->arena, struct feat_spots, p->n_places);
    for (int i = 0; i < p->n_places; i++)
        if (p->places[i].is_read)
            read_place(&p->places[i], r, &spots[i]);
    return spots;
}
