/* agent.c: User-Agent and Referer by tables of marks, the first match wins. The order within a
 * table is the knowledge: Edge says Chrome, Chrome says Safari, Android says Linux. No versions, no
 * devices by name: such databases are out of date on the day they are written. */
#include "features/agent.h"
#include <strings.h>

struct mark {
    const char *text;
    int means;
};

static bool contains(struct slice s, const char *mark) {
    size_t n = strlen(mark);
    for (size_t i = 0; i + n <= s.n; i++)
        if (strncasecmp(s.p + i, mark, n) == 0)
            return true;
    return false;
}

static int first_mark(struct slice s, const struct mark *marks, int otherwise) {
    for (; marks->text != NULL; marks++)
        if (contains(s, marks->text))
            return marks->means;
    return otherwise;
}

static const struct mark os_marks[] = {{"Windows Phone", FEAT_OTHER_OS},
                                       {"Windows", FEAT_WINDOWS},
                                       {"iPhone", FEAT_IOS},
                                       {"iPad", FEAT_IOS},
                                       {"iPod", FEAT_IOS},
                                       {"CrOS", FEAT_CHROMEOS},
                                       {"Android", FEAT_ANDROID},
                                       {"Macintosh", FEAT_MACOS},
                                       {"Mac OS X", FEAT_MACOS},
                                       {"Linux", FEAT_LINUX},
                                       {"X11", FEAT_LINUX},
                                       {NULL, 0}};

static const struct mark browser_marks[] = {{"Edg", FEAT_EDGE},
                                            {"OPR/", FEAT_OPERA},
                                            {"Opera", FEAT_OPERA},
                                            {"OPiOS", FEAT_OPERA},
                                            {"SamsungBrowser", FEAT_SAMSUNG},
                                            {"Firefox", FEAT_FIREFOX},
                                            {"FxiOS", FEAT_FIREFOX},
                                            {"MSIE", FEAT_IE},
                                            {"Trident/", FEAT_IE},
                                            {"CriOS", FEAT_CHROME},
                                            {"Chrome/", FEAT_CHROME},
                                            {"Chromium", FEAT_CHROME},
                                            {"Safari", FEAT_SAFARI},
                                            {NULL, 0}};

/* Of names: "Googlebot", "bingbot", "AhrefsBot", "YandexBot"; and of tools. */
static const struct mark bot_marks[] = {
    {"bot", 1},        {"crawl", 1},       {"spider", 1},
    {"slurp", 1},      {"curl/", 1},       {"wget", 1},
    {"python-", 1},    {"Headless", 1},    {"facebookexternal", 1},
    {"Lighthouse", 1}, {"http-client", 1}, {NULL, 0}};

static enum feat_platform platform_of(struct slice s, enum feat_os os) {
    if (contains(s, "iPad") || contains(s, "Tablet"))
        return FEAT_TABLET;
    if (os == FEAT_IOS || contains(s, "Mobile") || contains(s, "Phone"))
        return FEAT_MOBILE;
    if (os == FEAT_ANDROID) /* Android without "Mobile" is how tablets say it */
        return FEAT_TABLET;
    return os == FEAT_OTHER_OS ? FEAT_OTHER_PLATFORM : FEAT_DESKTOP;
}

struct feat_agent feat_agent_parse(struct slice text) {
    struct feat_agent a;
    a.os = (enum feat_os)first_mark(text, os_marks, FEAT_OTHER_OS);
    a.browser = (enum feat_browser)first_mark(text, browser_marks, FEAT_OTHER_BROWSER);
    a.platform = platform_of(text, a.os);
    a.bot = first_mark(text, bot_marks, 0) != 0;
    return a;
}

int feat_agent_pack(struct feat_agent a) {
    return (int)a.platform + 8 * (int)a.os + 64 * (int)a.browser + 512 * a.bot;
}

struct feat_agent feat_agent_unpack(int packed) {
    return (struct feat_agent){(enum feat_platform)(packed % 8), (enum feat_os)(packed / 8 % 8),
                               (enum feat_browser)(packed / 64 % 8), packed >= 512};
}

/* ---- referrers ---- */

const char *const feat_medium_words[FEAT_MEDIUMS] = {"unknown", "search", "internal",
                                                     "social",  "email",  "paid"};

