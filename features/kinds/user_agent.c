/* user_agent.c: platform, operating system and browser of a User-Agent, a column per known word,
 * and whether it is a robot. By small tables (features/agent.h). Stateless but for the remembered
 * field, of which only the answer is kept. */
#include "features/agent.h"
#include "features/claim.h"

static const char *const platforms[FEAT_PLATFORMS + 1] = {"desktop", "mobile", "tablet", "other"};
static const char *const oses[FEAT_OSES + 1] = {"windows", "macos", "linux", "chromeos",
                                                "android", "ios",   "other"};
static const char *const browsers[FEAT_BROWSERS + 1] = {"chrome", "safari",  "firefox", "edge",
                                                        "opera",  "samsung", "ie",      "other"};
static const struct {
    const char *word;
    const char *const *values; /* NULL: yes or no */
} parts[] = {{"platform", platforms}, {"os", oses}, {"browser", browsers}, {"bot", NULL}};
enum { PARTS = 4 };

struct params {
    const char *source_text;
    struct conf_strings parts_text;
    struct feat_source source;
    int parts[PARTS]; /* [parts_text.n] */
};

static const struct conf_item items[] = {
    CONF_STRING(struct params, source_text, "source", NULL, "context.FIELD or user.FIELD."),
    CONF_STRINGS(struct params, parts_text, "parts", "platform, os, browser, bot",
                 "platform, os, browser: a column per word; bot: 0 or 1."),
    CONF_END};

static int width_of(int part) {
    int n = 0;
    while (parts[part].values != NULL && parts[part].values[n] != NULL)
        n++;
    return parts[part].values == NULL ? 1 : n;
}

static enum status check(struct feat_plan *p, struct feat *f) {
    struct params *m = f->params;
    int n = m->parts_text.n, columns = 0;
    TRY(feat_claim_source(p, "source", m->source_text, FEAT_AS_AGENT, &m->source));
    if (n < 1 || n > PARTS)
        return fail(STATUS_INVALID_ARGUMENT, "parts: %d parts; 1 to %d are allowed", n, PARTS);
    const char **names = ARENA_ARRAY(&p->arena, const char *, 32);
    for (int i = 0; i < n; i++) {
        int k = 0;
        while (k < PARTS && strcmp(parts[k].word, m->parts_text.v[i]) != 0)
            k++;
        if (k == PARTS)
            return fail(STATUS_INVALID_ARGUMENT, "parts: '%s' is none of platform os browser bot",
                        m->parts_text.v[i]);
        for (int h = 0; h < i; h++)
            if (m->parts[h] == k)
                return fail(STATUS_INVALID_ARGUMENT, "parts: '%s' stands there twice",
                            parts[k].word);
        m->parts[i] = k;
        for (int v = 0; v < width_of(k); v++)
            names[columns++] =
                parts[k].values == NULL
                    ? parts[k].word
                    : arena_printf(&p->arena, "%s.%s", parts[k].word, parts[k].values[v]);
    }
    f->side = feat_source_side(&m->source);
    f->n_columns = columns;
    f->column_names = names;
    return STATUS_OK;
}

static void extract(const struct feat *f, struct feat_read *r, int row, float *dense,
                    uint32_t *ids) {
    (void)ids;
    const struct params *m = f->params;
    double packed;
    if (!feat_source_number(&m->source, r, row, &packed))
        return;
    struct feat_agent a = feat_agent_unpack((int)packed);
    const int by[PARTS] = {(int)a.platform, (int)a.os, (int)a.browser, a.bot};
    for (int i = 0, at = 0; i < m->parts_text.n; i++) {
        int part = m->parts[i], width = width_of(part);
        for (int k = 0; k < width; k++)
            dense[at++] = parts[part].values == NULL ? (float)by[part] : (float)(by[part] == k);
    }
}

const struct feat_kind feat_kind_user_agent = {
    .name = "user_agent",
    .doc = "Platform, operating system, browser and robot or not, of a User-Agent.",
    .params = items,
    .params_bytes = sizeof(struct params),
    .check = check,
    .extract = extract,
};
