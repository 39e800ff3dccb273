/* text.c: tokens of a text. One pass decodes UTF-8 into small letters; bytes that are no UTF-8
 * count as letters of their own, so that every text has tokens. */
#include "features/text.h"
#include <stdbool.h>
#include "base/hash.h"

enum { WORD_LETTERS_MAX = 64 };

/* The code point at *p, which is moved on. */
static uint32_t next_point(const unsigned char **p, const unsigned char *end) {
    uint32_t c = *(*p)++;
    int more = c >= 0xF0 ? 3 : c >= 0xE0 ? 2 : c >= 0xC0 ? 1 : 0;
    if (c < 0x80 || more == 0 || end - *p < more)
        return c;
    uint32_t point = c & (0x3Fu >> more);
    for (int i = 0; i < more; i++) {
        if ((*p)[i] >> 6 != 2)
            return c;
        point = point << 6 | ((*p)[i] & 0x3Fu);
    }
    *p += more;
    return point;
}

static uint32_t small(uint32_t c) {
    if ((c >= 'A' && c <= 'Z') || (c >= 0xC0 && c <= 0xDE && c != 0xD7) ||
        (c >= 0x391 && c <= 0x3A9) || (c >= 0x410 && c <= 0x42F))
        return c + 32;
    if (c >= 0x400 && c <= 0x40F)
        return c + 80;
    if ((c >= 0x100 && c <= 0x137) || (c >= 0x14A && c <= 0x177))
        return c | 1; /* Latin Extended-A: capitals are even */
    return c;
}

static bool is_letter(uint32_t c) {
    return c >= 0x80 ? c != 0xA0 && !(c >= 0x2000 && c <= 0x206F) && c != 0x3000
                     : (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z');
}

struct words {
    const unsigned char *p, *end;
    uint32_t letters[WORD_LETTERS_MAX]; /* [n] of the word at hand */
    int n;
};

static bool next_word(struct words *w) {
    w->n = 0;
    while (w->p < w->end) {
        uint32_t c = small(next_point(&w->p, w->end));
        if (is_letter(c)) {
            if (w->n < WORD_LETTERS_MAX)
                w->letters[w->n++] = c;
        } else if (w->n > 0) {
            return true;
        }
    }
    return w->n > 0;
}

static struct words words_of(struct slice text) {
    const unsigned char *p = (const unsigned char *)text.p;
    return (struct words){.p = p, .end = p + text.n};
}

static uint32_t hash_letters(const uint32_t *letters, int n) {
    struct slice s = {(const char *)letters, (size_t)n * sizeof *letters};
    return (uint32_t)hash_bytes(s, 0);
}

int feat_text_terms(struct slice text, uint32_t *out, int max) {
    struct words w = words_of(text);
    int n = 0;
    while (n < max && next_word(&w))
        out[n++] = hash_letters(w.letters, w.n);
    return n;
}

int feat_text_words(struct slice text) {
    struct words w = words_of(text);
    int n = 0;
    while (next_word(&w))
        n++;
    return n;
}

int feat_text_grams(struct slice text, int length, uint32_t *out, int max) {
    struct words w = words_of(text);
    int n = 0;
    while (n < max && next_word(&w)) {
        int runs = w.n < length ? 1 : w.n - length + 1;
        for (int i = 0; i < runs && n < max; i++)
            out[n++] = hash_letters(&w.letters[i], w.n < length ? w.n : length);
    }
    return feat_text_distinct(out, n);
}

int feat_text_distinct(uint32_t *v, int n) {
    int kept = 0;
    for (int i = 0; i < n; i++) { /* insertion: lists are short */
        uint32_t x = v[i];
        int at = kept;
        while (at > 0 && v[at - 1] > x)
            at--;
        if (at > 0 && v[at - 1] == x)
            continue;
        for (int k = kept; k > at; k--)
            v[k] = v[k - 1];
        v[at] = x;
        kept++;
    }
    return kept;
}

int feat_text_shared(const uint32_t *a, int n_a, const uint32_t *b, int n_b) {
    int shared = 0;
    for (int i = 0, k = 0; i < n_a && k < n_b;) {
        shared += a[i] == b[k];
        uint32_t x = a[i], y = b[k];
        i += x <= y;
        k += y <= x;
    }
    return shared;
}
