/* fuzz.c: a plain main for fuzz targets, linked where libFuzzer is not.
 *
 *     fuzz_base_json tests/fuzz/corpus/base_json [ROUNDS]
 *
 * Runs LLVMFuzzerTestOneInput on every file of the folder, then on ROUNDS damaged copies of each
 * (cut, flipped, doubled, spliced; seeded, so each run is the same). Inputs stand at the end of
 * blocks of their exact size, so that a sanitizer sees the first byte read too far. This is a
 * regression test; the search for new inputs is libFuzzer's (CMake option MOERANK_FUZZER). */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include "base/heap.h"
#include "base/io.h"
#include "base/rng.h"
#include "tests/support/fuzz.h"

enum { FILES_MAX = 1000, FILE_BYTES_MAX = 1 << 20, ROUNDS = 300 };

static void run(struct slice s) {
    uint8_t *exact = heap_alloc(s.n);
    if (s.n)
        memcpy(exact, s.p, s.n);
    LLVMFuzzerTestOneInput(exact, s.n);
    heap_free(exact);
}

static void damage_once(struct buf *b, struct slice other, struct rng *r) {
    size_t at = b->n ? rng_below(r, (uint32_t)b->n) : 0;
    size_t n = 1 + rng_below(r, 16);
    switch (rng_below(r, 5)) {
    case 0:
        b->n = at;
        break;
    case 1:
        if (b->n)
            b->p[at] ^= (char)(1u << rng_below(r, 8));
        break;
    case 2:
        if (b->n)
            b->p[at] = (char)rng_u64(r);
        break;
    case 3: { /* a piece of another input */
        size_t from = other.n ? rng_below(r, (uint32_t)other.n) : 0;
        b->n = at;
        buf_add(b, other.p + from, other.n - from);
        break;
    }
    default: /* a few bytes again */
        n = n < b->n - at ? n : b->n - at;
        buf_reserve(b, n + 1);
        memmove(b->p + at + n, b->p + at, b->n - at);
        b->n += n;
    }
}

static int load(const char *folder, struct buf *files) {
    DIR *d = opendir(folder);
    int n = 0;
    if (!d)
        return 0;
    for (struct dirent *e; (e = readdir(d)) && n < FILES_MAX;) {
        char path[4096];
        if (e->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        if (io_read_file(path, FILE_BYTES_MAX, &files[n]) != STATUS_OK) {
            fprintf(stderr, "%s\n", status_message());
            exit(EXIT_FAILURE);
        }
        n++;
    }
    closedir(d);
    return n;
}

int main(int argc, char **argv) {
    static struct buf files[FILES_MAX];
    int n = argc > 1 ? load(argv[1], files) : 0;
    long rounds = argc > 2 ? atol(argv[2]) : ROUNDS;
    if (n == 0) {
        fprintf(stderr, "usage: %s CORPUS_FOLDER [ROUNDS]; the folder must hold inputs\n", argv[0]);
        return EXIT_FAILURE;
    }
    struct rng r;
    struct buf b = {0};
    rng_init(&r, 1);
    for (int i = 0; i < n; i++) {
        run(buf_slice(&files[i]));
        for (long k = 0; k < rounds; k++) {
            buf_clear(&b);
            buf_add(&b, files[i].p, files[i].n);
            for (uint32_t times = 1 + rng_below(&r, 4); times > 0; times--)
                damage_once(&b, buf_slice(&files[rng_below(&r, (uint32_t)n)]), &r);
            run(buf_slice(&b));
        }
    }
    printf("%d inputs, %ld damaged copies of each\n", n, rounds);
    for (int i = 0; i < n; i++)
        buf_deinit(&files[i]);
    buf_deinit(&b);
    return EXIT_SUCCESS;
}
