/* Trees' numbers in a table: what a row's number may come of, the same numbers out of a model file,
 * wrong settings. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/heap.h"
#include "base/io.h"
#include "base/rng.h"
#include "moe/data/table.h"
#include "tests/support/suite.h"

enum { ROWS = 2000 };
static const char settings[] =
    "table:\n  number: [a]\n  category: [c, who]\n  trees:\n"
    "    - {of: [y], count: 20, rows_min: 1, patience: 0, columns: 1, ridge: 0.1}\n"
    "tasks: [{name: y}, {name: z, loss: mse}]\n";
static struct arena arena;
static char path[64];

/* y is a coin; or follows from a and c. who: each value stands in few rows, so that trees can learn
 * who had which label. */
static void put_rows(bool coin) {
    struct buf text = {0};
    struct rng rng;
    rng_init(&rng, 9);
    buf_printf(&text, "a,c,who,y,z\n");
    for (int r = 0; r < ROWS; r++) {
        const int a = (int)rng_below(&rng, 50), c = (int)rng_below(&rng, 6);
        const int y = coin ? (int)rng_below(&rng, 2) : (a > 20) != (c % 2 == 0);
        buf_printf(&text, "%d,c%d,w%d,%d,%d\n", a, c, r % 80, y, a);
    }
    snprintf(path, sizeof path, "/tmp/moe_table_trees.%d", (int)getpid());
    CHECK_OK(io_write_file(path, buf_slice(&text)));
    buf_deinit(&text);
}

static enum status open_table(const char *yaml, struct moe_table **out) {
    struct node *root;
    arena_init(&arena, 0);
    TRY(node_parse_yaml(&arena, slice_of(yaml), "t.yaml", &root));
    return moe_table_new(root, "t.yaml", out);
}

/* Share of rows whose number has the label's sign. */
static double right(const struct moe_examples *x) {
    int n = 0;
    for (int r = 0; r < x->n_rows; r++)
        n += (x->cand[r * 2 + 1] > 0) == (x->labels[r * 2] > 0.5f);
    return (double)n / x->n_rows;
}

static void both(bool coin, double *learnt, double *again) {
    struct moe_table *t = NULL;
    struct moe_examples *x = NULL;
    struct moe_table_report report;
    put_rows(coin);
    CHECK_OK(open_table(settings, &t));
    CHECK_OK(moe_table_read(t, path, 1, 1, &report, &x));
    CU_ASSERT_EQUAL(x->inputs.cand_columns, 2);
    CU_ASSERT_STRING_EQUAL(x->inputs.cand_names[1], "trees of y");
    *learnt = right(x);
    moe_examples_free(x);
    CHECK_OK(moe_table_read(t, path, 1, 1, &report, &x));
    *again = right(x);
    moe_examples_free(x);
    moe_table_free(t);
    arena_deinit(&arena);
    unlink(path);
}

/* Of labels that follow from nothing a training row's own number knows nothing; read again, as if
 * the rows were new, it does: so the test would see a leak. */
static void test_folds(void) {
    double learnt, again;
    both(true, &learnt, &again);
    CU_ASSERT_DOUBLE_EQUAL(learnt, 0.5, 0.06);
    CU_ASSERT(again > 0.6);
    both(false, &learnt, &again);
    CU_ASSERT(learnt > 0.97 && again > 0.97);
}

static void test_restore(void) {
    struct moe_table *t = NULL, *back = NULL;
    struct moe_examples *x = NULL, *y = NULL;
    struct moe_table_report report;
    struct buf saved = {0};
    put_rows(false);
    CHECK_OK(open_table(settings, &t));
    CHECK_OK(moe_table_read(t, path, 1, 1, &report, &x));
    moe_table_save(t, &saved);
    moe_examples_free(x);
    x = NULL;
    char *text = HEAP_ARRAY(char, saved.n + 1);
    memcpy(text, saved.p, saved.n);
    CHECK_OK(moe_table_read(t, path, 1, 1, &report, &x));
    CHECK_OK(moe_table_restore(text, "m.st", &x->inputs, &back));
    CHECK_OK(moe_table_read(back, path, 1, 1, &report, &y));
    CU_ASSERT(memcmp(x->cand, y->cand, (size_t)x->n_rows * 2 * sizeof(float)) == 0);
    moe_table_free(back);
    char *trees = strstr(text, "\"trees\":[\"");
    CU_ASSERT_FATAL(trees != NULL);
    trees[12] = 'x';
    CHECK_FAILS(moe_table_restore(text, "m.st", &x->inputs, &back), STATUS_DATA_LOSS, "its trees");
    memcpy(trees, "\"treez\"", 7);
    CHECK_FAILS(moe_table_restore(text, "m.st", &x->inputs, &back), STATUS_DATA_LOSS, "its trees");
    heap_free(text);
    buf_deinit(&saved);
    moe_examples_free(x);
    moe_examples_free(y);
    moe_table_free(t);
    arena_deinit(&arena);
    unlink(path);
}

static void test_wrong_settings(void) {
    static const struct {
        const char *yaml, *part;
    } cases[] = {
        {"table: {number: [a], trees: [{of: [q]}]}\ntasks: [{name: y}]", "'q' is no task"},
        {"table: {number: [a], trees: [{of: [y]}, {of: [y]}]}\ntasks: [{name: y}]", "stands twice"},
        {"table: {number: [a], trees: [{of: [y]}]}\ntasks: [{name: y, loss: mse}]",
         "no task with labels of 0 to 1"},
        {"table: {number: [a], trees: [{off: [y]}]}\ntasks: [{name: y}]", "table.trees[0].off"},
        {"table: {number: [a], trees: [{folds: 1}]}\ntasks: [{name: y}]", "table.trees[0].folds"},
        {"table: {number: [a], trees: [{count: 9}]}\ntasks: [{name: y}]", "names no task"},
        {"table: {number: [a], trees: {of: [y]}}\ntasks: [{name: y}]", "must be a list"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct moe_table *t;
        CHECK_FAILS(open_table(cases[i].yaml, &t), STATUS_INVALID_ARGUMENT, cases[i].part);
        arena_deinit(&arena);
    }
}

SUITE("moe_table_trees", TEST(test_folds), TEST(test_restore), TEST(test_wrong_settings))
