/* moe_model_file.c: save and load are the identity; loading survives files cut short, flipped bits,
 * hostile headers and specs that ask for more memory than the file holds. */
#include <stdlib.h>
#include <unistd.h>
#include "base/io.h"
#include "moe/safetensors.h"
#include "tests/support/moe_fixture.h"
#include "tests/support/suite.h"

static const char spec[] =
    "{\"numbers\":{\"encode\":[\"value\",\"log\",\"quantile\",\"ple\"],\"bins\":4},"
    "\"layers\":[{\"kind\":\"ple\",\"levels\":2,\"shared\":2,\"own\":1,"
    "\"expert\":{\"hidden\":[5],\"out\":4}}],\"wide\":true,\"cross\":1,\"cross_rank\":3}";
static char path[64];

static void save(struct fixture *f, struct buf *bytes) {
    snprintf(path, sizeof path, "/tmp/moe_model_file.%d", (int)getpid());
    fix_batch(f, 4, 24, 2, 3);
    CHECK_OK(fix_open(f, spec, 2, 11));
    f->m->task_weight[1] = 0.25f;
    moe_model_meta_set(f->m, "plan", "{\"a\": \"b\"}");
    moe_model_meta_set(f->m, "plan", "x");
    CHECK_OK(moe_model_save(f->m, path));
    CHECK_OK(io_read_file(path, 1 << 24, bytes));
    unlink(path);
}

static void test_identity(void) {
    struct fixture f = {0};
    struct buf bytes = {0}, again = {0};
    struct moe_model *m = NULL;
    save(&f, &bytes);
    if (!CHECK_OK(moe_model_load_bytes(buf_slice(&bytes), "x", &m)))
        return;
    CU_ASSERT_STRING_EQUAL(moe_model_version(m), moe_model_version(f.m));
    CU_ASSERT_STRING_EQUAL(moe_model_spec_json(m), moe_model_spec_json(f.m));
    CU_ASSERT_STRING_EQUAL(moe_model_meta(m, "plan"), "x");
    CU_ASSERT(moe_model_meta(m, "version") == NULL);
    CU_ASSERT(m->task_weight[1] == 0.25f);
    CU_ASSERT(moe_model_floats(m) == moe_model_floats(f.m));
    CU_ASSERT(memcmp(m->params.v, f.m->params.v, moe_model_floats(m) * sizeof(float)) == 0);
    CU_ASSERT_STRING_EQUAL(moe_model_inputs(m)->ids[2].name, "tags");
    struct moe_pass pass = {.batch = &f.batch};
    float logits[48];
    moe_forward(f.m, f.m->params.v, &f.batch, f.run, &pass, false);
    memcpy(logits, f.run->logits, sizeof logits);
    struct moe_plan plan = {FIX_ROWS_MAX, FIX_GROUPS, false};
    float *memory = heap_alloc_aligned(moe_run_floats(m, &plan) * sizeof(float));
    struct moe_run *run = moe_run_bind(m, &plan, memory);
    moe_forward(m, m->params.v, &f.batch, run, &pass, false);
    CU_ASSERT(memcmp(logits, run->logits, sizeof logits) == 0);
    CHECK_OK(moe_model_save(m, path));
    CHECK_OK(io_read_file(path, 1 << 24, &again));
    CU_ASSERT(slice_equal(buf_slice(&bytes), buf_slice(&again)));
    unlink(path);
    heap_free(memory);
    moe_model_free(m);
    buf_deinit(&bytes);
    buf_deinit(&again);
    fix_close(&f);
}

static int load_copy(const char *p, size_t n) {
    struct moe_model *m = NULL;
    char *tight = malloc(n ? n : 1); /* so that a read past the end is seen by the sanitizer */
    memcpy(tight, p, n);
    enum status s = moe_model_load_bytes((struct slice){tight, n}, "hostile", &m);
    CU_ASSERT(s == STATUS_OK || s == STATUS_DATA_LOSS || s == STATUS_INVALID_ARGUMENT);
    if (s == STATUS_OK)
        moe_model_free(m);
    free(tight);
    return s == STATUS_OK;
}

