/* tally.c: a short list searched from its front; its words are few. */
#include "tools/tally.h"
#include <stdlib.h>
#include "base/hash.h"
#include "base/heap.h"

const struct tally_entry *tally_find(const struct tally *t, struct slice word) {
    uint64_t hash = hash_bytes(word, 0);
    for (int i = 0; i < t->n; i++)
        if (t->entries[i].hash == hash && slice_is(word, t->entries[i].word))
            return &t->entries[i];
    return NULL;
}

static struct tally_entry *entry_of(struct tally *t, struct slice word) {
    const struct tally_entry *known = tally_find(t, word);
    if (known)
        return &t->entries[known - t->entries];
    if (t->n >= TALLY_MAX) {
        word = SLICE_LIT("(others)");
        if (t->n > TALLY_MAX)
            return &t->entries[TALLY_MAX];
    }
    struct tally_entry *e = &t->entries[t->n++];
    *e = (struct tally_entry){.word = heap_alloc(word.n + 1), .hash = hash_bytes(word, 0)};
    if (word.n)
        memcpy(e->word, word.p, word.n);
    return e;
}

void tally_add(struct tally *t, struct slice word, int64_t place) {
    struct tally_entry *e = entry_of(t, word);
    if (e->count < TALLY_PLACES)
        e->places[e->count] = place;
    e->count++;
}

static int by_count(const void *pa, const void *pb) {
    const struct tally_entry *a = pa, *b = pb;
    if (a->count != b->count)
        return a->count > b->count ? -1 : 1;
    return strcmp(a->word, b->word);
}

void tally_sort(struct tally *t) { qsort(t->entries, (size_t)t->n, sizeof *t->entries, by_count); }

void tally_deinit(struct tally *t) {
    for (int i = 0; i < t->n; i++)
        heap_free(t->entries[i].word);
    *t = (struct tally){0};
}
