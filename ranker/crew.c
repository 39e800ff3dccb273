/* crew.c: pieces of a slate are numbers that whoever is free takes from a counter, so a helper that
 * comes late finds nothing left and nobody waits for it. The worker that has the slate takes pieces
 * too, and at the end waits for the pieces under way only. Helpers are woken while the slate's rows
 * are made and look out for it for a moment, so that it need not wait for them to wake up; and
 * after a slate, when the next one mostly comes soon (spin.h), they stay awake for it. A worker
 * that is done before its helpers looks for their end, since they are about to be.
 *
 * Deliberately no queue of slates: one that finds no idle worker is scored by its own alone. */
#define _GNU_SOURCE /* PTHREAD_MUTEX_ADAPTIVE_NP */
#include "ranker/crew.h"
#include <pthread.h>
#include <sched.h>
#include "base/clock.h"
#include "base/heap.h"
#include "base/metric.h"
#include "ranker/lap.h"
#include "ranker/spin.h"

enum {
    PIECES_EACH = 8,  /* who is done takes another: at the end little is waited for */
    TILE_ROWS = 28,   /* half a block of the packed kernels (moe/score/scorer_packed.h) */
    EXPECT_US = 1000, /* longer than rows of most slates take */
    PATIENCE_US = 200 /* longer than most pieces take */
};

/* A slate being scored; on its worker's stack. */
struct slate {
    const struct rk_bundle *b;
    const struct moe_batch *batch;
    float *out; /* pieces, one after another: [n_tasks x rows] each */
    int rows, n_pieces;
    atomic_int next;
    int wanted;        /* helpers that may still come */
    atomic_int inside; /* that are at it */
    struct slate *below;
};
struct rk_crew {
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    struct slate *slates; /* that want helpers, or have some */
    bool stopping;
    int expected;             /* helpers that should look out for a slate */
    atomic_int busy, helping; /* helping: promised places too */
    atomic_int asked, open;   /* slates that were announced, that were opened; ever */
    int workers, n_threads;
    int64_t items_min, linger_us;
    pthread_t *threads;
};

static void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static int piece_rows(const struct slate *s, int piece) {
    int left = s->batch->n_rows - piece * s->rows;
    return left < s->rows ? left : s->rows;
}

static void score_piece(const struct slate *s, int piece, void *scratch) {
    const struct moe_inputs *in = moe_model_inputs(s->b->model);
    const size_t from = (size_t)(piece * s->rows);
    struct moe_batch part = *s->batch;
    part.n_rows = piece_rows(s, piece);
    part.cand += from * (size_t)in->cand_columns;
    part.cand_ids += from * (size_t)in->cand_slots;
    moe_scorer_score(s->b->scorer, &part, scratch, s->out + from * (size_t)s->b->n_tasks);
}

/* ---- helpers ------------------------------------------------------------------------------- */

static struct slate *wanted(const struct rk_crew *c) {
    struct slate *s = c->slates;
    while (s && s->wanted == 0)
        s = s->below;
    return s;
}

/* Until no piece is left or the place is needed for a call. */
static void help(struct rk_crew *c, struct slate *s, struct rk_worker *w) {
    int piece;
    rk_lap_begin(w);
    void *scratch = rk_worker_scratch(w, s->b->scorer);
    while (atomic_load(&c->busy) + atomic_load(&c->helping) <= c->workers &&
           (piece = atomic_fetch_add(&s->next, 1)) < s->n_pieces)
        score_piece(s, piece, scratch);
    rk_lap(w, METRIC_CPU_SCORE);
}

static bool is_free(const struct rk_crew *c) {
    return atomic_load_explicit(&c->busy, memory_order_relaxed) < c->workers;
}

/* Until a slate is opened, the place is needed for a call, or nothing came of it. */
static void look_out(const struct rk_crew *c, int open) {
    const int64_t until_us = clock_mono_us() + EXPECT_US;
    while (atomic_load(&c->open) == open && is_free(c) && clock_mono_us() < until_us)
        sched_yield(); /* the caller may have this CPU */
}

