/* mute.c: takes an expert out of routes of every kind. The choice of the others stays: a gate of
 * the best k does not choose a substitute. */
#include "moe/mute.h"
#include <math.h>

/* One row of n weights without those in [from, to). */
static void leave_out(float *w, int n, int from, int to) {
    double all = 0, kept = 0;
    for (int i = 0; i < n; i++) {
        all += (double)w[i];
        kept += i >= from && i < to ? 0 : (double)w[i];
    }
    float scale = fabs(all - 1) < 1e-3 && kept > 1e-9 ? (float)(all / kept) : 1;
    for (int i = 0; i < n; i++)
        w[i] = i >= from && i < to ? 0 : scale * w[i];
}

void moe_mute_route(const struct moe_mute *mute, const struct moe_gate_use *u,
                    struct moe_route *route) {
    int at = 0, n = route->n_experts, slots = route->n_slots;
    while (at < n && u->experts[at] != mute->expert)
        at++;
    if (at == n)
        return;
    switch (route->kind) {
    case MOE_ROUTE_WEIGHTS:
        for (int r = 0; r < route->n_rows; r++)
            leave_out(route->w + (size_t)r * (size_t)n, n, at, at + 1);
        return;
    case MOE_ROUTE_MERGE:
        for (int g = 0; g < route->n_groups; g++)
            leave_out(route->w + (size_t)g * (size_t)n, n, at, at + 1);
        return;
    case MOE_ROUTE_SLOTS:
        for (int r = 0; r < route->n_rows; r++)
            leave_out(route->combine + (size_t)r * (size_t)slots, slots, at * (slots / n),
                      (at + 1) * (slots / n));
    }
}
