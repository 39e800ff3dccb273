/* suite.h: a CUnit program in two lines.
 *
 *     static void test_x(void) { CU_ASSERT_EQUAL(1, 1); }
 *     SUITE("base_arena", TEST(test_x))
 *
 * main runs every test and fails when any did (CU_basic_run_tests alone returns success when
 * tests fail); no test run is a failure too. An argument runs the tests whose name
 * contains it. */
#pragma once
#include <CUnit/CUnit.h>

struct suite_test {
    const char *name;
    void (*run)(void);
};
int suite_main(const char *name, const struct suite_test *tests, int argc, char **argv);

/* STATUS_OK, or prints status_message() and fails */
#define CHECK_OK(call) suite_check_ok((call), #call, __FILE__, __LINE__)
/* the call fails with `code`, and its message contains `part` */
#define CHECK_FAILS(call, code, part)                                                              \
    suite_check_fails((call), (code), (part), #call, __FILE__, __LINE__)
#include "base/status.h"
int suite_check_ok(enum status got, const char *call, const char *file, int line);
int suite_check_fails(enum status got, enum status want, const char *part, const char *call,
                      const char *file, int line);

/* The path of a file in the data folder (MOERANK_DATA, default ../shared/data beside the project),
 * valid until the next call. A missing file fails the test; NULL is then returned, as it is when
 * the run leaves out tests that need data (MOERANK_WITHOUT_DATA). */
const char *suite_data(const char *name);

#define TEST(f)                                                                                    \
    { #f, f }
#define SUITE(name, ...)                                                                           \
    int main(int argc, char **argv) {                                                              \
        static const struct suite_test tests_[] = {__VA_ARGS__, {NULL, NULL}};                     \
        return suite_main(name, tests_, argc, argv);                                               \
    }
