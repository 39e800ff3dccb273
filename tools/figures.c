/* figures.c: see figures.h. */
#include "tools/figures.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "base/io.h"
#include "moe/math/cpu.h"

void figures_begin(struct figures *f, const char *name) {
    const char *commit = getenv("MOERANK_COMMIT");
    *f = (struct figures){0};
    json_begin(&f->json, &f->text);
    json_object(&f->json);
    json_key(&f->json, "name"), json_cstr(&f->json, name);
    json_key(&f->json, "commit"), json_cstr(&f->json, commit ? commit : "unknown");
    json_key(&f->json, "cpu"), json_cstr(&f->json, moe_cpu_model());
    json_key(&f->json, "isa"), json_cstr(&f->json, moe_isa_word(moe_cpu()->isa));
    json_key(&f->json, "cores"), json_int(&f->json, sysconf(_SC_NPROCESSORS_ONLN));
    json_key(&f->json, "rows");
    json_array(&f->json);
}

void figures_row(struct figures *f, const char *what, double value, const char *unit, double target,
                 bool at_least) {
    struct json *j = &f->json;
    char text[48];
    snprintf(text, sizeof text, "%s %.9g", at_least ? ">=" : "<=", target);
    json_object(j);
    json_key(j, "what"), json_cstr(j, what);
    json_key(j, "value"), json_num(j, value);
    json_key(j, "unit"), json_cstr(j, unit);
    json_key(j, "target");
    if (isnan(target))
        json_null(j);
    else
        json_cstr(j, text);
    json_key(j, "ok");
    if (isnan(target))
        json_null(j);
    else
        json_bool(j, at_least ? value >= target : value <= target);
    json_key(j, "runs"), json_int(j, 1);
    json_key(j, "min"), json_num(j, value);
    json_key(j, "max"), json_num(j, value);
    json_object_end(j);
    f->n++;
}

enum status figures_write(struct figures *f, const char *folder, const char *name) {
    char path[4096];
    json_array_end(&f->json);
    json_object_end(&f->json);
    buf_add_byte(&f->text, '\n');
    snprintf(path, sizeof path, "%s/%s.json", folder, name);
    enum status status = io_make_dirs(folder);
    if (status == STATUS_OK)
        status = io_write_file(path, buf_slice(&f->text));
    buf_deinit(&f->text);
    return status;
}
