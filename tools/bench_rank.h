/* bench_rank.h: `moerank bench rank`: load for a service that runs, as cheap as it can be made. */
#pragma once
#include "tools/options.h"

struct bench_rank_options {
    const char *target;           /* "127.0.0.1:7070" */
    const struct conf_numbers *k; /* candidates of a request; the first counts */
    int64_t seconds, concurrency, catalogue, users;
    const char *requests; /* a file of requests: each once, one at a time; "" */
    const char *method;   /* that they are for */
    int64_t spin_us;      /* how long callers look for an answer before they sleep */
};
/* Ranks random items "i0".. for random users "u0".. and prints how many calls were answered, how
 * fast, and what that cost here. UNAVAILABLE: nobody serves there; and what a call says.
 *
 * A file of requests is sent in its order, after its first fifty again and again for 0.3 s, by one
 * caller: each message is preceded by its length, 4 bytes, little-endian. */
enum status bench_rank(const struct verb_call *call, const struct bench_rank_options *o);
