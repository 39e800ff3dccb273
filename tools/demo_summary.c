/* demo_summary.c: the demo's last lines and build/demo/summary.json: the same figures twice. */
#include <math.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/node.h"
#include "moe/report/eval.h"
#include "tools/demo_summary.h"
#include "tools/figures.h"

static const char *const task_names[DEMO_TASKS] = {"like", "love"};
static const char *const rival_names[3] = {"model", "popularity", "item_rate"};

/* A number below a path of keys, 0 when absent. */
static double number_at(const struct node *n, const char *a, const char *b) {
    n = node_get(n, a);
    n = n && b ? node_get(n, b) : n;
    return n && n->type == NODE_NUMBER ? n->number : 0;
}

static void take_training(struct demo_summary *s, const struct node *root) {
    s->applied += number_at(root, "events", "applied");
    s->dead_lettered += number_at(root, "events", "dead_lettered");
    s->ingest_per_s = number_at(root, "events", "per_s");
    s->train_rows_per_s = number_at(root, "rows_per_s", NULL);
    s->train_seconds = number_at(root, "seconds", NULL);
}

static void take_replay(struct demo_summary *s, const struct node *root) {
    s->replayed = number_at(root, "compared", NULL);
    s->replayed_equal = number_at(root, "equal", NULL);
}

static enum status take(struct demo_summary *s, const char *json_path,
                        void (*from)(struct demo_summary *s, const struct node *root)) {
    struct arena a;
    struct buf text = {0};
    struct node *root;
    TRY(io_read_file(json_path, 1 << 20, &text));
    arena_init(&a, 0);
    enum status status = node_parse_json(&a, buf_slice(&text), json_path, &root);
    if (status == STATUS_OK) {
        from(s, root);
    }
    arena_deinit(&a);
    buf_deinit(&text);
    return status;
}

enum status demo_summary_training(struct demo_summary *s, const char *json_path) {
    return take(s, json_path, take_training);
}

enum status demo_summary_replay(struct demo_summary *s, const char *json_path) {
    return take(s, json_path, take_replay);
}

static void score_rivals(struct demo_summary *s, const struct demo_live *l) {
    for (int t = 0; t < DEMO_TASKS; t++) {
        const float *scores[3] = {l->score[t], l->popularity, l->item_rate[t]};
        for (int v = 0; v < 3; v++) {
            s->auc[t][v] = moe_auc(scores[v], l->label[t], l->n);
            s->user_auc[t][v] = moe_auc_grouped(scores[v], l->label[t], l->user, l->n, NULL);
        }
    }
}

enum status demo_summary_counts(struct demo_summary *s, const struct demo_run *r,
                                int metrics_port) {
    double applied = 0, dead = 0, before = s->applied + s->dead_lettered;
    for (int tries = 0; tries < 100; tries++) {
        TRY(demo_metric(metrics_port, "moerank_events_applied_total", &applied));
        TRY(demo_metric(metrics_port, "moerank_events_dead_lettered_total", &dead));
        if (before + applied + dead >= s->sent) {
            break;
        }
        clock_sleep_ms(50);
    }
    s->applied += applied;
    s->dead_lettered += dead;
    score_rivals(s, &r->live);
    return STATUS_OK;
}

