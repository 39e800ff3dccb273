/* keys.c: keys of entities and of values. */
#include "features/keys.h"
#include "base/hash.h"
#include "features/state.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define TENANT_SEED 0x74656e616e74ull

uint64_t feat_tenant_hash(struct slice tenant) {
    return tenant.n == 0 ? 0 : hash_bytes(tenant, TENANT_SEED);
}

uint64_t feat_text_key(struct slice text) { return hash_bytes(text, 0); }

uint64_t feat_entity_key(uint64_t tenant_hash, struct slice id) {
    if (id.n == 0)
        return 0;
    uint64_t key = feat_text_key(id) ^ tenant_hash;
    return key == 0 ? 1 : key;
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
