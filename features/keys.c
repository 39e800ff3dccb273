/* keys.c: keys of entities and of values: names packed where they fit, hashed where they do not. */
#include "features/keys.h"
#include "base/hash.h"
#include "features/state.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TENANT_SEED 0x74656e616e74ull

enum { LETTER_BITS = 6, DIGITS_MAX = 18 };

/* 1 to 63; 0: this character stands in no prefix. */
static uint64_t letter(char c) {
    static const char signs[] = "_-:./#$@|+~";
    if (c >= 'a' && c <= 'z')
        return 1 + (uint64_t)(c - 'a');
    if (c >= 'A' && c <= 'Z')
        return 27 + (uint64_t)(c - 'A');
    const char *at = c == '\0' ? NULL : strchr(signs, c);
    return at == NULL ? 0 : 53 + (uint64_t)(at - signs);
}

static bool is_digit(char c) { return (unsigned char)(c - '0') < 10; }

/* Six bits a letter from the top, six of 0, and the number in what is left: 57 bits of it without
 * letters, 27 after five. A number is written in one way only, so different names are different
 * bits. False: a name of another sort, or too long. */
static bool pack(struct slice name, uint64_t *out) {
    uint64_t bits = FEAT_KEY_PACKED, number = 0, code;
    int room = 63;
    size_t at = 0;
    for (; at < name.n && !is_digit(name.p[at]); at++) {
        room -= LETTER_BITS;
        code = letter(name.p[at]);
        if (code == 0 || room <= LETTER_BITS)
            return false;
        bits |= code << room;
    }
    room -= LETTER_BITS;
    size_t digits = name.n - at;
    if (digits == 0 || digits > DIGITS_MAX || (name.p[at] == '0' && digits > 1))
        return false;
    for (; at < name.n; at++) {
        if (!is_digit(name.p[at]))
            return false;
        number = number * 10 + (uint64_t)(name.p[at] - '0');
    }
    *out = bits | number;
    return number >> room == 0;
}

static uint64_t plain_of(struct slice text, uint64_t tenant_hash) {
    uint64_t plain;
    if (pack(text, &plain))
        return plain ^ tenant_hash;
    plain = (hash_bytes(text, 0) ^ tenant_hash) & ~FEAT_KEY_PACKED;
    return plain == 0 ? 1 : plain;
}

uint64_t feat_tenant_hash(struct slice tenant) {
    return tenant.n == 0 ? 0 : hash_bytes(tenant, TENANT_SEED) & ~FEAT_KEY_PACKED;
}

uint64_t feat_text_key(struct slice text) { return feat_key_spread(plain_of(text, 0)); }

uint64_t feat_entity_key(uint64_t tenant_hash, struct slice id) {
    return id.n == 0 ? 0 : feat_key_spread(plain_of(id, tenant_hash));
}

uint64_t feat_entity_text_key(uint64_t tenant_hash, uint64_t key) {
    uint64_t plain = feat_key_plain(key) ^ tenant_hash;
    return feat_key_spread(plain == 0 ? 1 : plain);
}

uint64_t feat_global_key(uint64_t tenant_hash) { return tenant_hash == 0 ? 1 : tenant_hash; }

uint64_t feat_item_key(struct slice tenant, struct slice item) {
    return feat_entity_key(feat_tenant_hash(tenant), item);
}

uint64_t feat_user_key(struct slice tenant, struct slice user) {
    return feat_entity_key(feat_tenant_hash(tenant), user);
}

/* The shortest text that reads back equal, as a person would write it. */
uint64_t feat_number_key(double v) {
    char text[40];
    int n = 0;
    if (fabs(v) < 1e15 && v == (double)(int64_t)v) {
        n = snprintf(text, sizeof text, "%lld", (long long)v);
    } else {
        for (int digits = 15; digits <= 17; digits++) {
            n = snprintf(text, sizeof text, "%.*g", digits, v);
            if (strtod(text, NULL) == v)
                break;
        }
    }
    return feat_text_key((struct slice){text, (size_t)n});
}

int feat_value_keys(const struct ev_value *v, uint64_t *out) {
    int n = 0;
    switch (v->type) {
    case EV_BOOL:
        out[n++] = feat_text_key(slice_of(v->boolean ? "true" : "false"));
        break;
    case EV_NUMBER:
        out[n++] = feat_number_key(v->number);
        break;
    case EV_STRING:
        out[n++] = feat_text_key(v->string);
        break;
    case EV_NUMBERS:
        for (; n < v->numbers.n && n < FEAT_IDS_MAX; n++)
            out[n] = feat_number_key(v->numbers.v[n]);
        break;
    case EV_STRINGS:
        for (; n < v->strings.n && n < FEAT_IDS_MAX; n++)
            out[n] = feat_text_key(v->strings.v[n]);
        break;
    }
    return n;
}
