/* keys.h: from names to 64-bit keys. An entity's key is the hash of its id, XORed with its
 * tenant's hash (0 for no tenant), so that the id's own hash can be had back where a vocabulary
 * needs it. A value's key is the hash of its text; the number 1995 and the text "1995" are equal.
 */
#pragma once
#include "features/plan.h"

uint64_t feat_tenant_hash(struct slice tenant);                  /* 0: no tenant */
uint64_t feat_entity_key(uint64_t tenant_hash, struct slice id); /* 0: no id */
uint64_t feat_global_key(uint64_t tenant_hash);                  /* never 0 */
uint64_t feat_text_key(struct slice text);
uint64_t feat_number_key(double v);
/* Keys of a value's strings or numbers, in order, at most FEAT_IDS_MAX. */
int feat_value_keys(const struct ev_value *v, uint64_t *out /* [FEAT_IDS_MAX] */);
