/* Tables: every format gives the same rows; categories, bins and crosses; what is wrong names its
 * row and column, and stops or is skipped. */
#include <math.h>
#include <stdio.h>
#include <unistd.h>
#include "base/heap.h"
#include "base/io.h"
#include "moe/data/table.h"
#include "tests/support/suite.h"

static struct arena arena;
static struct moe_table *table;
static struct moe_examples *x;
static struct moe_table_report report;
static char path[64];

static void put(const char *text) {
    snprintf(path, sizeof path, "/tmp/moe_table.%d", (int)getpid());
    CHECK_OK(io_write_file(path, slice_of(text)));
}
static void done(void) {
    moe_examples_free(x);
    moe_table_free(table);
    arena_deinit(&arena);
    x = NULL;
    table = NULL;
    unlink(path);
}
static enum status open_table(const char *yaml) {
    struct node *root;
    arena_init(&arena, 0);
    TRY(node_parse_yaml(&arena, slice_of(yaml), "t.yaml", &root));
    return moe_table_new(root, "t.yaml", &table);
}
static enum status read_again(const char *text) {
    put(text);
    moe_examples_free(x);
    x = NULL;
    return moe_table_read(table, path, 1, 1, &report, &x);
}
static enum status read_all(const char *yaml, const char *text) {
    TRY(open_table(yaml));
    return read_again(text);
}

#define COLUMNS                                                                                    \
    "number: [age, pay]\n  category: [city]\n  columns: [{name: w, kind: weight}]\n"               \
    "tasks: [{name: rich, positive: [\"yes\", y]}, {name: score}]\n"

static void check_rows(void) {
    if (!x)
        return;
    CU_ASSERT_EQUAL(x->n_rows, 3);
    CU_ASSERT_EQUAL(x->n_groups, 3);
    CU_ASSERT_EQUAL(x->inputs.cand_columns, 2);
    CU_ASSERT_EQUAL(x->inputs.cand_slots, 1);
    const float cand[] = {30, 1.5f, 41, NAN, -2, 1e3f}, label[] = {1, 0.25f, 0, 1, 1, NAN};
    const uint32_t ids[] = {2, 3, 2};
    for (int i = 0; i < 6; i++) {
        CU_ASSERT(isnan(cand[i]) ? isnan(x->cand[i]) : x->cand[i] == cand[i]);
        CU_ASSERT(isnan(label[i]) ? isnan(x->labels[i]) : x->labels[i] == label[i]);
    }
    for (int i = 0; i < 3; i++)
        CU_ASSERT_EQUAL(x->cand_ids[i], ids[i]);
    CU_ASSERT(x->weight[0] == 1 && x->weight[1] == 0.5f && x->weight[2] == 2);
    CU_ASSERT_EQUAL(x->inputs.tables[0].rows, 4);
}

static void test_csv(void) {
    CHECK_OK(read_all("table:\n  " COLUMNS, "age,pay,city,w,rich,score,unused\n"
                                            "30, 1.5,\"Ba,se\"\"l\",1,yes,0.25,a\n"
                                            "41,?,Bern,0.5,no,1,\n\n"
                                            " -2 ,1e3,\"Ba,se\"\"l\" ,2,y,,b\r\n"));
    check_rows();
    done();
}
static void test_tsv_without_header(void) {
    CHECK_OK(
        read_all("table:\n  header: false\n  names: [rich, age, pay, score, city, w]\n  " COLUMNS,
                 "yes\t30\t1.5\t0.25\tBasel\t1\nno\t41\t\t1\tBern\t.5\ny\t-2\t1e3\t?\tBasel\t2\n"));
    check_rows();
    done();
}
static void test_jsonl(void) {
    CHECK_OK(read_all(
        "table:\n  " COLUMNS,
        "{\"age\":30,\"pay\":1.5,\"city\":\"Basel\",\"w\":1,\"rich\":\"yes\",\"score\":0.25}\n"
        "{\"age\":41,\"city\":\"Bern\",\"w\":0.5,\"rich\":\"no\",\"score\":true,\"more\":[1]}\n"
        "{\"w\":2,\"pay\":1e3,\"age\":\"-2\",\"city\":\"Basel\",\"rich\":\"y\",\"score\":null}\n"));
    check_rows();
    done();
}

