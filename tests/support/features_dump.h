/* Dumps of two states beside each other. */
#pragma once
#include <stdio.h>
#include <unistd.h>
#include "base/buf.h"
#include "base/io.h"
#include "features/state.h"
#include "tests/support/suite.h"

static inline void dump_of(struct feat_state *s, struct buf *out) {
    char path[64];
    snprintf(path, sizeof path, "/tmp/features_dump.%ld", (long)getpid());
    CHECK_OK(feat_state_dump(s, 0, path));
    CHECK_OK(io_read_file(path, 1 << 26, out));
    unlink(path);
}

/* Prints the first line that differs. */
static inline bool same_dump(struct feat_state *s, struct feat_state *t) {
    struct buf a = {0}, b = {0};
    dump_of(s, &a);
    dump_of(t, &b);
    bool same = a.n > 0 && slice_equal(buf_slice(&a), buf_slice(&b));
    buf_add_byte(&a, 0);
    buf_add_byte(&b, 0);
    size_t i = 0, line = 0;
    for (; !same && a.p[i] == b.p[i]; i++)
        line = a.p[i] == '\n' ? i + 1 : line;
    if (!same)
        printf("\n%.300s\n%.300s\n", a.p + line, b.p + line);
    buf_deinit(&a);
    buf_deinit(&b);
    return same;
}
