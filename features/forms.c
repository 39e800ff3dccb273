/* forms.c: values in their forms. What a form cannot say is missing, never an error: the world's
 * events are not ours to refuse. */
#include "features/forms.h"
#include <math.h>
#include "base/iso.h"
#include "features/agent.h"
#include "features/codec.h"
#include "features/keys.h"
#include "features/text.h"

static bool flag_of(const struct ev_value *v, double *out) {
    static const char *const words[] = {"false", "true", "no", "yes", "off", "on", NULL};
    if (ev_value_number(v, out)) {
        *out = *out != 0;
        return true;
    }
    for (int i = 0; v->type == EV_STRING && words[i] != NULL; i++)
        if (slice_is(v->string, words[i])) {
            *out = i % 2;
            return true;
        }
    return false;
}

static bool time_of(enum feat_form form, const struct ev_value *v, double *out) {
    int64_t utc_us;
    int ahead_s;
    if (v->type != EV_STRING || !iso_parse(v->string, &utc_us, &ahead_s))
        return ev_value_number(v, out);
    *out = (double)utc_us / 1e6 + (form == FEAT_AS_LOCAL ? ahead_s : 0);
    return true;
}

static double words_of(const struct ev_value *v) {
    double n = v->type == EV_STRING ? feat_text_words(v->string) : 0;
    for (int i = 0; v->type == EV_STRINGS && i < v->strings.n; i++)
        n += feat_text_words(v->strings.v[i]);
    return n;
}

bool feat_form_number(enum feat_form form, const struct ev_value *v, double *out) {
    switch (form) {
    case FEAT_AS_FLAG:
        return flag_of(v, out);
    case FEAT_AS_SIZE:
        *out = v->type == EV_STRINGS ? v->strings.n : v->type == EV_NUMBERS ? v->numbers.n : 1;
        return true;
    case FEAT_AS_WORDS:
        *out = words_of(v);
        return v->type == EV_STRING || v->type == EV_STRINGS;
    case FEAT_AS_TIME:
    case FEAT_AS_LOCAL:
        return time_of(form, v, out) && isfinite(*out);
    case FEAT_AS_AGENT:
        *out = v->type == EV_STRING ? feat_agent_pack(feat_agent_parse(v->string)) : 0;
        return v->type == EV_STRING;
    case FEAT_AS_MEDIUM:
        *out = v->type == EV_STRING ? (double)feat_medium_parse(v->string, NULL, 0) : 0;
        return v->type == EV_STRING;
    default:
        return ev_value_number(v, out) && isfinite(*out);
    }
}

int feat_form_vector(const struct ev_value *v, double *out) {
    int n = 0;
    if (v->type != EV_NUMBERS)
        return ev_value_number(v, out) && isfinite(*out) ? 1 : 0;
    for (int i = 0; i < v->numbers.n && n < FEAT_VECTOR_MAX; i++)
        if (isfinite(v->numbers.v[i]))
            out[n++] = v->numbers.v[i];
    return n;
}

static int hashes_of(enum feat_form form, struct slice text, uint32_t *out, int max) {
    return form == FEAT_AS_TERMS
               ? feat_text_terms(text, out, max)
               : feat_text_grams(text, 2 + (int)(form - FEAT_AS_GRAMS2), out, max);
}

int feat_form_hashes(enum feat_form form, const struct ev_value *v, uint32_t *out) {
    int n = 0;
    if (v->type == EV_STRING)
        n = hashes_of(form, v->string, out, FEAT_TERMS_MAX);
    for (int i = 0; v->type == EV_STRINGS && i < v->strings.n; i++)
        n += hashes_of(form, v->strings.v[i], out + n, FEAT_TERMS_MAX - n);
    return form == FEAT_AS_TERMS ? n : feat_text_distinct(out, n);
}

/* ---- as a record keeps it ---- */

/* How many bytes the keys take, so that who looks for another field steps over them. */
static void put_ids(const struct ev_value *v, struct buf *out) {
    uint64_t keys[FEAT_IDS_MAX];
    struct buf bytes = {0};
    int n = feat_value_keys(v, keys);
    for (int i = 0; i < n; i++)
        feat_put_key(&bytes, i == 0 ? 0 : keys[i - 1], keys[i]);
    buf_add_varint(out, bytes.n);
    buf_add(out, bytes.p, bytes.n);
    buf_deinit(&bytes);
}

static void put_vector(const struct ev_value *v, struct buf *out) {
    double numbers[FEAT_VECTOR_MAX];
    int n = feat_form_vector(v, numbers);
    buf_add_varint(out, (uint64_t)n);
    for (int i = 0; i < n; i++)
        feat_put_number(out, numbers[i]);
}

void feat_form_put(enum feat_form form, const struct ev_value *v, struct buf *out) {
    if (feat_form_is_number(form)) {
        double number;
        feat_put_number(out, feat_form_number(form, v, &number) ? number : (double)NAN);
    } else if (form == FEAT_AS_IDS) {
        put_ids(v, out);
    } else if (form == FEAT_AS_VECTOR) {
        put_vector(v, out);
    } else {
        uint32_t hashes[FEAT_TERMS_MAX];
        int n = feat_form_hashes(form, v, hashes);
        buf_add_varint(out, (uint64_t)n);
        for (int i = 0; i < n; i++)
            buf_add_u32(out, hashes[i]);
    }
}

void feat_form_skip_rest(enum feat_form form, struct cursor *c) {
    uint64_t n = feat_get_varint(c);
    if (n > (form == FEAT_AS_VECTOR ? FEAT_VECTOR_MAX : FEAT_TERMS_MAX)) {
        c->bad = 1;
        return;
    }
    for (; form == FEAT_AS_VECTOR && n > 0; n--)
        feat_skip_number(c);
    feat_skip_bytes(c, n * sizeof(uint32_t));
}

int feat_form_get_ids(struct cursor *c, uint64_t *out) {
    const uint64_t bytes = feat_get_varint(c);
    uint64_t plain = feat_key_plain(0);
    int n = 0;
    if (c->bad || bytes > (uint64_t)(c->end - c->p)) {
        c->bad = 1;
        return 0;
    }
    const uint8_t *end = c->p + bytes;
    while (n < FEAT_IDS_MAX && c->p < end && !c->bad) {
        plain ^= feat_get_key_step(c);
        out[n++] = feat_key_spread(plain);
    }
    c->bad |= c->p != end;
    return c->bad ? 0 : n;
}

int feat_form_get_hashes(struct cursor *c, uint32_t *out) {
    uint64_t n = feat_get_varint(c);
    for (uint64_t i = 0; i < n && i < FEAT_TERMS_MAX; i++)
        out[i] = cursor_u32(c);
    return c->bad || n > FEAT_TERMS_MAX ? 0 : (int)n;
}

int feat_form_get_vector(struct cursor *c, double *out) {
    uint64_t n = feat_get_varint(c);
    for (uint64_t i = 0; i < n && i < FEAT_VECTOR_MAX; i++)
        out[i] = feat_get_number(c);
    return c->bad || n > FEAT_VECTOR_MAX ? 0 : (int)n;
}