/* Until a slate is announced or opened, or none came soon. */
static void linger(const struct rk_crew *c, struct rk_spin *spin, int asked, int open) {
    bool look = rk_spin_begin(spin, clock_mono_us(), is_free(c));
    while (look && atomic_load(&c->asked) == asked && atomic_load(&c->open) == open) {
        sched_yield();
        look = is_free(c) && rk_spin_again(spin, clock_mono_us());
    }
}

/* Under the lock: waits for something to do, first awake. */
static void wait_for_work(struct rk_crew *c, struct rk_spin *spin) {
    const int asked = atomic_load(&c->asked), open = atomic_load(&c->open);
    pthread_mutex_unlock(&c->lock);
    linger(c, spin, asked, open);
    pthread_mutex_lock(&c->lock);
    while (!c->stopping && c->expected == 0 && !wanted(c))
        pthread_cond_wait(&c->work, &c->lock);
    rk_spin_end(spin, clock_mono_us());
}

/* Under the lock, but for the work. */
static void join_in(struct rk_crew *c, struct slate *s, struct rk_worker *w) {
    s->wanted--;
    atomic_fetch_add(&s->inside, 1);
    pthread_mutex_unlock(&c->lock);
    help(c, s, w);
    const bool last = atomic_fetch_sub(&s->inside, 1) == 1; /* then the slate may be gone */
    pthread_mutex_lock(&c->lock);
    atomic_fetch_sub(&c->helping, 1);
    if (last)
        pthread_cond_broadcast(&c->done);
}

static void *serve(void *arg) {
    struct rk_crew *c = arg;
    struct rk_worker w;
    struct rk_spin spin;
    rk_worker_init(&w);
    rk_spin_init(&spin, c->linger_us);
    pthread_mutex_lock(&c->lock);
    while (!c->stopping) {
        struct slate *s = wanted(c);
        if (s) {
            join_in(c, s, &w);
        } else if (c->expected > 0) {
            const int open = atomic_load(&c->open);
            c->expected--;
            pthread_mutex_unlock(&c->lock);
            look_out(c, open);
            pthread_mutex_lock(&c->lock);
        } else {
            wait_for_work(c, &spin);
        }
    }
    pthread_mutex_unlock(&c->lock);
    rk_worker_deinit(&w);
    return NULL;
}

/* It is held for some instructions, so who finds it taken looks again before sleeping. */
static void lock_init(pthread_mutex_t *lock) {
    pthread_mutexattr_t kind;
    pthread_mutexattr_init(&kind);
    pthread_mutexattr_settype(&kind, PTHREAD_MUTEX_ADAPTIVE_NP);
    pthread_mutex_init(lock, &kind);
    pthread_mutexattr_destroy(&kind);
}

struct rk_crew *rk_crew_new(int workers, int64_t items_min, int64_t linger_us) {
    if (workers < 2 || items_min == 0)
        return NULL;
    struct rk_crew *c = HEAP_NEW(struct rk_crew);
    c->workers = workers;
    c->items_min = items_min;
    c->linger_us = linger_us;
    lock_init(&c->lock);
    pthread_cond_init(&c->work, NULL);
    pthread_cond_init(&c->done, NULL);
    c->threads = HEAP_ARRAY(pthread_t, workers - 1);
    while (c->n_threads < workers - 1 &&
           pthread_create(&c->threads[c->n_threads], NULL, serve, c) == 0)
        c->n_threads++;
    return c;
}

void rk_crew_free(struct rk_crew *c) {
    if (!c)
        return;
    pthread_mutex_lock(&c->lock);
    c->stopping = true;
    pthread_cond_broadcast(&c->work);
    pthread_mutex_unlock(&c->lock);
    for (int i = 0; i < c->n_threads; i++)
        pthread_join(c->threads[i], NULL);
    pthread_cond_destroy(&c->done);
    pthread_cond_destroy(&c->work);
    pthread_mutex_destroy(&c->lock);
    heap_free(c->threads);
    heap_free(c);
}

void rk_crew_busy(struct rk_crew *c, int change) {
    if (c)
        atomic_fetch_add(&c->busy, change);
}

