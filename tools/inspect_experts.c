/* inspect_experts.c: `moerank inspect MODEL --data FILE`: reads, measures, prints and draws. */
#include <stdio.h>
#include "tools/inspect.h"

static enum status look(const struct moe_model *m, const struct moe_model *against,
                        const char *path, const struct inspect_options *o,
                        const struct verb_call *call, const struct inspect_data *d) {
    struct inspect_figures f;
    struct report r;
    enum status status = inspect_measure(m, against, d, o, call->arena, &f);
    if (status == STATUS_OK && *o->html)
        status = inspect_html(&f, o->html);
    if (status == STATUS_OK) {
        report_begin(&r, call->json);
        report_cstr(&r, "file", path);
        report_cstr(&r, "version", moe_model_version(m));
        inspect_print(&f, &r);
        status = report_end(&r, stdout);
    }
    inspect_figures_free(&f);
    return status;
}

enum status inspect_experts(const struct moe_model *m, const char *path,
                            const struct inspect_options *o, const struct verb_call *call) {
    struct moe_model *against = NULL;
    struct inspect_data d = {0};
    if (*o->against)
        TRY(moe_model_load(o->against, &against));
    enum status status = inspect_data_read(m, path, o, call, &d);
    if (status == STATUS_OK)
        status = look(m, against, path, o, call, &d);
    inspect_data_free(&d);
    moe_model_free(against);
    return status;
}
