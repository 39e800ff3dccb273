/* suite.c: runs one CUnit suite and turns its result into an exit code.
 *
 * CUnit's basic runner is left aside: it returns success when tests fail. Tests run one by one, so
 * that one can be chosen by name and each failure prints where it happened. */
#include "tests/support/suite.h"
#include <CUnit/Basic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void check(int good, const char *what, const char *file, int line) {
    CU_assertImplementation(good, (unsigned)line, what, file, "", CU_FALSE);
}

int suite_check_ok(enum status got, const char *call, const char *file, int line) {
    char what[1400];
    snprintf(what, sizeof what, "%s: %s: %s", call, status_word(got), status_message());
    check(got == STATUS_OK, got == STATUS_OK ? call : what, file, line);
    return got == STATUS_OK;
}

int suite_check_fails(enum status got, enum status want, const char *part, const char *call,
                      const char *file, int line) {
    int good = got == want && (!part || strstr(status_message(), part));
    char what[1800];
    snprintf(what, sizeof what, "%s: want %s with '%s', got %s: %s", call, status_word(want),
             part ? part : "", status_word(got), got == STATUS_OK ? "" : status_message());
    check(good, good ? call : what, file, line);
    return good;
}

const char *suite_data(const char *name) {
    static char path[4096];
    const char *folder = getenv("MOERANK_DATA");
    if (getenv("MOERANK_WITHOUT_DATA")) {
        printf("(left out: needs data %s) ", name);
        return NULL;
    }
    snprintf(path, sizeof path, "%s/%s", folder ? folder : TESTS_DIR "/../../shared/data", name);
    if (access(path, R_OK) == 0)
        return path;
    fprintf(stderr, "no %s: set MOERANK_DATA, or leave such tests out by --without-data\n", path);
    check(0, "data file is missing", path, 0);
    return NULL;
}

static int add_tests(CU_pSuite suite, const struct suite_test *tests, const char *part) {
    int n = 0;
    for (; tests->name; tests++)
        if (!part || strstr(tests->name, part))
            n += CU_add_test(suite, tests->name, tests->run) != NULL;
    return n;
}

int suite_main(const char *name, const struct suite_test *tests, int argc, char **argv) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (CU_initialize_registry() != CUE_SUCCESS)
        return EXIT_FAILURE;
    CU_pSuite suite = CU_add_suite(name, NULL, NULL);
    int wanted = add_tests(suite, tests, argc > 1 ? argv[1] : NULL);
    CU_basic_set_mode(CU_BRM_VERBOSE);
    CU_ErrorCode code = CU_basic_run_tests();
    unsigned ran = CU_get_number_of_tests_run();
    unsigned failed = CU_get_number_of_tests_failed() + CU_get_number_of_failures();
    CU_cleanup_registry();
    printf("\n");
    if (code != CUE_SUCCESS || ran == 0 || (int)ran != wanted) {
        fprintf(stderr, "%s: %u of %d tests run\n", name, ran, wanted);
        return EXIT_FAILURE;
    }
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
