/* agent.h: what a browser says of itself (User-Agent) and where it came from (Referer), told by
 * small tables: coarse on purpose, and the same in ten years for the same text. */
#pragma once
#include "base/slice.h"

enum feat_platform { FEAT_DESKTOP, FEAT_MOBILE, FEAT_TABLET, FEAT_OTHER_PLATFORM, FEAT_PLATFORMS };
enum feat_os {
    FEAT_WINDOWS,
    FEAT_MACOS,
    FEAT_LINUX,
    FEAT_CHROMEOS,
    FEAT_ANDROID,
    FEAT_IOS,
    FEAT_OTHER_OS,
    FEAT_OSES
};
enum feat_browser {
    FEAT_CHROME,
    FEAT_SAFARI,
    FEAT_FIREFOX,
    FEAT_EDGE,
    FEAT_OPERA,
    FEAT_SAMSUNG,
    FEAT_IE,
    FEAT_OTHER_BROWSER,
    FEAT_BROWSERS
};
struct feat_agent {
    enum feat_platform platform;
    enum feat_os os;
    enum feat_browser browser;
    bool bot;
};
struct feat_agent feat_agent_parse(struct slice text);
/* As one small number, for remembered fields; and back. */
int feat_agent_pack(struct feat_agent a);
struct feat_agent feat_agent_unpack(int packed);

enum feat_medium {
    FEAT_UNKNOWN_MEDIUM, /* no address, or one in no table */
    FEAT_SEARCH,
    FEAT_INTERNAL, /* one of the hosts given */
    FEAT_SOCIAL,
    FEAT_EMAIL,
    FEAT_PAID,
    FEAT_MEDIUMS
};
/* `internal` [n]: the site's own hosts, those below them included. */
enum feat_medium feat_medium_parse(struct slice url, const char *const *internal, int n);
extern const char *const feat_medium_words[FEAT_MEDIUMS];
