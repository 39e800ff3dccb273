/* verbs.h: the table of verbs, made from verbs.def. */
#pragma once
#include "base/status.h"

struct verb_entry {
    char name[24]; /* as typed: dashes */
    const char *summary;
    enum status (*run)(int argc, char **argv);
};
/* In the order of verbs.def, ended by an empty name. */
const struct verb_entry *verb_table(void);
enum { VERBS_MAX = 64 };

#define VERB(name, summary) enum status cmd_##name(int argc, char **argv);
#include "tools/verbs.def"
#undef VERB
