/* Every decoder of proto/ against hostile bytes.
 *
 *     fuzz_proto_decode [FOLDER [MUTATIONS [SEED]]]
 *
 * replays a folder of inputs (tests/fuzz/corpus/proto_decode) and then seeded mutations of them:
 * the same on every run. With -DMOERANK_FUZZER and -fsanitize=fuzzer it is a libFuzzer target. */
#include <dirent.h>
#include "base/rng.h"
#include "tests/fuzz/proto_targets.h"

static struct arena arena;
static struct buf scratch;

static void run(const void *p, size_t n) {
    if (!arena.chunk_bytes)
        arena_init(&arena, 0);
    target_all(&arena, &scratch, p, n);
}

#ifdef MOERANK_FUZZER

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    run(p, n);
    return 0;
}

#else

enum { INPUTS_MAX = 1000, INPUT_BYTES_MAX = 1 << 16, MUTATIONS = 200000 };
static struct slice inputs[INPUTS_MAX];
static int n_inputs;

static int by_content(const void *x, const void *y) {
    const struct slice *p = x, *q = y;
    int order = memcmp(p->p, q->p, p->n < q->n ? p->n : q->n);
    return order ? order : (p->n > q->n) - (p->n < q->n);
}

/* Sorted, so that the order of a folder does not change what a seed does. */
static void load(const char *folder) {
    DIR *d = opendir(folder);
    if (!d) {
        printf("%s: cannot be read\n", folder);
        exit(1);
    }
    for (struct dirent *e; (e = readdir(d)) && n_inputs < INPUTS_MAX;) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        FILE *f = e->d_name[0] == '.' ? NULL : fopen(path, "rb");
        if (!f)
            continue;
        char *p = malloc(INPUT_BYTES_MAX);
        inputs[n_inputs++] = (struct slice){p, fread(p, 1, INPUT_BYTES_MAX, f)};
        fclose(f);
    }
    closedir(d);
    if (n_inputs == 0) {
        printf("%s: no inputs\n", folder);
        exit(1);
    }
    qsort(inputs, (size_t)n_inputs, sizeof *inputs, by_content);
}

static size_t below(struct rng *r, size_t n) { return n ? rng_below(r, (uint32_t)n) : 0; }

/* One small change; lengths stay below INPUT_BYTES_MAX. */
static size_t mutate(struct rng *r, uint8_t *p, size_t n) {
    static const uint8_t telling[] = {0, 1, 0x7F, 0x80, 0xFF, '{', '}', '"', '[', '\\', ',', '0'};
    size_t at = below(r, n), room = INPUT_BYTES_MAX - n;
    switch (rng_below(r, 7)) {
    case 0: /* a bit */
        if (n)
            p[at] ^= (uint8_t)(1u << rng_below(r, 8));
        return n;
    case 1: /* a byte */
        if (n)
            p[at] = telling[rng_below(r, sizeof telling)];
        return n;
    case 2: /* cut the end off */
        return at;
    case 3: { /* take some out */
        size_t gone = below(r, n - at < 9 ? n - at : 9);
        memmove(p + at, p + at + gone, n - at - gone);
        return n - gone;
    }
    case 4: { /* repeat some */
        size_t more = below(r, n - at < room ? n - at : room);
        memmove(p + at + more, p + at, n - at);
        return n + more;
    }
    case 5: /* put a byte in */
        if (room == 0)
            return n;
        memmove(p + at + 1, p + at, n - at);
        p[at] = telling[rng_below(r, sizeof telling)];
        return n + 1;
    default: { /* the end of another input */
        struct slice other = inputs[below(r, (size_t)n_inputs)];
        size_t from = below(r, other.n), k = other.n - from;
        k = k < INPUT_BYTES_MAX - at ? k : INPUT_BYTES_MAX - at;
        memcpy(p + at, other.p + from, k);
        return at + k;
    }
    }
}

int main(int argc, char **argv) {
    const char *folder = argc > 1 ? argv[1] : TESTS_DIR "/fuzz/corpus/proto_decode";
    long mutations = argc > 2 ? atol(argv[2]) : MUTATIONS;
    struct rng r;
    rng_init(&r, argc > 3 ? strtoull(argv[3], NULL, 10) : 1);
    load(folder);
    for (int i = 0; i < n_inputs; i++)
        run(inputs[i].p, inputs[i].n);
    static uint8_t bytes[INPUT_BYTES_MAX];
    for (long i = 0; i < mutations; i++) {
        struct slice from = inputs[below(&r, (size_t)n_inputs)];
        size_t n = from.n;
        memcpy(bytes, from.p, n);
        for (uint32_t k = 1 + rng_below(&r, 4); k; k--)
            n = mutate(&r, bytes, n);
        run(bytes, n);
    }
    printf("%d inputs, %ld mutations\n", n_inputs, mutations);
    for (int i = 0; i < n_inputs; i++)
        free((char *)inputs[i].p);
    arena_deinit(&arena);
    buf_deinit(&scratch);
    return 0;
}

#endif
