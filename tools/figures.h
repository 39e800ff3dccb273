/* figures.h: measurements in their one form: build/bench/NAME.json with what machine measured them,
 * and one row a figure. tools/bench writes the same form. */
#pragma once
#include "base/buf.h"
#include "base/node.h"
#include "base/status.h"

struct figures {
    struct buf text;
    struct json json;
    int n;
};
/* Starts the object: name, commit (MOERANK_COMMIT), CPU, ISA, cores. */
void figures_begin(struct figures *f, const char *name);
/* One figure of one run. target: the least (at_least) or the greatest value that is good; NAN:
 * none. */
void figures_row(struct figures *f, const char *what, double value, const char *unit, double target,
                 bool at_least);
/* Ends it and writes FOLDER/NAME.json; frees. */
enum status figures_write(struct figures *f, const char *folder, const char *name);
