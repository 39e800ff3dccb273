/* rng.h: xoshiro256++ (Blackman & Vigna), seeded by splitmix64. Randomness is always an argument;
 * equal seeds give equal streams on every machine. */
#pragma once
#include <stdint.h>

struct rng {
    uint64_t s[4];
};
void rng_init(struct rng *r, uint64_t seed);
uint64_t rng_u64(struct rng *r);
uint32_t rng_below(struct rng *r, uint32_t n); /* uniform in [0, n), unbiased; n > 0 */
double rng_double(struct rng *r);              /* [0, 1) */
float rng_float(struct rng *r);                /* [0, 1) */
double rng_normal(struct rng *r);              /* N(0, 1), Box-Muller, one of the pair */
void rng_shuffle_u32(struct rng *r, uint32_t *v, uint32_t n);
