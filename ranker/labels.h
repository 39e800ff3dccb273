/* labels.h: events -> training examples, exactly as serving would have seen them: rows are
 * extracted from the state as it was just before the event that makes the example, labels come
 * from what happened within the window after it.
 *
 *     examples:
 *       from: rating        # each interaction of this type is an example of its (user, item);
 *                           # "ranking": each shown item of each ranking is one
 *       negatives: 4        # items drawn uniformly from those known, added to each example
 *       window: 30m         # how long interactions with it count
 *       cascade: true       # what was shown below the last answered item was not looked at: it
 *                           # has no labels, and a list without an answer is no example
 *     tasks:
 *       - {name: like, positive: rating where value >= 4}
 *       - {name: love, positive: rating where value >= 5}
 *       - {name: order, positive: order, given: click}   # sample space: clicked rows only
 *       - {name: pick, positive: rating, space: all}     # sampled negatives count, as label 0
 *
 * An interaction answers the ranking it names, whichever of the two comes first; one that names
 * none answers its user's newest open example of that item, or, without a user, its session's. One
 * that names nobody answers nothing. */
#pragma once
#include "features/state.h"
#include "moe/data/examples.h"
#include "moe/train/train.h"
#include "proto/rpc.h"

struct rk_examples_conf { /* section `examples` */
    const char *from;
    int64_t negatives, window_us, skip, open_max;
    bool cascade;
};
struct rk_tasks {
    struct rk_examples_conf examples;
    struct moe_task_spec *specs; /* [n] names and weights, for moe_train */
    int n;
    struct rk_task_rule *rules; /* [n] */
};
struct rk_labels; /* the running join */
/* Settings tables, also for docs/config.md. */
extern const struct conf_item rk_examples_items[], rk_task_items[];

/* Reads the sections `examples` and `tasks`. */
enum status rk_tasks_read(const struct node *root, const char *file, struct arena *a,
                          struct rk_tasks *out);

/* All of them must outlive the labels. */
struct rk_labels *rk_labels_new(const struct rk_tasks *tasks, struct feat_state *state,
                                const struct moe_inputs *inputs, uint64_t seed);
void rk_labels_free(struct rk_labels *l);
/* From now on rows are as a server would make them, which does not know where an item will be
 * shown: kind position gives its constant. For judging a model; training gives the true positions.
 */
void rk_labels_as_served(struct rk_labels *l);
/* Before the first event: the examples hold their numbers compact (moe/data/examples.h). */
void rk_labels_hold_compact(struct rk_labels *l);
/* How late events may come: so much longer examples stay open. 0 at first. */
void rk_labels_lateness(struct rk_labels *l, int64_t lateness_us);
/* From now on examples are what rk_labels_served is given; ranking events make none. */
void rk_labels_from_log(struct rk_labels *l);
/* A served request with rows of the plan `p`: an example of what was answered, in that order, with
 * the very rows the model was given; kind position has its true positions. Its id is the request's:
 * interactions name it as their ranking. Before the events that came after it. */
void rk_labels_served(struct rk_labels *l, const struct feat_plan *p,
                      const struct rpc_request_log *q);
/* To be called with each event BEFORE it is applied to the state, in the order of application. */
void rk_labels_event(struct rk_labels *l, const struct ev_event *e);
/* Interactions so far that named no ranking, user or session, and made no example themselves. */
int64_t rk_labels_of_nobody(const struct rk_labels *l);
/* Closes all open examples and hands over the examples (caller frees with moe_examples_free). */
struct moe_examples *rk_labels_finish(struct rk_labels *l);