static void test_cut_short(void) {
    struct fixture f = {0};
    struct buf bytes = {0};
    save(&f, &bytes);
    for (size_t n = 0; n < bytes.n; n += n < 4096 ? 7 : 97)
        CU_ASSERT(!load_copy(bytes.p, n));
    buf_add(&bytes, "xxxx", 4);
    CU_ASSERT(!load_copy(bytes.p, bytes.n));
    buf_deinit(&bytes);
    fix_close(&f);
}

/* A file of an earlier day: its spec lacks what has become a setting since. */
static void test_shorter_spec(void) {
    struct fixture f = {0};
    struct buf bytes = {0};
    struct moe_model *m = NULL;
    snprintf(path, sizeof path, "/tmp/moe_model_file.%d", (int)getpid());
    fix_batch(&f, 4, 24, 2, 3);
    CHECK_OK(fix_open(&f, spec, 2, 11));
    CU_ASSERT(strlen(f.m->spec_json) > strlen(spec));
    f.m->spec_json = spec;
    moe_model_stamp(f.m);
    CHECK_OK(moe_model_save(f.m, path));
    CHECK_OK(io_read_file(path, 1 << 24, &bytes));
    unlink(path);
    if (CHECK_OK(moe_model_load_bytes(buf_slice(&bytes), "x", &m)))
        CU_ASSERT_STRING_EQUAL(moe_model_version(m), moe_model_version(f.m));
    moe_model_free(m);
    buf_deinit(&bytes);
    fix_close(&f);
}

static void test_flipped_bytes(void) {
    struct fixture f = {0};
    struct buf bytes = {0};
    struct rng r;
    int passed = 0;
    rng_init(&r, 4);
    save(&f, &bytes);
    CU_ASSERT(load_copy(bytes.p, bytes.n));
    for (int i = 0; i < 3000; i++) {
        size_t header = 3000, at = rng_below(&r, (uint32_t)(i % 3 ? header : bytes.n));
        char keep = bytes.p[at];
        bytes.p[at] = (char)(i % 2 ? keep ^ (1 << rng_below(&r, 8)) : (int)rng_below(&r, 256));
        if (bytes.p[at] != keep)
            passed += load_copy(bytes.p, bytes.n);
        bytes.p[at] = keep;
    }
    /* what may pass: white space, metadata of the user, weights of tasks */
    if (passed >= 150)
        printf("\n    %d damaged files loaded\n", passed);
    CU_ASSERT(passed < 150);
    buf_deinit(&bytes);
    fix_close(&f);
}

/* A file with this header and `data` bytes of zeros. */
static enum status load_header(const char *header, size_t data) {
    struct buf b = {0};
    struct moe_model *m = NULL;
    buf_add_u64(&b, strlen(header));
    buf_add_str(&b, header);
    for (size_t i = 0; i < data; i++)
        buf_add_byte(&b, 0);
    enum status s = moe_model_load_bytes(buf_slice(&b), "hostile", &m);
    CU_ASSERT(s != STATUS_OK);
    buf_deinit(&b);
    return s;
}

