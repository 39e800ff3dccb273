/* Moments as text, against the C library's calendar and against texts that are none. */
#include "base/iso.h"
#include <time.h>
#include "base/rng.h"
#include "tests/support/suite.h"

static void test_moments(void) {
    static const struct {
        const char *text;
        int64_t utc_us;
        int ahead_s;
    } good[] = {{"1970-01-01T00:00:00Z", 0, 0},
                {"1970-01-01", 0, 0},
                {"2021-12-03T10:15:30+01:00", 1638522930000000, 3600},
                {"2021-12-03T10:15:30+01:00[Europe/Paris]", 1638522930000000, 3600},
                {"2021-12-03 10:15:30.25-0530", 1638546330250000, -19800},
                {"2021-12-03T10:15+02", 1638519300000000, 7200},
                {"2022-06-22t11:21:39.1234567z", 1655896899123456, 0},
                {"2020-02-29T23:59:60Z", 1583020800000000, 0},
                {"0001-01-01", -62135596800000000, 0},
                {"9999-12-31T23:59:59", 253402300799000000, 0}};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        int64_t utc_us = -1;
        int ahead_s = -1;
        bool ok = iso_parse(slice_of(good[i].text), &utc_us, &ahead_s);
        if (!ok || utc_us != good[i].utc_us || ahead_s != good[i].ahead_s)
            printf("%s: %d %lld %d\n", good[i].text, ok, (long long)utc_us, ahead_s);
        CU_ASSERT(ok);
        CU_ASSERT_EQUAL(utc_us, good[i].utc_us);
        CU_ASSERT_EQUAL(ahead_s, good[i].ahead_s);
    }
}

static void test_no_moments(void) {
    static const char *const bad[] = {"",
                                      "2021",
                                      "2021-1-3",
                                      "2021-13-01",
                                      "2021-00-01",
                                      "2021-02-29",
                                      "2021-04-31",
                                      "0000-01-01",
                                      "2021-12-03X10:15:30",
                                      "2021-12-03T",
                                      "2021-12-03T24:00:00",
                                      "2021-12-03T10:60",
                                      "2021-12-03T10:15:30.Z",
                                      "2021-12-03T10:15:30+1",
                                      "2021-12-03T10:15:30+19:00",
                                      "2021-12-03T10:15:30+01:",
                                      "2021-12-03T10:15:30Z and more",
                                      "1638522930"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        int64_t utc_us = 7;
        int ahead_s = 7;
        CU_ASSERT_FALSE(iso_parse(slice_of(bad[i]), &utc_us, &ahead_s));
        CU_ASSERT(utc_us == 7 && ahead_s == 7);
    }
}

static void test_calendar(void) {
    struct rng rng;
    rng_init(&rng, 1);
    for (int i = 0; i < 20000; i++) {
        int64_t days = (int64_t)rng_below(&rng, 3000000) - 700000;
        time_t at = (time_t)days * 86400;
        struct tm tm;
        int year, month, day;
        gmtime_r(&at, &tm);
        iso_date(days, &year, &month, &day);
        CU_ASSERT(year == tm.tm_year + 1900 && month == tm.tm_mon + 1 && day == tm.tm_mday);
        CU_ASSERT_EQUAL(iso_days(year, month, day), days);
    }
}

SUITE("base_iso", TEST(test_moments), TEST(test_no_moments), TEST(test_calendar))
