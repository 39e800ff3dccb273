/* hash.h: XXH3 for bytes, one multiply-mix for integers. Values are stable across runs and
 * machines: they stand in snapshots, in Redis and in model files. */
#pragma once
#include <stdint.h>
#include "base/slice.h"

uint64_t hash_bytes(struct slice s, uint64_t seed); /* XXH3-64 */

static inline uint64_t hash_mix(uint64_t a, uint64_t b) {
    unsigned __int128 m =
        (unsigned __int128)(a ^ 0x9E3779B97F4A7C15ull) * (b ^ 0xD1B54A32D192ED03ull);
    return (uint64_t)m ^ (uint64_t)(m >> 64);
}
