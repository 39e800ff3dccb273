/* base_json.c: any bytes as JSON. What is read, written and read again must be the same text. */
#include "base/node.h"
#include "tests/support/fuzz.h"

static struct buf write(const struct node *tree) {
    struct buf b = {0};
    struct json j;
    json_begin(&j, &b);
    json_tree(&j, tree);
    return b;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    struct arena a;
    struct node *tree = NULL, *again = NULL;
    arena_init(&a, 0);
    enum status s = node_parse_json(&a, (struct slice){(const char *)data, n}, "fuzz", &tree);
    FUZZ_CHECK(s == STATUS_OK || s == STATUS_INVALID_ARGUMENT);
    /* the writer's depth is one less than the reader's */
    int depth = 0, deepest = 0;
    for (size_t i = 0; i < n; i++) {
        depth += data[i] == '[' || data[i] == '{';
        depth -= data[i] == ']' || data[i] == '}';
        deepest = depth > deepest ? depth : deepest;
    }
    if (s == STATUS_OK && deepest < 60) {
        struct buf once = write(tree);
        /* bad UTF-8 in two keys may become one key */
        if (node_parse_json(&a, buf_slice(&once), "once", &again) == STATUS_OK) {
            struct buf twice = write(again);
            FUZZ_CHECK(slice_equal(buf_slice(&once), buf_slice(&twice)));
            buf_deinit(&twice);
        } else {
            bool bad_utf8 = false;
            for (size_t i = 0; i < n; i++)
                bad_utf8 = bad_utf8 || data[i] >= 0x80;
            FUZZ_CHECK(bad_utf8);
        }
        buf_deinit(&once);
    }
    arena_deinit(&a);
    return 0;
}