static void write_counts(const struct demo_summary *s, const struct demo_run *r, struct json *j) {
    const struct demo_live *l = &r->live;
    json_key(j, "data");
    json_cstr(j, r->data->name);
    json_key(j, "events");
    json_object(j);
    json_key(j, "sent"), json_num(j, s->sent);
    json_key(j, "applied"), json_num(j, s->applied);
    json_key(j, "dead_lettered"), json_num(j, s->dead_lettered);
    json_key(j, "produced_per_s"), json_num(j, s->produce_per_s);
    json_key(j, "ingested_per_s"), json_num(j, s->ingest_per_s);
    json_object_end(j);
    json_key(j, "train");
    json_object(j);
    json_key(j, "rows_per_s"), json_num(j, s->train_rows_per_s);
    json_key(j, "seconds"), json_num(j, s->train_seconds);
    json_object_end(j);
    json_key(j, "rank_ms");
    json_object(j);
    json_key(j, "p50"), json_num(j, l->rank_p50_ms);
    json_key(j, "p99"), json_num(j, l->rank_p99_ms);
    json_key(j, "calls"), json_int(j, l->n_rank);
    json_object_end(j);
    json_key(j, "cache");
    json_object(j);
    json_key(j, "hit_rate"),
        json_num(j, l->n_cache_asked ? (double)l->n_cached / l->n_cache_asked : 0);
    json_key(j, "calls"), json_int(j, l->n_cache_asked);
    json_object_end(j);
}

static void write_aucs(struct json *j, const char *key, const double auc[DEMO_TASKS][3]) {
    json_key(j, key);
    json_object(j);
    for (int t = 0; t < DEMO_TASKS; t++) {
        json_key(j, task_names[t]);
        json_object(j);
        for (int v = 0; v < 3; v++) {
            json_key(j, rival_names[v]);
            json_num(j, auc[t][v]);
        }
        json_object_end(j);
    }
    json_object_end(j);
}

static void write_json(const struct demo_summary *s, const struct demo_run *r, struct buf *out) {
    const struct demo_live *l = &r->live;
    struct json j;
    json_begin(&j, out);
    json_object(&j);
    write_counts(s, r, &j);
    write_aucs(&j, "auc", s->auc);
    write_aucs(&j, "user_auc", s->user_auc);
    json_key(&j, "ndcg10");
    json_object(&j);
    json_key(&j, "model"), json_num(&j, l->ndcg_model);
    json_key(&j, "popularity"), json_num(&j, l->ndcg_popularity);
    json_key(&j, "item_rate"), json_num(&j, l->ndcg_item_rate);
    json_key(&j, "random"), json_num(&j, l->ndcg_random);
    json_key(&j, "lists"), json_int(&j, l->n_lists);
    json_object_end(&j);
    json_key(&j, "replay");
    json_object(&j);
    json_key(&j, "compared"), json_num(&j, s->replayed);
    json_key(&j, "equal"), json_num(&j, s->replayed_equal);
    json_object_end(&j);
    json_key(&j, "top10");
    demo_story_json(r->story, &j);
    json_key(&j, "seconds"), json_num(&j, s->seconds);
    json_object_end(&j);
    buf_add_byte(out, '\n');
}

static void print_text(const struct demo_summary *s, const struct demo_run *r) {
    const struct demo_live *l = &r->live;
    demo_story_print(r->story);
    printf("\n%s, %d live ratings, each scored just before it was applied\n", r->data->name, l->n);
    printf("  %-22s %10s %10s %10s\n", "", "model", "popularity", "film's rate");
    for (int t = 0; t < DEMO_TASKS; t++) {
        printf("  AUC %-18s %10.4f %10.4f %10.4f\n", task_names[t], s->auc[t][0], s->auc[t][1],
               s->auc[t][2]);
    }
    for (int t = 0; t < DEMO_TASKS; t++) {
        printf("  AUC within a user %-4s %10.4f %10.4f %10.4f\n", task_names[t], s->user_auc[t][0],
               s->user_auc[t][1], s->user_auc[t][2]);
    }
    printf("  NDCG@10 of liked films %9.4f %10.4f %10.4f   random %.4f   (%d users, all films)\n",
           l->ndcg_model, l->ndcg_popularity, l->ndcg_item_rate, l->ndcg_random, l->n_lists);
    printf(
        "  events    %.0f sent = %.0f applied + %.0f dead-lettered (%d of them malformed on purpose)\n",
        s->sent, s->applied, s->dead_lettered, s->malformed);
    printf("            %.0f/s produced, %.0f/s ingested with features and examples made\n",
           s->produce_per_s, s->ingest_per_s);
    printf("  training  %.1f s, %.0f rows/s\n", s->train_seconds, s->train_rows_per_s);
    printf("  Rank      %d films a call: p50 %.2f ms, p99 %.2f ms (%d calls over gRPC)\n",
           r->data->n_films, l->rank_p50_ms, l->rank_p99_ms, l->n_rank);
    printf("  cache     %.0f %% of %d list calls (each list was opened twice)\n",
           l->n_cache_asked ? 100.0 * l->n_cached / l->n_cache_asked : 0, l->n_cache_asked);
    printf("  replay    %.0f of %.0f logged requests ranked again, bit for bit equal\n",
           s->replayed_equal, s->replayed);
    printf("  in all    %.0f s\n", s->seconds);
    printf(
        "\nNext: %s/moerank.yaml holds this run's settings; docs/features.md and docs/models.md say "
        "what else it can hold.\n",
        s->out);
    printf("      %s inspect %s/model.safetensors\n", s->program, s->out);
    printf("      %s rank --help\n", s->program);
}

