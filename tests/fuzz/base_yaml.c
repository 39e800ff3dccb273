/* base_yaml.c: any bytes as YAML: a tree or a message with its place; a tree can be written. */
#include <string.h>
#include "base/node.h"
#include "tests/support/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    struct arena a;
    struct node *tree = NULL;
    arena_init(&a, 0);
    enum status s = node_parse_yaml(&a, (struct slice){(const char *)data, n}, "fuzz", &tree);
    FUZZ_CHECK((s == STATUS_OK) == (tree != NULL));
    if (s != STATUS_OK)
        FUZZ_CHECK(s == STATUS_INVALID_ARGUMENT && strncmp(status_message(), "fuzz:", 5) == 0);
    arena_deinit(&a);
    return 0;
}
