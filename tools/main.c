/* main.c: the program: a table of verbs from verbs.def, and nothing else. The one place where a
 * failure becomes a line on stderr and an exit code; and where the program executes itself again
 * when OpenBLAS does not know this CPU and took slower kernels. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/conf.h"
#include "base/status.h"
#include "moe/math/blas.h"
#include "tools/verbs.h"

#ifndef MOERANK_VERSION
#define MOERANK_VERSION "0.1.0"
#endif

static void print_help(FILE *to) {
    fputs("moerank: events in, features and a mixture of experts, ranked lists out.\n\n"
          "Usage: moerank VERB [options]\n\nVerbs:\n",
          to);
    for (const struct verb_entry *v = verb_table(); v->run; v++)
        fprintf(to, "  %-12s %s\n", v->name, v->summary);
    fputs("\nmoerank VERB --help tells more; moerank --version prints the version.\n", to);
}

static int fail_unknown(const char *word) {
    const char *words[VERBS_MAX + 1];
    int n = 0;
    for (const struct verb_entry *v = verb_table(); v->run; v++)
        words[n++] = v->name;
    words[n] = NULL;
    const char *near = conf_nearest(slice_of(word), words);
    if (near)
        fprintf(stderr, "moerank: unknown verb '%s'; did you mean '%s'?\n", word, near);
    else
        fprintf(stderr, "moerank: unknown verb '%s'; moerank --help lists them\n", word);
    return status_exit_code(STATUS_INVALID_ARGUMENT);
}

static bool is_word(const char *word, const char *a, const char *b) {
    return strcmp(word, a) == 0 || strcmp(word, b) == 0;
}

/* OpenBLAS chooses its kernels while it is loaded and reads OPENBLAS_CORETYPE only then, so the
 * choice is put right by one more execution of this program. The variable that is set for it, or
 * that the user had set, ends the matter. MOERANK_BLAS_CORE: that core instead of the detected one;
 * "off": leave it. */
static void use_better_blas(char **argv) {
    char path[4096];
    const char *core = getenv("MOERANK_BLAS_CORE");
    if (getenv("OPENBLAS_CORETYPE") || (core && strcmp(core, "off") == 0))
        return;
    core = core && *core ? core : moe_blas_better_core();
    if (!core || setenv("OPENBLAS_CORETYPE", core, 1) != 0)
        return;
    const ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    path[n > 0 ? n : 0] = 0;
    execv(path, argv); /* by its name, for ps */
    execv("/proc/self/exe", argv);
    unsetenv("OPENBLAS_CORETYPE"); /* slower then, but right */
}

int main(int argc, char **argv) {
    if (argc < 2) {
        print_help(stderr);
        return status_exit_code(STATUS_INVALID_ARGUMENT);
    }
    if (is_word(argv[1], "--help", "-h") || is_word(argv[1], "help", "help")) {
        print_help(stdout);
        return 0;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("moerank %s\n", MOERANK_VERSION);
        return 0;
    }
    for (const struct verb_entry *v = verb_table(); v->run; v++)
        if (strcmp(argv[1], v->name) == 0) {
            use_better_blas(argv);
            enum status status = v->run(argc - 1, argv + 1);
            if (status != STATUS_OK)
                fprintf(stderr, "moerank %s: %s\n", v->name, status_message());
            return status_exit_code(status);
        }
    return fail_unknown(argv[1]);
}