static void test_libsvm(void) {
    CHECK_OK(read_all("tasks: [{name: relevant, column: label, loss: listwise}]",
                      "2 qid:7 1:0.5 3:1 # first\n0 qid:7 2:-1\n1 qid:9 3:4\n"));
    if (x) {
        const float cand[] = {0.5f, 0, 1, 0, -1, 0, 0, 0, 4};
        CU_ASSERT(x->n_rows == 3 && x->n_groups == 2 && x->inputs.cand_columns == 3);
        for (int i = 0; i < 9; i++)
            CU_ASSERT(x->cand[i] == cand[i]);
        CU_ASSERT(x->group[0] == 0 && x->group[1] == 0 && x->group[2] == 1 && x->labels[0] == 2);
    }
    /* a later file is as wide as the first */
    CHECK_FAILS(read_again("1 qid:1 4:1\n"), STATUS_INVALID_ARGUMENT, ":1: feature 4; there are 3");
    CHECK_FAILS(read_again("1 qid:1 1:1\n1 qid:2 1:1\n0 qid:1 1:1\n"), STATUS_INVALID_ARGUMENT,
                ":3: column 'qid': '1' had its rows before");
    CHECK_FAILS(read_again("1 qid:1 1:x\n"), STATUS_INVALID_ARGUMENT,
                ":1: column '1': 'x' is not a number");
    CHECK_FAILS(read_again("1 qid:1 x:1\n"), STATUS_INVALID_ARGUMENT,
                ":1: 'x:1' is not INDEX:VALUE");
    done();
}

static void test_categories(void) {
    CHECK_OK(
        read_all("table:\n  category: [a]\n  min_count: 2\n"
                 "  columns: [{name: bin, column: n, bins: 2}, {name: h, column: a, hash: 5}]\n"
                 "  crosses: [{of: [a, bin], min_count: 1}]\n"
                 "tasks: [{name: y}]",
                 "a,n,y\nq,1,0\nr,2,1\ns,3,0\nr,4,1\n,5,1\ns,,0\n"));
    if (x) {
        /* q is rare; r, s in order of appearance; n is cut at 3 */
        const uint32_t a[] = {1, 2, 3, 2, 0, 3}, bin[] = {2, 2, 3, 3, 3, 0},
                       cross[] = {1, 2, 3, 4, 0, 0};
        for (int i = 0; i < 6; i++) {
            const uint32_t *ids = x->cand_ids + i * 4;
            CU_ASSERT_EQUAL(ids[0], a[i]);
            CU_ASSERT_EQUAL(ids[1], bin[i]);
            CU_ASSERT(i == 4 ? ids[2] == 0 : ids[2] >= 2 && ids[2] < 7);
            CU_ASSERT_EQUAL(ids[3], cross[i]);
        }
        CU_ASSERT_EQUAL(x->inputs.tables[0].rows, 4);
        CU_ASSERT_EQUAL(x->inputs.tables[3].rows, 5);
        CU_ASSERT(strcmp(x->inputs.ids[3].name, "a x bin") == 0);
    }
    /* another file: learnt ids, in any order of columns; what is new is rare */
    CHECK_OK(read_again("y,n,a\n1,9,s\n0,0,new\n"));
    if (x) {
        CU_ASSERT(x->cand_ids[0] == 3 && x->cand_ids[1] == 3 && x->cand_ids[3] == 3);
        CU_ASSERT(x->cand_ids[4] == 1 && x->cand_ids[5] == 2 && x->cand_ids[7] == 1);
        CU_ASSERT_EQUAL(report.unknown, 1);
    }
    done();
}

