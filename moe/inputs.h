/* inputs.h: a batch to rows of the network and the gradient back: encoding, embedding, and which
 * columns are folded. Part of the forward pass (forward.c). */
#pragma once
#include "moe/model_impl.h"

/* Fields and scratch of what may be folded. */
void moe_inputs_bind(const struct moe_model *m, struct moe_plan *plan, struct moe_run *r,
                     struct moe_work *work);
/* Fills r->x. */
void moe_inputs_forward(const struct moe_model *m, const float *v, const struct moe_batch *b,
                        struct moe_run *r, bool exact, bool q_ready);
/* Before the backward pass: zeroes what it adds to. */
void moe_inputs_clear(const struct moe_model *m, struct moe_run *r);
/* From r->dx and the fields' tables to the embeddings' gradients. */
void moe_inputs_backward(const struct moe_model *m, const struct moe_batch *b, struct moe_run *r,
                         struct moe_embed_grad *embed);