/* ---- the worker that has the slate ----------------------------------------------------------- */

/* Helpers that a slate of n rows could have now. */
static int idle_for(const struct rk_crew *c, int n) {
    const int others = (n + TILE_ROWS - 1) / TILE_ROWS - 1;
    int idle = c->workers - atomic_load(&c->busy) - atomic_load(&c->helping);
    idle = idle < c->n_threads ? idle : c->n_threads;
    return idle < others ? idle : others;
}

static bool splits(const struct rk_crew *c, const struct rk_bundle *b, int n) {
    return c && n >= c->items_min && !moe_model_mixes_rows(b->model);
}

void rk_crew_expect(struct rk_crew *c, const struct rk_bundle *b, int n_items) {
    if (!splits(c, b, n_items))
        return;
    pthread_mutex_lock(&c->lock);
    c->expected = idle_for(c, n_items);
    atomic_fetch_add(&c->asked, 1);
    for (int i = 0; i < c->expected; i++)
        pthread_cond_signal(&c->work);
    pthread_mutex_unlock(&c->lock);
}

/* Asks idle workers in. Says how many may come. */
static int open_slate(struct rk_crew *c, struct slate *s) {
    const int n = s->batch->n_rows;
    pthread_mutex_lock(&c->lock);
    const int idle = idle_for(c, n);
    c->expected = 0;
    if (idle > 0) {
        const int pieces = PIECES_EACH * (idle + 1), tiles = TILE_ROWS * pieces;
        s->rows = (n + tiles - 1) / tiles * TILE_ROWS;
        s->n_pieces = (n + s->rows - 1) / s->rows;
        s->wanted = idle;
        s->below = c->slates;
        c->slates = s;
        atomic_fetch_add(&c->helping, idle);
        atomic_fetch_add(&c->open, 1);
        for (int i = 0; i < idle; i++)
            pthread_cond_signal(&c->work);
    }
    pthread_mutex_unlock(&c->lock);
    return idle;
}

static void close_slate(struct rk_crew *c, struct slate *s) {
    struct slate **at = &c->slates;
    pthread_mutex_lock(&c->lock);
    while (*at != s)
        at = &(*at)->below;
    *at = s->below;
    atomic_fetch_sub(&c->helping, s->wanted); /* who did not come is not awaited */
    s->wanted = 0;
    pthread_mutex_unlock(&c->lock);
    if (atomic_load(&s->inside) == 0)
        return;
    const int64_t until_us = clock_mono_us() + PATIENCE_US;
    while (atomic_load(&s->inside) > 0 && clock_mono_us() < until_us)
        relax();
    pthread_mutex_lock(&c->lock);
    while (atomic_load(&s->inside) > 0)
        pthread_cond_wait(&c->done, &c->lock);
    pthread_mutex_unlock(&c->lock);
}

void rk_crew_score(struct rk_crew *c, const struct rk_bundle *b, const struct moe_batch *batch,
                   struct arena *a, void *scratch, float *probabilities) {
    struct slate s = {.b = b, .batch = batch};
    const size_t n = (size_t)batch->n_rows, tasks = (size_t)b->n_tasks;
    const bool large = splits(c, b, batch->n_rows);
    if (large)
        s.out = arena_alloc_aligned(a, n * tasks * sizeof *s.out);
    if (!large || open_slate(c, &s) < 1) {
        moe_scorer_score(b->scorer, batch, scratch, probabilities);
        return;
    }
    for (int piece; (piece = atomic_fetch_add(&s.next, 1)) < s.n_pieces;)
        score_piece(&s, piece, scratch);
    close_slate(c, &s);
    metric_add(METRIC_RANK_SPLIT, 1);
    for (int piece = 0; piece < s.n_pieces; piece++) {
        const size_t from = (size_t)(piece * s.rows), rows = (size_t)piece_rows(&s, piece);
        for (size_t t = 0; t < tasks; t++)
            memcpy(probabilities + t * n + from, s.out + from * tasks + t * rows,
                   rows * sizeof *probabilities);
    }
}