/* "google." is the label google under any ending; "t.co" that host and what is below it. */
static const struct mark host_marks[] = {{"googleadservices.com", FEAT_PAID},
                                         {"doubleclick.net", FEAT_PAID},
                                         {"googlesyndication.com", FEAT_PAID},
                                         {"taboola.com", FEAT_PAID},
                                         {"outbrain.com", FEAT_PAID},
                                         {"criteo.com", FEAT_PAID},
                                         {"mail.google.com", FEAT_EMAIL},
                                         {"mail.", FEAT_EMAIL},
                                         {"webmail.", FEAT_EMAIL},
                                         {"outlook.", FEAT_EMAIL},
                                         {"gmx.", FEAT_EMAIL},
                                         {"web.de", FEAT_EMAIL},
                                         {"proton.me", FEAT_EMAIL},
                                         {"google.", FEAT_SEARCH},
                                         {"bing.", FEAT_SEARCH},
                                         {"yahoo.", FEAT_SEARCH},
                                         {"duckduckgo.", FEAT_SEARCH},
                                         {"baidu.", FEAT_SEARCH},
                                         {"yandex.", FEAT_SEARCH},
                                         {"ya.ru", FEAT_SEARCH},
                                         {"ecosia.", FEAT_SEARCH},
                                         {"qwant.", FEAT_SEARCH},
                                         {"naver.", FEAT_SEARCH},
                                         {"startpage.", FEAT_SEARCH},
                                         {"search.", FEAT_SEARCH},
                                         {"sogou.", FEAT_SEARCH},
                                         {"seznam.", FEAT_SEARCH},
                                         {"ask.com", FEAT_SEARCH},
                                         {"facebook.", FEAT_SOCIAL},
                                         {"fb.com", FEAT_SOCIAL},
                                         {"instagram.", FEAT_SOCIAL},
                                         {"twitter.", FEAT_SOCIAL},
                                         {"t.co", FEAT_SOCIAL},
                                         {"x.com", FEAT_SOCIAL},
                                         {"linkedin.", FEAT_SOCIAL},
                                         {"lnkd.in", FEAT_SOCIAL},
                                         {"pinterest.", FEAT_SOCIAL},
                                         {"reddit.", FEAT_SOCIAL},
                                         {"tiktok.", FEAT_SOCIAL},
                                         {"youtube.", FEAT_SOCIAL},
                                         {"youtu.be", FEAT_SOCIAL},
                                         {"vk.com", FEAT_SOCIAL},
                                         {"ok.ru", FEAT_SOCIAL},
                                         {"weibo.", FEAT_SOCIAL},
                                         {"t.me", FEAT_SOCIAL},
                                         {"wa.me", FEAT_SOCIAL},
                                         {"whatsapp.", FEAT_SOCIAL},
                                         {"tumblr.", FEAT_SOCIAL},
                                         {"quora.", FEAT_SOCIAL},
                                         {"ycombinator.com", FEAT_SOCIAL},
                                         {NULL, 0}};

static const struct mark paid_marks[] = {{"gclid=", 1},          {"msclkid=", 1},
                                         {"utm_medium=cpc", 1},  {"utm_medium=ppc", 1},
                                         {"utm_medium=paid", 1}, {NULL, 0}};

/* Is `host` the name or below it? Letters of any case. */
static bool is_below(struct slice host, const char *name) {
    size_t n = strlen(name);
    if (n > host.n || strncasecmp(host.p + host.n - n, name, n) != 0)
        return false;
    return n == host.n || host.p[host.n - n - 1] == '.';
}

/* A label of the host other than the last: mark "google." */
static bool has_label(struct slice host, const char *mark) {
    size_t n = strlen(mark);
    for (size_t i = 0; i + n < host.n; i++)
        if ((i == 0 || host.p[i - 1] == '.') && strncasecmp(host.p + i, mark, n) == 0)
            return true;
    return false;
}

static struct slice host_of(struct slice url) {
    for (size_t i = 0; i + 2 < url.n; i++)
        if (memcmp(url.p + i, "://", 3) == 0) {
            url = (struct slice){url.p + i + 3, url.n - i - 3};
            break;
        }
    size_t n = 0;
    while (n < url.n && memchr("/?#:", url.p[n], 4) == NULL)
        n++;
    return (struct slice){url.p, n};
}

enum feat_medium feat_medium_parse(struct slice url, const char *const *internal, int n) {
    struct slice host = host_of(url);
    for (int i = 0; i < n; i++)
        if (is_below(host, internal[i]))
            return FEAT_INTERNAL;
    if (first_mark(url, paid_marks, 0))
        return FEAT_PAID;
    for (const struct mark *m = host_marks; m->text != NULL; m++)
        if (m->text[strlen(m->text) - 1] == '.' ? has_label(host, m->text)
                                                : is_below(host, m->text))
            return (enum feat_medium)m->means;
    return FEAT_UNKNOWN_MEDIUM;
}
