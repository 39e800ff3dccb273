/* rng.c: xoshiro256++ 1.0 (Blackman & Vigna, "Scrambled linear pseudorandom number generators",
 * 2021), seeded by splitmix64; bounded integers by Lemire's method ("Fast random integer
 * generation in an interval", 2019). Not for secrets. */
#include "base/rng.h"
#include <assert.h>
#include <math.h>

static uint64_t rotl(uint64_t x, int k) { return (x << k) | (x >> (64 - k)); }

void rng_init(struct rng *r, uint64_t seed) {
    for (int i = 0; i < 4; i++) {
        uint64_t z = seed += 0x9E3779B97F4A7C15ull;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
        r->s[i] = z ^ (z >> 31);
    }
}

uint64_t rng_u64(struct rng *r) {
    uint64_t *s = r->s, result = rotl(s[0] + s[3], 23) + s[0], t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return result;
}

uint32_t rng_below(struct rng *r, uint32_t n) {
    assert(n > 0);
    uint64_t m = (rng_u64(r) >> 32) * n;
    if ((uint32_t)m < n) {
        uint32_t threshold = -n % n; /* 2^32 mod n: the values that would come up once too often */
        while ((uint32_t)m < threshold)
            m = (rng_u64(r) >> 32) * n;
    }
    return (uint32_t)(m >> 32);
}

double rng_double(struct rng *r) { return (double)(rng_u64(r) >> 11) * 0x1.0p-53; }
float rng_float(struct rng *r) { return (float)(rng_u64(r) >> 40) * 0x1.0p-24f; }

double rng_normal(struct rng *r) {
    double u = 1.0 - rng_double(r); /* (0, 1]: the logarithm is finite */
    double v = rng_double(r);
    return sqrt(-2.0 * log(u)) * cos(2.0 * 3.14159265358979323846 * v);
}

void rng_shuffle_u32(struct rng *r, uint32_t *v, uint32_t n) {
    for (uint32_t i = n; i > 1; i--) {
        uint32_t j = rng_below(r, i), t = v[i - 1];
        v[i - 1] = v[j];
        v[j] = t;
    }
}
