/* keys.h: from names to 64-bit keys, the one place that makes them. A short and regular name, some
 * letters and a number as i1234 or user_77, *is* its key's plain form, packed: two such names never
 * share a key. All others have a hash, told apart by the top bit: 63 bits of users and sessions, of
 * whom no two may ever be taken for each other, 47 of items and values, which stand in lists and by
 * themselves take six bytes there. An entity's plain form is XORed with its tenant's hash (0 for no
 * tenant), which leaves that bit alone. A value's key is the key of its text; the number 1995 and
 * the text "1995" are equal.
 *
 * The key itself is the plain form spread over all bits, one to one: tables may take buckets from
 * any of them. Where keys are listed (last_n), plain forms are what differs by little.
 */
#pragma once
#include "features/plan.h"

#define FEAT_KEY_PACKED (1ull << 63)       /* of plain forms: the name itself, no hash */
#define FEAT_KEY_LISTED ((1ull << 47) - 1) /* bits of a hash that keys of items and values have */

/* A multiplication between two shifts by half, each of them its own inverse. */
static inline uint64_t feat_key_spread(uint64_t plain) {
    uint64_t k = (plain ^ plain >> 32) * 0x9E3779B97F4A7C15ull;
    return k ^ k >> 32;
}
static inline uint64_t feat_key_plain(uint64_t key) {
    uint64_t k = (key ^ key >> 32) * 0xF1DE83E19937733Dull;
    return k ^ k >> 32;
}

uint64_t feat_tenant_hash(struct slice tenant);                  /* 0: no tenant */
uint64_t feat_entity_key(uint64_t tenant_hash, struct slice id); /* of an item; 0: no id */
uint64_t feat_person_key(uint64_t tenant_hash,
                         struct slice id);      /* of a user or session; 0: no id */
uint64_t feat_global_key(uint64_t tenant_hash); /* never 0 */
uint64_t feat_text_key(struct slice text);      /* never 0 */
uint64_t feat_number_key(double v);
/* Of an entity's key: the key of its id as a text, for vocabularies. */
uint64_t feat_entity_text_key(uint64_t tenant_hash, uint64_t key);
/* Keys of a value's strings or numbers, in order, at most FEAT_IDS_MAX. */
int feat_value_keys(const struct ev_value *v, uint64_t *out /* [FEAT_IDS_MAX] */);