/* Saved and restored, it gives the same ids; labels may be absent. */
static void test_restore(void) {
    struct buf saved = {0};
    struct moe_table *again = NULL, *first;
    CHECK_OK(
        read_all("table:\n  number: [n]\n  category: [a]\n  min_count: 2\n"
                 "  columns: [{name: bin, column: n, bins: 2}, {name: h, column: a, hash: 5}]\n"
                 "  crosses: [{of: [a, bin], min_count: 1}]\n"
                 "tasks: [{name: y, positive: [\"1\"]}]",
                 "a,n,y\nq,1,0\nr,2,1\ns,3,0\nr,4,1\n,5,1\ns,,0\n"));
    moe_table_save(table, &saved);
    char *text = HEAP_ARRAY(char, saved.n + 1);
    memcpy(text, saved.p, saved.n);
    CHECK_OK(moe_table_restore(text, "m.st", &x->inputs, &again));
    first = table;
    table = again;
    CHECK_OK(read_again("n,a\n9,s\n0,new\n,r\n"));
    if (x) {
        const uint32_t ids[] = {3, 3, 3, 1, 2, 1, 2, 0, 0}; /* a, bin, cross of three rows */
        for (int i = 0; i < 9; i++)
            CU_ASSERT_EQUAL(x->cand_ids[i / 3 * 4 + (i % 3 == 2 ? 3 : i % 3)], ids[i]);
        CU_ASSERT(isnan(x->labels[0]) && report.unknown == 1);
    }
    CHECK_FAILS(read_again("n\n9\n"), STATUS_INVALID_ARGUMENT, "there is no column 'a'");
    moe_table_free(table);
    table = first;
    /* damaged, or of another model */
    struct moe_inputs other = {.cand_columns = 7};
    CHECK_FAILS(moe_table_restore(text, "m.st", &other, &again), STATUS_DATA_LOSS,
                "not the model's");
    CHECK_FAILS(moe_table_restore("{}", "m.st", &other, &again), STATUS_DATA_LOSS, "no settings");
    CHECK_FAILS(moe_table_restore("{", "m.st", &other, &again), STATUS_DATA_LOSS, "m.st");
    char *values = strstr(text, "\"kind\":\"category\"");
    values = values ? strstr(values, "\"values\":\"") : NULL;
    CU_ASSERT_FATAL(values != NULL);
    values[10] = 'z';
    CHECK_FAILS(moe_table_restore(text, "m.st", &other, &again), STATUS_DATA_LOSS,
                "a column's values");
    heap_free(text);
    buf_deinit(&saved);
    done();
}

