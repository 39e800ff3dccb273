/* synth_catalogue.c: what items and users are like, as events. */
#include <stdio.h>
#include "tools/synth_parts.h"

struct slice synth_name(char *out, size_t bytes, char letter, int64_t number) {
    int n = snprintf(out, bytes, "%c%lld", letter, (long long)number);
    return (struct slice){out, (size_t)n};
}

struct ev_field synth_text(const char *name, const char *text) {
    struct ev_field f = {.name = slice_of(name), .value.type = EV_STRING};
    f.value.string = slice_of(text);
    return f;
}
struct ev_field synth_number(const char *name, double v) {
    struct ev_field f = {.name = slice_of(name), .value.type = EV_NUMBER};
    f.value.number = v;
    return f;
}

/* Pushes an item or user event with the two or three fields its shape has. */
static enum status push_thing(struct synth *s, struct ev_event *e, char letter, int64_t number,
                              int64_t time_us) {
    char name[24], id[32];
    struct slice named = synth_name(name, sizeof name, letter, number);
    e->id = synth_name(id, sizeof id, 'e', (int64_t)s->n_made);
    e->kind = letter == 'i' ? EV_ITEM : EV_USER;
    *(letter == 'i' ? &e->item : &e->user) = named;
    e->event_time_us = time_us;
    return synth_push(s, e, false);
}

static enum status push_item(struct synth *s, int64_t i, int64_t time_us) {
    struct world_item item;
    char title[64];
    struct slice genres[WORLD_ITEM_GENRES];
    world_item(&s->world, i, &item);
    for (int k = 0; k < item.n_genres; k++)
        genres[k] = slice_of(world_genre_words[item.genres[k]]);
    snprintf(title, sizeof title, "%s no. %lld", world_genre_words[item.genres[0]], (long long)i);
    bool shop = s->conf.shape == SYNTH_RANKINGS;
    int year = 1950 + (int)item.price % 48;
    char era[16];
    snprintf(era, sizeof era, "%d", year / 5 * 5);
    struct ev_field fields[] = {
        synth_text("title", title),
        {.name = SLICE_LIT("genres")},
        shop ? synth_number("price", item.price) : synth_number("year", year),
        synth_text("era", era), /* of ratings */
    };
    fields[1].value.type = EV_STRINGS;
    fields[1].value.strings.v = genres;
    fields[1].value.strings.n = item.n_genres;
    struct ev_event e = {.fields = fields, .n_fields = shop ? 3 : 4};
    return push_thing(s, &e, 'i', i, time_us);
}

static enum status push_user(struct synth *s, int64_t u, int64_t time_us) {
    struct world_user user;
    world_user(&s->world, u, &user);
    const char *segment = world_segment_words[user.segment];
    bool shop = s->conf.shape == SYNTH_RANKINGS;
    struct ev_field fields[] = {synth_text(shop ? "segment" : "occupation", segment),
                                synth_number("age", user.age),
                                synth_text("gender", user.frugal < 1 ? "F" : "M")};
    struct ev_event e = {.fields = fields, .n_fields = shop ? 2 : 3};
    return push_thing(s, &e, 'u', u, time_us);
}

enum status synth_catalogue(struct synth *s) {
    const struct world_conf *c = &s->conf.world;
    int64_t n = c->items + c->users;
    for (int64_t k = 0; k < n; k++) {
        int64_t time_us = s->conf.start_us - (n - k) * 1000;
        TRY(k < c->items ? push_item(s, k, time_us) : push_user(s, k - c->items, time_us));
        TRY(synth_release(s, time_us));
    }
    return STATUS_OK;
}
