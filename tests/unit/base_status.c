/* base_status.c: messages, places in front of them, threads, words and exit codes. */
#include <pthread.h>
#include <string.h>
#include "base/status.h"
#include "tests/support/suite.h"

static void fail_stores_the_message_and_returns_the_code(void) {
    CU_ASSERT_EQUAL(fail(STATUS_DATA_LOSS, "%s: %d bytes", "x.bin", 7), STATUS_DATA_LOSS);
    CU_ASSERT_STRING_EQUAL(status_message(), "x.bin: 7 bytes");
}

static void fail_may_quote_the_message_before_it(void) {
    fail(STATUS_UNKNOWN, "inner");
    fail(STATUS_UNKNOWN, "outer (%s)", status_message());
    CU_ASSERT_STRING_EQUAL(status_message(), "outer (inner)");
}

static void fail_in_puts_the_place_in_front(void) {
    fail(STATUS_NOT_FOUND, "no such key");
    CU_ASSERT_EQUAL(fail_in(STATUS_NOT_FOUND, "plan.yaml:%d", 12), STATUS_NOT_FOUND);
    CU_ASSERT_STRING_EQUAL(status_message(), "plan.yaml:12: no such key");
}

static void fail_in_lets_ok_pass_and_keeps_the_message(void) {
    fail(STATUS_NOT_FOUND, "old");
    CU_ASSERT_EQUAL(fail_in(STATUS_OK, "place"), STATUS_OK);
    CU_ASSERT_STRING_EQUAL(status_message(), "old");
}

static void long_messages_are_cut_and_end_with_nul(void) {
    char text[5000];
    memset(text, 'a', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    fail(STATUS_UNKNOWN, "%s", text);
    CU_ASSERT_EQUAL(strlen(status_message()), 1023);
    fail_in(STATUS_UNKNOWN, "place");
    CU_ASSERT_EQUAL(strlen(status_message()), 1023);
    CU_ASSERT_EQUAL(memcmp(status_message(), "place: aaa", 10), 0);
    fail_in(STATUS_UNKNOWN, "%s", text);
    CU_ASSERT_EQUAL(strlen(status_message()), 1023);
}

static void *other_thread(void *seen) {
    strcpy(seen, status_message());
    fail(STATUS_UNKNOWN, "of the other thread");
    return NULL;
}

static void each_thread_has_its_own_message(void) {
    fail(STATUS_UNKNOWN, "of this thread");
    char seen[1024] = "?";
    pthread_t t;
    pthread_create(&t, NULL, other_thread, seen);
    pthread_join(t, NULL);
    CU_ASSERT_STRING_EQUAL(seen, "");
    CU_ASSERT_STRING_EQUAL(status_message(), "of this thread");
}

static enum status calls(enum status inner, int *after) {
    TRY(inner);
    ++*after;
    return STATUS_OK;
}

static void try_passes_failures_on_and_goes_on_after_ok(void) {
    int after = 0;
    CU_ASSERT_EQUAL(calls(STATUS_ABORTED, &after), STATUS_ABORTED);
    CU_ASSERT_EQUAL(after, 0);
    CU_ASSERT_EQUAL(calls(STATUS_OK, &after), STATUS_OK);
    CU_ASSERT_EQUAL(after, 1);
}

static void words_and_numbers_are_those_of_grpc(void) {
    CU_ASSERT_EQUAL(STATUS_UNAUTHENTICATED, 16);
    CU_ASSERT_EQUAL(STATUS_DATA_LOSS, 15);
    CU_ASSERT_EQUAL(STATUS_UNAVAILABLE, 14);
    CU_ASSERT_STRING_EQUAL(status_word(STATUS_OK), "ok");
    CU_ASSERT_STRING_EQUAL(status_word(STATUS_DEADLINE_EXCEEDED), "deadline exceeded");
    CU_ASSERT_PTR_NOT_NULL(status_word((enum status)99));
}

static void exit_codes_tell_arguments_missing_and_unavailable_apart(void) {
    CU_ASSERT_EQUAL(status_exit_code(STATUS_OK), 0);
    CU_ASSERT_EQUAL(status_exit_code(STATUS_INVALID_ARGUMENT), 2);
    CU_ASSERT_EQUAL(status_exit_code(STATUS_NOT_FOUND), 3);
    CU_ASSERT_EQUAL(status_exit_code(STATUS_UNAVAILABLE), 4);
    CU_ASSERT_EQUAL(status_exit_code(STATUS_DATA_LOSS), 1);
}

SUITE("base_status", TEST(fail_stores_the_message_and_returns_the_code),
      TEST(fail_may_quote_the_message_before_it), TEST(fail_in_puts_the_place_in_front),
      TEST(fail_in_lets_ok_pass_and_keeps_the_message),
      TEST(long_messages_are_cut_and_end_with_nul), TEST(each_thread_has_its_own_message),
      TEST(try_passes_failures_on_and_goes_on_after_ok), TEST(words_and_numbers_are_those_of_grpc),
      TEST(exit_codes_tell_arguments_missing_and_unavailable_apart))