#define PLAIN "tasks: [{name: y}]\ntable:\n  number: [a]\n  category: [c]\n  "
static void test_bad_rows(void) {
    static const struct {
        const char *text, *part;
    } cases[] = {
        {"a,c,y\n1,u,1\n2,v\n", ":3: 2 cells, 3 are expected"},
        {"a,c,y\n1,u,1\nx,v,1\n", ":3: column 'a': 'x' is not a number"},
        {"a,c,y\n1,u,1\nnan,v,1\n", ":3: column 'a': 'nan' is not a finite number"},
        {"a,c,y\n1,u,1\n1e400,v,1\n", ":3: column 'a': '1e400' is not a finite number"},
        {"a,c,y\n1,u,1\n2,v,1.5\n", ":3: column 'y': '1.5' is out of range"},
        {"a,c,y\n1,u,1\n2,v,-1\n", ":3: column 'y': '-1' is out of range"},
        {"a,c,y\n1,u,1\n\"2,v,1\n", ":3: a quoted cell does not end"},
        {"a,c,y\n1,u,1\n2,\"v\"w,1\n", ":3: text after a quoted cell"},
        {"{\"a\":1,\"c\":\"u\",\"y\":1}\n{\"a\":[1],\"c\":\"u\",\"y\":1}\n",
         ":2: column 'a': must be"},
        {"{\"a\":1,\"c\":\"u\",\"y\":1}\n{\"a\":1,\n", ":2:"},
        {"{\"a\":1,\"c\":\"u\",\"y\":1}\n7\n", ":2: not a JSON object"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        CHECK_FAILS(read_all(PLAIN, cases[i].text), STATUS_INVALID_ARGUMENT, cases[i].part);
        done();
        /* skipped: the good row (and one more class) is left */
        char text[512];
        bool json = cases[i].text[0] == '{';
        snprintf(text, sizeof text, "%s%s", cases[i].text,
                 json ? "{\"a\":1,\"c\":\"u\",\"y\":0}\n" : "1,u,0\n");
        CHECK_OK(read_all(PLAIN "on_bad_row: skip", text));
        CU_ASSERT(x && x->n_rows == 2 && report.bad_rows == 1);
        CU_ASSERT(strstr(report.first_bad, cases[i].part) != NULL);
        done();
    }
    CHECK_FAILS(read_all(PLAIN "on_bad_row: skip\n  bad_rows_max: 1", "a,c,y\n1,u\n2,u\n1,u,1\n"),
                STATUS_INVALID_ARGUMENT, "more than 1 bad rows");
    done();
    CHECK_FAILS(
        read_all("table: {number: [a], columns: [{name: w, kind: weight}]}\ntasks: [{name: y}]",
                 "a,w,y\n1,-1,1\n"),
        STATUS_INVALID_ARGUMENT, ":2: column 'w': '-1' is no weight");
    done();
    CHECK_OK(read_all(PLAIN "unknown: bad", "a,c,y\n1,u,1\n1,v,0\n"));
    CHECK_FAILS(read_again("a,c,y\n1,zz,1\n"), STATUS_INVALID_ARGUMENT,
                ":2: column 'c': 'zz' was not there in training");
    done();
}

static void test_wrong_tables(void) {
    CHECK_FAILS(read_all(PLAIN, "a,c,y\n"), STATUS_FAILED_PRECONDITION, "no rows");
    done();
    CHECK_FAILS(read_all(PLAIN, ""), STATUS_FAILED_PRECONDITION, "is empty");
    done();
    CHECK_FAILS(read_all(PLAIN, "a,c,y\n1,u,1\n2,u,1\n"), STATUS_FAILED_PRECONDITION,
                "task 'y': the same label in all 2 rows");
    done();
    CHECK_FAILS(read_all(PLAIN, "a,c,y\n1,u,\n2,u,\n"), STATUS_FAILED_PRECONDITION, "no label");
    done();
    CHECK_FAILS(read_all(PLAIN, "aa,c,y\n1,u,1\n"), STATUS_INVALID_ARGUMENT,
                "there is no column 'a'");
    done();
    CHECK_FAILS(read_all(PLAIN, "a,a,y\n1,u,1\n"), STATUS_INVALID_ARGUMENT, "'a' stands twice");
    done();
    CHECK_FAILS(read_all(PLAIN "header: false", "1,u,1\n"), STATUS_INVALID_ARGUMENT, "table.names");
    done();
    CHECK_FAILS(read_all("tasks: [{name: y}]", "a,y\n1,1\n"), STATUS_INVALID_ARGUMENT, "no inputs");
    done();
    CHECK_FAILS(read_all(PLAIN, "/nowhere"), STATUS_INVALID_ARGUMENT, "no column");
    unlink(path);
    CHECK_FAILS(moe_table_read(table, path, 1, 1, &report, &x), STATUS_NOT_FOUND, path);
    done();
}

static void test_wrong_settings(void) {
    static const struct {
        const char *yaml, *part;
    } cases[] = {
        {"table: {numbr: [a]}\ntasks: [{name: y}]", "t.yaml:1: table.numbr"},
        {"table: {number: [a], category: [a]}\ntasks: [{name: y}]", "'a' stands twice"},
        {"table: {columns: [{name: a, kind: nmber}]}\ntasks: [{name: y}]", "table.columns[0].kind"},
        {"table: {columns: [{name: a, kind: number, hash: 9}]}\ntasks: [{name: y}]",
         "are for categories"},
        {"table: {crosses: [{of: [a, b]}]}\ntasks: [{name: y}]", "table.crosses[0].of: 'a' is not"},
        {"table: {category: [a], crosses: [{of: [a]}]}\ntasks: [{name: y}]", "2 to 4 categories"},
        {"table: {number: [a]}", "section 'tasks'"},
        {"tasks: [{name: y}, {name: y}]", "are both 'y'"},
        {"tasks: [{name: y, loss: hubert}]", "tasks[0].loss"},
        {"table: {delimiter: ab}\ntasks: [{name: y}]", "one character"},
        {"table: {columns: [{name: a, kind: time}, {name: b, kind: time}]}\ntasks: [{name: y}]",
         "another one of its kind"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        CHECK_FAILS(open_table(cases[i].yaml), STATUS_INVALID_ARGUMENT, cases[i].part);
        done();
    }
}

SUITE("moe_table", TEST(test_csv), TEST(test_tsv_without_header), TEST(test_jsonl),
      TEST(test_libsvm), TEST(test_categories), TEST(test_restore), TEST(test_bad_rows),
      TEST(test_wrong_tables), TEST(test_wrong_settings))