/* The same in the form all figures have. Targets are those of XGBoost on the same features, and of
 * the film's own rate within a user; they are MovieLens's and mean nothing on other data. */
static enum status write_figures(const struct demo_summary *s, const struct demo_run *r) {
    static const double auc_target[DEMO_TASKS] = {0.747, 0.764},
                        user_target[DEMO_TASKS] = {0.706, 0.721};
    const struct demo_live *l = &r->live;
    struct figures f;
    char what[64];
    figures_begin(&f, "demo");
    for (int t = 0; t < DEMO_TASKS; t++) {
        for (int v = 0; v < 3; v++) {
            bool judged = v == 0 && r->data->real;
            snprintf(what, sizeof what, "AUC %s, %s", task_names[t], rival_names[v]);
            figures_row(&f, what, s->auc[t][v], "", judged ? auc_target[t] : (double)NAN, true);
            snprintf(what, sizeof what, "AUC within a user %s, %s", task_names[t], rival_names[v]);
            figures_row(&f, what, s->user_auc[t][v], "", judged ? user_target[t] : (double)NAN,
                        true);
        }
    }
    figures_row(&f, "NDCG@10 of liked films, model", l->ndcg_model, "", l->ndcg_popularity, true);
    figures_row(&f, "NDCG@10 of liked films, popularity", l->ndcg_popularity, "", (double)NAN,
                true);
    figures_row(&f, "Rank of all films p50", l->rank_p50_ms, "ms", (double)NAN, true);
    figures_row(&f, "Rank of all films p99", l->rank_p99_ms, "ms", (double)NAN, true);
    figures_row(&f, "events ingested with examples made", s->ingest_per_s, "1/s", (double)NAN,
                true);
    figures_row(&f, "events lost", s->sent - s->applied - s->dead_lettered, "", 0, false);
    figures_row(&f, "replayed requests that differ", s->replayed - s->replayed_equal, "", 0, false);
    figures_row(&f, "seconds in all", s->seconds, "s", 600, false);
    return figures_write(&f, "build/bench", "demo");
}

enum status demo_summary_write(const struct demo_summary *s, const struct demo_run *r,
                               const char *path, bool as_json) {
    struct buf text = {0};
    write_json(s, r, &text);
    enum status status = io_write_file(path, buf_slice(&text));
    if (as_json) {
        fwrite(text.p, 1, text.n, stdout);
    } else {
        print_text(s, r);
    }
    buf_deinit(&text);
    if (status == STATUS_OK)
        status = write_figures(s, r);
    if (status == STATUS_OK && s->sent != s->applied + s->dead_lettered) {
        status = fail(STATUS_DATA_LOSS, "%.0f events sent, but %.0f applied and %.0f dead-lettered",
                      s->sent, s->applied, s->dead_lettered);
    }
    return status;
}
