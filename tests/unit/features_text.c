/* Texts as words and runs of letters; what browsers say of themselves; where a visit came from. */
#include "features/text.h"
#include "features/agent.h"
#include "tests/support/suite.h"

static int shared_terms(const char *a, const char *b) {
    uint32_t x[32], y[32];
    int n = feat_text_distinct(x, feat_text_terms(slice_of(a), x, 32));
    int m = feat_text_distinct(y, feat_text_terms(slice_of(b), y, 32));
    return feat_text_shared(x, n, y, m);
}

static void test_words(void) {
    uint32_t v[32];
    CU_ASSERT_EQUAL(feat_text_words(SLICE_LIT("")), 0);
    CU_ASSERT_EQUAL(feat_text_words(SLICE_LIT(" ,.- ")), 0);
    CU_ASSERT_EQUAL(feat_text_words(SLICE_LIT("One, two;three  4x")), 4);
    CU_ASSERT_EQUAL(feat_text_terms(SLICE_LIT("a b a"), v, 32), 3);
    CU_ASSERT(v[0] == v[2] && v[0] != v[1]);
    CU_ASSERT_EQUAL(feat_text_terms(SLICE_LIT("a b c d"), v, 2), 2);
    CU_ASSERT_EQUAL(shared_terms("Red SOCKS", "socks: red"), 2);
    CU_ASSERT_EQUAL(shared_terms("sock", "socks"), 0);
    CU_ASSERT_EQUAL(shared_terms("\xC3\x84rger \xD0\x9C\xD0\x98\xD0\xA0", /* Ärger МИР */
                                 "\xC3\xA4rger \xD0\xBC\xD0\xB8\xD1\x80"),
                    2);
    CU_ASSERT_EQUAL(shared_terms("a\xE2\x80\x94"
                                 "b",
                                 "b a"),
                    2); /* a dash is no letter */
    CU_ASSERT_EQUAL(feat_text_words(SLICE_LIT("\xFF\xC3 \xF0\x9F")),
                    2); /* not UTF-8, still words */
}

static void test_grams(void) {
    uint32_t a[64], b[64];
    int n = feat_text_grams(SLICE_LIT("abcabc xy"), 3, a, 64); /* abc bca cab, xy */
    CU_ASSERT_EQUAL(n, 4);
    for (int i = 1; i < n; i++)
        CU_ASSERT(a[i - 1] < a[i]);
    int m = feat_text_grams(SLICE_LIT("ABC"), 3, b, 64);
    CU_ASSERT_EQUAL(m, 1);
    CU_ASSERT_EQUAL(feat_text_shared(a, n, b, m), 1);
    CU_ASSERT_EQUAL(feat_text_grams(SLICE_LIT("abcdefgh"), 2, a, 3), 3);
    CU_ASSERT_EQUAL(feat_text_grams(SLICE_LIT(""), 2, a, 3), 0);
}

static void test_agents(void) {
    static const struct {
        const char *text;
        struct feat_agent want;
    } cases[] = {
        {"Mozilla/5.0 (iPad; CPU OS 15_3 like Mac OS X) AppleWebKit/605.1.15 CriOS/99.0 "
         "Mobile/15E148 Safari/604.1",
         {FEAT_TABLET, FEAT_IOS, FEAT_CHROME, false}},
        {"Mozilla/5.0 (Linux; Android 10; LM-Q720) AppleWebKit/537.36 Chrome/99.0.4844.48 Mobile "
         "Safari/537.36",
         {FEAT_MOBILE, FEAT_ANDROID, FEAT_CHROME, false}},
        {"Mozilla/5.0 (Linux; Android 12; SM-X906C) AppleWebKit/537.36 SamsungBrowser/16.0 "
         "Chrome/92.0 Safari/537.36",
         {FEAT_TABLET, FEAT_ANDROID, FEAT_SAMSUNG, false}},
        {"Mozilla/5.0 (Macintosh; Intel Mac OS X 12_2_1) AppleWebKit/605.1.15 Version/15.2 "
         "Safari/605.1.15",
         {FEAT_DESKTOP, FEAT_MACOS, FEAT_SAFARI, false}},
        {"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/99.0 Safari/537.36 "
         "Edg/98.0.1108.62",
         {FEAT_DESKTOP, FEAT_WINDOWS, FEAT_EDGE, false}},
        {"Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:97.0) Gecko/20100101 Firefox/97.0",
         {FEAT_DESKTOP, FEAT_LINUX, FEAT_FIREFOX, false}},
        {"Mozilla/5.0 (X11; CrOS x86_64 14268.67.0) AppleWebKit/537.36 Chrome/96.0 Safari/537.36 "
         "OPR/82",
         {FEAT_DESKTOP, FEAT_CHROMEOS, FEAT_OPERA, false}},
        {"Mozilla/5.0 (compatible; MSIE 10.0; Windows NT 6.2; Trident/6.0)",
         {FEAT_DESKTOP, FEAT_WINDOWS, FEAT_IE, false}},
        {"Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
         {FEAT_OTHER_PLATFORM, FEAT_OTHER_OS, FEAT_OTHER_BROWSER, true}},
        {"curl/8.0", {FEAT_OTHER_PLATFORM, FEAT_OTHER_OS, FEAT_OTHER_BROWSER, true}},
        {"", {FEAT_OTHER_PLATFORM, FEAT_OTHER_OS, FEAT_OTHER_BROWSER, false}}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct feat_agent got = feat_agent_parse(slice_of(cases[i].text)), want = cases[i].want;
        if (feat_agent_pack(got) != feat_agent_pack(want))
            printf("%s: %d %d %d %d\n", cases[i].text, got.platform, got.os, got.browser, got.bot);
        CU_ASSERT_EQUAL(feat_agent_pack(got), feat_agent_pack(want));
        struct feat_agent again = feat_agent_unpack(feat_agent_pack(want));
        CU_ASSERT(again.platform == want.platform && again.os == want.os &&
                  again.browser == want.browser && again.bot == want.bot);
    }
}

static void test_referers(void) {
    static const char *const own[] = {"shop.example"};
    static const struct {
        const char *url;
        enum feat_medium want;
    } cases[] = {{"http://www.google.com", FEAT_SEARCH},
                 {"https://www.google.co.uk/search?q=t.co", FEAT_SEARCH},
                 {"https://mail.google.com/mail/u/0", FEAT_EMAIL},
                 {"https://M.Facebook.com/x", FEAT_SOCIAL},
                 {"https://t.co/x", FEAT_SOCIAL},
                 {"https://not.co/x", FEAT_UNKNOWN_MEDIUM},
                 {"https://t.co.evil.test/", FEAT_UNKNOWN_MEDIUM},
                 {"https://google.com.evil.test/", FEAT_SEARCH}, /* a label is a label */
                 {"https://duckduckgo.com", FEAT_SEARCH},
                 {"https://www.shop.example:8443/cart", FEAT_INTERNAL},
                 {"https://myshop.example/", FEAT_UNKNOWN_MEDIUM},
                 {"https://blog.test/?gclid=1", FEAT_PAID},
                 {"shop.example/cart", FEAT_INTERNAL},
                 {"", FEAT_UNKNOWN_MEDIUM},
                 {"://", FEAT_UNKNOWN_MEDIUM}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        enum feat_medium got = feat_medium_parse(slice_of(cases[i].url), own, 1);
        if (got != cases[i].want)
            printf("%s: %s\n", cases[i].url, feat_medium_words[got]);
        CU_ASSERT_EQUAL(got, cases[i].want);
    }
}

SUITE("features_text", TEST(test_words), TEST(test_grams), TEST(test_agents), TEST(test_referers))
