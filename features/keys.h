/* keys.h: from names to 64-bit keys, the one place that makes them. A short and regular name, some
 * letters and a number as i1234 or user_77, *is* its key's plain form, packed: two such names never
 * share a key. All others have a hash of 63 bits, told apart by the top bit: of a hundred million
 * such names two share a key with a chance of 0.05 %. An entity's plain form is XORed with its
 * tenant's hash (0 for no tenant), which leaves that bit alone. A value's key is the key of its
 * text; the number 1995 and the text "1995" are equal.
 *
 * The key itself is the plain form spread over all bits, one to one: tables may take buckets from
 * any of them. Where keys are listed (last_n), plain forms are what differs by little.
 */
#pragma once
#include "features/plan.h"

#define FEAT_KEY_PACKED (1ull << 63) /* of plain forms: the name itself, no hash */

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
uint64_t feat_entity_key(uint64_t tenant_hash, struct slice id); /* 0: no id */
uint64_t feat_global_key(uint64_t tenant_hash);                  /* never 0 */
uint64_t feat_text_key(struct slice text);                       /* never 0 */
uint64_t feat_number_key(double v);
/* Of an entity's key: the key of its id as a text, for vocabularies. */
uint64_t feat_entity_text_key(uint64_t tenant_hash, uint64_t key);
/* Keys of a value's strings or numbers, in order, at most FEAT_IDS_MAX. */
int feat_value_keys(const struct ev_value *v, uint64_t *out /* [FEAT_IDS_MAX] */);
