/* train_steps.h: training a step at a time, for who measures how fast it is. The steps are those of
 * moe_train: batches of shuffled groups, the loss, the backward pass and the optimizer, without
 * validation and averaging. One thread at a time; the workers are inside. */
#pragma once
#include "moe/train/train.h"

struct moe_train_steps;

/* As moe_train; `examples` and `conf` stay the caller's and must outlive it. */
enum status moe_train_steps_new(const struct node *spec, const char *file,
                                const struct moe_task_spec *tasks,
                                const struct moe_examples *examples,
                                const struct moe_train_conf *conf, struct arena *a,
                                struct moe_train_steps **out);
void moe_train_steps_free(struct moe_train_steps *s);
/* So many steps; returns the last one's loss. Epochs follow each other without end. */
double moe_train_steps_run(struct moe_train_steps *s, int n);
const struct moe_model *moe_train_steps_model(const struct moe_train_steps *s);