static void test_hostile_headers(void) {
#define T(offsets) "{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":" offsets "}}"
    CHECK_FAILS(load_header(T("[0,8]"), 4), STATUS_DATA_LOSS, "beyond");
    CHECK_FAILS(load_header(T("[8,0]"), 8), STATUS_DATA_LOSS, "beyond");
    CHECK_FAILS(load_header(T("[-8,0]"), 8), STATUS_DATA_LOSS, "beyond");
    CHECK_FAILS(load_header(T("[0,1e300]"), 8), STATUS_DATA_LOSS, "beyond");
    CHECK_FAILS(load_header(T("[4,12]"), 12), STATUS_DATA_LOSS, "begins");
    CHECK_FAILS(load_header(T("[0,4]"), 4), STATUS_DATA_LOSS, "shape");
    CHECK_FAILS(load_header(T("[0,8]"), 9), STATUS_DATA_LOSS, "9 bytes of data");
    CHECK_FAILS(load_header("{\"x\":{\"dtype\":\"F31\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8),
                STATUS_DATA_LOSS, "dtype");
    CHECK_FAILS(
        load_header("{\"x\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296,4294967296],"
                    "\"data_offsets\":[0,0]}}",
                    0),
        STATUS_DATA_LOSS, "shape");
    CHECK_FAILS(load_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
                            "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
                            12),
                STATUS_DATA_LOSS, "begins");
    CHECK_FAILS(load_header("[1]", 0), STATUS_DATA_LOSS, "not a map");
    CHECK_FAILS(load_header("{", 0), STATUS_DATA_LOSS, "");
    CHECK_FAILS(load_header("{\"__metadata__\":{\"format\":1}}", 0), STATUS_DATA_LOSS, "string");
    CHECK_FAILS(load_header("{\"__metadata__\":{}}", 0), STATUS_DATA_LOSS, "moerank-model-1");
#define M(spec)                                                                                       \
    "{\"__metadata__\":{\"format\":\"moerank-model-1\",\"version\":\"0\",\"tasks\":\"[{\\\"name\\\":" \
    "\\\"a\\\"}]\",\"inputs\":\"{\\\"query\\\":[],\\\"cand\\\":[],\\\"query_slots\\\":1,"             \
    "\\\"cand_slots\\\":0,\\\"ids\\\":[{\\\"name\\\":\\\"i\\\",\\\"query\\\":true,\\\"slot\\\":0,"    \
    "\\\"n_slots\\\":1,\\\"table\\\":0}],\\\"tables\\\":[{\\\"name\\\":\\\"t\\\",\\\"rows\\\":"       \
    "1000000000,\\\"dim\\\":4096}]}\",\"spec\":\"" spec "\"},"                                        \
    "\"encode.query\":{\"dtype\":\"F32\",\"shape\":[0,135],\"data_offsets\":[0,0]},"                  \
    "\"encode.cand\":{\"dtype\":\"F32\",\"shape\":[0,135],\"data_offsets\":[0,0]}}"
    CHECK_FAILS(load_header(M("{}"), 0), STATUS_DATA_LOSS, "numbers, more than");
    CHECK_FAILS(load_header(M("{\\\"layers\\\":[{\\\"kind\\\":\\\"mmoe\\\",\\\"experts\\\":256,"
                              "\\\"expert\\\":{\\\"hidden\\\":[65536,65536],\\\"out\\\":65536}}]}"),
                            0),
                STATUS_DATA_LOSS, "numbers, more than");
    CHECK_FAILS(load_header(M("{\\\"layers\\\":[{\\\"kind\\\":\\\"mmoee\\\"}]}"), 0),
                STATUS_DATA_LOSS, "did you mean 'mmoe'");
    CHECK_FAILS(load_header(M("{\\\"colour\\\":1}"), 0), STATUS_DATA_LOSS, "colour");
}

static void test_not_finite(void) {
    struct fixture f = {0};
    struct buf bytes = {0};
    struct moe_model *m;
    save(&f, &bytes);
    f.m->params.v[3] = NAN;
    moe_model_stamp(f.m);
    CHECK_OK(moe_model_save(f.m, path));
    CHECK_FAILS(moe_model_load(path, &m), STATUS_DATA_LOSS, "not finite at 3");
    unlink(path);
    CHECK_FAILS(moe_model_load("/nowhere/model", &m), STATUS_NOT_FOUND, "/nowhere/model");
    buf_deinit(&bytes);
    fix_close(&f);
}

SUITE("moe_model_file", TEST(test_identity), TEST(test_shorter_spec), TEST(test_cut_short),
      TEST(test_flipped_bytes), TEST(test_hostile_headers), TEST(test_not_finite))
