/* demo_summary.h: what the demo has measured, printed and written as JSON. */
#pragma once
#include "tools/demo.h"

struct demo_summary {
    double sent, applied, dead_lettered;
    double produce_per_s, ingest_per_s, train_rows_per_s, train_seconds;
    double auc[DEMO_TASKS][3], user_auc[DEMO_TASKS][3]; /* model, popularity, item_rate */
    double replayed, replayed_equal;
    int malformed;             /* sent on purpose */
    const char *program, *out; /* for what to try next */
    double seconds;
};
/* Adds the counts and rates of `moerank train --json`. */
enum status demo_summary_training(struct demo_summary *s, const char *json_path);
/* Waits until the server has dealt with all that was sent, then adds its counts and the AUCs. */
enum status demo_summary_counts(struct demo_summary *s, const struct demo_run *r, int metrics_port);
/* Adds the counts of `moerank replay --json`. */
enum status demo_summary_replay(struct demo_summary *s, const char *json_path);
/* Prints the summary (text, or the JSON itself) and writes the JSON to `path`. */
enum status demo_summary_write(const struct demo_summary *s, const struct demo_run *r,
                               const char *path, bool as_json);
