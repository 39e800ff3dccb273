/* log.h: one line per happening on stderr: text for people, JSON when LOG_JSON or log.format says
 * so. Lines of one call site are limited to 10 a second; what was left out is counted on the next
 * line. Thread-safe. */
#pragma once

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };
void log_setup(enum log_level least, int json);

struct log_site {
    long long window; /* second of the current window */
    int seen, left_out;
};
void log_line(struct log_site *site, enum log_level level, const char *area, const char *format,
              ...) __attribute__((format(printf, 4, 5)));

/* area: the module, as in "ingest" */
#define LOG(level, area, ...)                                                                      \
    do {                                                                                           \
        static struct log_site log_site_;                                                          \
        log_line(&log_site_, (level), (area), __VA_ARGS__);                                        \
    } while (0)
#define log_debug(area, ...) LOG(LOG_DEBUG, area, __VA_ARGS__)
#define log_info(area, ...)  LOG(LOG_INFO, area, __VA_ARGS__)
#define log_warn(area, ...)  LOG(LOG_WARN, area, __VA_ARGS__)
#define log_error(area, ...) LOG(LOG_ERROR, area, __VA_ARGS__)
