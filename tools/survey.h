/* survey.h: what a stream of events looks like, line by line: what is wrong with it, what is in it,
 * and how well it fits a feature plan. For `moerank validate`. */
#pragma once
#include "base/map.h"
#include "features/kind.h"
#include "features/state.h"
#include "tools/report.h"
#include "tools/tally.h"

struct survey {
    const struct feat_plan *plan; /* NULL: none to compare with */
    struct feat_state *state;     /* with a plan */
    struct arena arena;           /* of one event */
    int64_t sample;               /* rows are made of one in so many rankings and interactions */

    int64_t lines, bad, first_bad_line;
    char first_bad[256];
    struct tally reasons; /* of bad lines, without their numbers and names */
    struct tally kinds;   /* "interaction click" */
    struct tally fields;  /* "item.price", "shown.retrieval" */

    int64_t first_us, last_us; /* event times; 0: no event */
    int64_t out_of_order, too_late, behind_max_us;
    int64_t opened_us;     /* what arrived, did so by then */
    int64_t too_far_ahead; /* of the time they arrived: wrong clocks */

    struct map items, rankings, shown; /* hashes seen; shown: of ranking and item */
    int64_t interactions, on_unseen_items, with_ranking, joined, joined_item;
    int64_t same_key;  /* interactions that go where their ranking went: joins ask for it */
    int64_t of_nobody; /* interactions without a ranking, a user or a session: they join nothing */

    int64_t n_moments;       /* rankings and interactions */
    int64_t n_query, n_rows; /* made */
    int64_t *missing;        /* [n_features] requests or rows without any value */
    int64_t *ns;             /* [n_features] what making them took; NULL: nobody asked */
};

void survey_init(struct survey *s, const struct feat_plan *plan, int64_t sample);
/* Also what each feature costs: its cells' bytes, and the time it takes. Needs a plan. */
void survey_costs(struct survey *s);
void survey_deinit(struct survey *s);
/* `number`: of the line, 1-based. Wrong lines are counted, never an error. */
void survey_line(struct survey *s, struct slice line, int64_t number);
void survey_bad(struct survey *s, const char *reason, int64_t number);
void survey_report(struct survey *s, struct report *r);
