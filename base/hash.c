/* hash.c: XXH3-64 (Yann Collet). Values stand in snapshots and model files, so the function must
 * never change; a test holds known values. */
#include "base/hash.h"
#include <xxhash.h>

uint64_t hash_bytes(struct slice s, uint64_t seed) {
    return XXH3_64bits_withSeed(s.n ? s.p : "", s.n, seed);
}
