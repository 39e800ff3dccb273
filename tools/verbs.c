/* verbs.c: verbs.def as a table. A C name has no dashes and a verb has no underscores; the
 * difference is made good here, once. */
#include "tools/verbs.h"
#include <stdbool.h>

static struct verb_entry table[] = {
#define VERB(name, summary) {#name, summary, cmd_##name},
#include "tools/verbs.def"
#undef VERB
    {"", 0, 0}};
_Static_assert(sizeof table / sizeof *table <= VERBS_MAX, "VERBS_MAX");

const struct verb_entry *verb_table(void) {
    for (struct verb_entry *v = table; v->run; v++)
        for (char *c = v->name; *c; c++)
            if (*c == '_')
                *c = '-';
    return table;
}
