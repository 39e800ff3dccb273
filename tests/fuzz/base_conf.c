/* base_conf.c: any bytes as "key=value" for a settings table: a legal value, or a message and no
 * change at all. */
#include <string.h>
#include "base/conf.h"
#include "tests/support/fuzz.h"

struct all {
    bool on;
    int64_t count;
    double rate;
    const char *name;
    int mode;
    int64_t ttl_us;
    int64_t memory_bytes;
    struct conf_strings topics;
    struct conf_numbers cuts;
    struct conf_times windows_us;
};
static const struct conf_item items[] = {
    CONF_BOOL(struct all, on, "on", "true", ""),
    CONF_INT(struct all, count, "count", "10", 1, 1000, "", ""),
    CONF_FLOAT(struct all, rate, "rate", "0.5", 0, 1, "", ""),
    CONF_STRING(struct all, name, "name", "x", ""),
    CONF_ENUM(struct all, mode, "mode", "fast", "slow|fast|off", ""),
    CONF_TIME(struct all, ttl_us, "ttl", "30s", 1000, 86400000000.0, ""),
    CONF_BYTES(struct all, memory_bytes, "memory", "64MiB", 1024, 1099511627776.0, ""),
    CONF_STRINGS(struct all, topics, "topics", "a,b", ""),
    CONF_NUMBERS(struct all, cuts, "cuts", "0.5, 2", 0, 10, ""),
    CONF_TIMES(struct all, windows_us, "windows", "1h, 24h", 1, 1e15, ""),
    CONF_END};

static bool legal(const struct all *v) {
    bool ok = v->count >= 1 && v->count <= 1000 && v->rate >= 0 && v->rate <= 1 && v->mode >= 0 &&
              v->mode <= 2 && v->ttl_us >= 1000 && v->ttl_us <= 86400000000 &&
              v->memory_bytes >= 1024 && v->memory_bytes <= 1099511627776;
    for (int i = 0; i < v->cuts.n; i++)
        ok = ok && v->cuts.v[i] >= 0 && v->cuts.v[i] <= 10;
    for (int i = 0; i < v->windows_us.n; i++)
        ok = ok && v->windows_us.v[i] >= 1;
    return ok;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    struct arena a;
    struct all v, before;
    arena_init(&a, 0);
    memset(&v, 0, sizeof v);
    conf_defaults(items, &v, &a);
    memcpy(&before, &v, sizeof v);
    const char *p = (const char *)data, *equals = n ? memchr(p, '=', n) : NULL;
    size_t key_n = equals ? (size_t)(equals - p) : n;
    struct slice value = {equals ? equals + 1 : "", equals ? n - key_n - 1 : 0};
    enum status s = conf_set(items, (struct slice){p, key_n}, value,
                             (struct conf_place){"fuzz", "section"}, &v, &a);
    FUZZ_CHECK(legal(&v));
    if (s != STATUS_OK)
        FUZZ_CHECK(s == STATUS_INVALID_ARGUMENT && memcmp(&v, &before, sizeof v) == 0);
    arena_deinit(&a);
    return 0;
}
