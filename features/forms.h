/* forms.h: a field's value in the form a reader wants (enum feat_form): from an event, and from the
 * bytes a record keeps. Numbers: NUMBER, FLAG, SIZE, WORDS, TIME, LOCAL, AGENT, MEDIUM. */
#pragma once
#include "features/codec.h"
#include "features/plan.h"

static inline bool feat_form_is_number(enum feat_form form) {
    return form >= FEAT_AS_NUMBER && form <= FEAT_AS_MEDIUM;
}
/* False when the value has no such form. */
bool feat_form_number(enum feat_form form, const struct ev_value *v, double *out);
/* IDS are feat_value_keys (keys.h). Each returns how many. */
int feat_form_vector(const struct ev_value *v, double *out /* [FEAT_VECTOR_MAX] */);
int feat_form_hashes(enum feat_form form, const struct ev_value *v,
                     uint32_t *out /* [FEAT_TERMS_MAX] */);

/* As a record keeps it, one form after another. */
void feat_form_put(enum feat_form form, const struct ev_value *v, struct buf *out);
/* Vectors and hashes, for feat_form_skip. */
void feat_form_skip_rest(enum feat_form form, struct cursor *c);
/* The usual ones in line: many more are gone by than read. Longer than one can be: bad. */
static inline void feat_form_skip(enum feat_form form, struct cursor *c) {
    if (feat_form_is_number(form)) {
        feat_skip_number(c);
    } else if (form == FEAT_AS_IDS) {
        const uint64_t bytes = feat_get_varint(c);
        feat_skip_bytes(c, bytes <= FEAT_IDS_MAX * FEAT_KEY_BYTES_MAX ? bytes : UINT64_MAX);
    } else {
        feat_form_skip_rest(form, c);
    }
}
/* All of a set of forms, as struct feat_field has it. */
static inline void feat_forms_skip(uint32_t forms, struct cursor *c) {
    for (; forms != 0; forms &= forms - 1)
        feat_form_skip((enum feat_form)__builtin_ctz(forms), c);
}
/* Keys behind the cursor; 0 of damaged bytes. */
int feat_form_get_ids(struct cursor *c, uint64_t *out /* [FEAT_IDS_MAX] */);
/* Hashes, likewise. */
int feat_form_get_hashes(struct cursor *c, uint32_t *out /* [FEAT_TERMS_MAX] */);
int feat_form_get_vector(struct cursor *c, double *out /* [FEAT_VECTOR_MAX] */);
