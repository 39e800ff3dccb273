/* train_table.h: `moerank train --table`: a model of a labelled table instead of events. */
#pragma once
#include "ranker/config.h"
#include "tools/options.h"

struct train_table_options {
    const char *table, *test; /* files; test "": none */
    const char *model;        /* "": not written */
    const char *predictions;  /* of the test rows, CSV; "": none */
};
/* INVALID_ARGUMENT and FAILED_PRECONDITION name file, line and column of what is wrong with the
 * data; nothing is written then. */
enum status train_table(const struct verb_call *call, const struct train_table_options *o,
                        const struct rk_config *c);
