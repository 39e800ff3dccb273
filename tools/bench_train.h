/* bench_train.h: `moerank bench train`: how fast training steps are, and the data they run on for a
 * rival. */
#pragma once
#include "tools/options.h"

struct bench_train_options {
    struct option_config config;
    const char *sample; /* a model of moe/score/sample.h; without `table` */
    const char *table;  /* a file; the settings say what its columns mean */
    const char *export; /* folder; "": none */
    bool serve;
    int64_t rounds;
};
/* INVALID_ARGUMENT, and what reading the table says. */
enum status bench_train(const struct verb_call *call, const struct bench_train_options *o);
