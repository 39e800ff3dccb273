/* cmd_demo.c: the main job from end to end on one machine: a broker, a Redis, a stream of ratings,
 * a model trained from it, a server that ranks while the rest streams in, and the figures.
 * Everything is started here, listens on loopback only and is stopped at the end; files go to one
 * folder. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/heap.h"
#include "base/io.h"
#include "tools/demo.h"
#include "tools/demo_summary.h"
#include "tools/options.h"
#include "tools/verbs.h"

#define PARTITIONS "16"
#define MALFORMED  3 /* sent on purpose, to show where they go */

struct options {
    const char *data, *out;
    int64_t train_ratings, live_ratings;
};
static const struct conf_item items[] = {
    OPTION_TEXT(struct options, data, "data", "", "FOLDER",
                "MovieLens-100K in RecBole's form; empty: a synthetic stream of the same shape"),
    OPTION_TEXT(struct options, out, "out", "build/demo", "FOLDER", "where files and logs go"),
    CONF_INT(struct options, train_ratings, "train-ratings", "80000", 1000, 10000000, "N",
             "how many ratings, oldest first, train the model"),
    CONF_INT(struct options, live_ratings, "live-ratings", "20000", 1, 10000000, "N",
             "how many of the rest stream in live"),
    CONF_END,
};

/* Everything that is running or allocated, so that one place stops it. */
struct stage {
    const struct options *options;
    struct arena arena;
    char self[4096]; /* this program */
    struct demo_part redis, broker, serve;
    char *config, *model, *state, *socket, *brokers, *listen;
    int metrics_port;
    struct demo_data data;
    struct demo_run run;
    struct demo_summary summary;
};

static const char *in_out(struct stage *s, const char *name) {
    return arena_printf(&s->arena, "%s/%s", s->options->out, name);
}

static void say(const char *text) { fprintf(stderr, "demo: %s\n", text); }

extern const char demo_yaml[], demo_yaml_end[];
__asm__(".section .rodata\n.global demo_yaml\n.global demo_yaml_end\n"
        "demo_yaml:\n.incbin \"" MOERANK_SOURCE_DIR "/docs/examples/movielens.yaml\"\n"
        "demo_yaml_end:\n.byte 0\n.previous\n");

static enum status prepare(struct stage *s) {
    ssize_t n = readlink("/proc/self/exe", s->self, sizeof s->self - 1);
    if (n <= 0) {
        return fail(STATUS_INTERNAL, "cannot find this program's own path");
    }
    TRY(io_make_dirs(s->options->out));
    static const char *const old[] = {"kafka.address", "redis.sock",        "grpc.port",
                                      "state.snap",    "model.safetensors", "train.json",
                                      "replay.json",   "requests.log",      "redis.log",
                                      "broker.log",    "serve.log",         "synthetic.jsonl"};
    for (size_t i = 0; i < sizeof old / sizeof *old; i++) {
        unlink(in_out(s, old[i]));
    }
    s->config = (char *)in_out(s, "moerank.yaml");
    s->model = (char *)in_out(s, "model.safetensors");
    s->state = (char *)in_out(s, "state.snap");
    return io_write_file(s->config, (struct slice){demo_yaml, (size_t)(demo_yaml_end - demo_yaml)});
}

static enum status load_data(struct stage *s) {
    if (s->options->data[0]) {
        TRY(demo_data_movielens(s->options->data, &s->data));
    } else {
        say("no MovieLens folder: running on a synthetic stream of the same shape (moerank generate)");
        const char *path = in_out(s, "synthetic.jsonl");
        const char *argv[] = {s->self, "generate", "--shape", "ratings",
                              "--to",  path,       "--quiet", NULL};
        TRY(demo_part_run("moerank generate", argv, in_out(s, "generate.out")));
        TRY(demo_data_lines(path, &s->data));
    }
    int64_t wanted = s->options->train_ratings + 1;
    if (s->data.n_ratings < wanted) {
        return fail(STATUS_INVALID_ARGUMENT,
                    "%s has %d ratings; --train-ratings must be below that", s->data.name,
                    s->data.n_ratings);
    }
    return STATUS_OK;
}

static enum status start_parts(struct stage *s) {
    say("starting redis-server (Unix socket) and moerank dev-broker (Kafka's protocol in memory; nothing is kept)");
    char *cwd = getcwd(arena_alloc(&s->arena, 4096), 4096);
    const char *out = s->options->out[0] == '/'
                          ? s->options->out
                          : arena_printf(&s->arena, "%s/%s", cwd, s->options->out);
    s->socket = arena_printf(&s->arena, "%s/redis.sock", out);
    if (strlen(s->socket) > 100) { /* sun_path holds 108 bytes */
        s->socket = arena_printf(&s->arena, "/tmp/moerank-demo-%d.sock", getpid());
    }
    const char *redis[] = {"redis-server", "--port", "0", "--unixsocket",
                           s->socket,      "--save", "",  "--appendonly",
                           "no",           "--dir",  out, NULL};
    TRY(demo_part_start("redis-server", redis, in_out(s, "redis.log"), &s->redis));
    const char *address = in_out(s, "kafka.address");
    const char *broker[] = {s->self,          "dev-broker", "--partitions",
                            PARTITIONS,       "--topics",   "events,events.dead",
                            "--address-file", address,      NULL};
    TRY(demo_part_start("moerank dev-broker", broker, in_out(s, "broker.log"), &s->broker));
    TRY(demo_part_wait_file(&s->broker, address, 10000));
    TRY(demo_part_wait_file(&s->redis, s->socket, 10000));
    struct buf text = {0};
    TRY(io_read_file(address, 4096, &text));
    while (text.n && text.p[text.n - 1] <= ' ') {
        text.n--;
    }
    s->brokers = arena_printf(&s->arena, "kafka.brokers=%.*s", (int)text.n, text.p);
    buf_deinit(&text);
    return STATUS_OK;
}

/* Films, users and the first ratings, by the same producer that everybody would use. */
static enum status produce_history(struct stage *s) {
    struct rk_kafka_conf kafka = {.brokers = s->brokers + strlen("kafka.brokers="),
                                  .topic = "events",
                                  .dead_letter_topic = "events.dead"};
    struct rk_producer *producer;
    TRY(rk_producer_open(&kafka, &producer));
    int last = s->data.ratings[s->options->train_ratings - 1].event + 1;
    struct buf bytes = {0};
    enum status status = STATUS_OK;
    int64_t start_us = clock_mono_us();
    for (int i = 0; i < last && status == STATUS_OK; i++) {
        const struct ev_event *e = &s->data.events[i];
        buf_clear(&bytes);
        ev_encode_proto(e, &bytes);
        status = rk_producer_send(producer, "events", ev_key(e), buf_slice(&bytes));
    }
    for (int i = 0; i < MALFORMED && status == STATUS_OK; i++) {
        status =
            rk_producer_send(producer, "events", SLICE_LIT("bad"), SLICE_LIT("{\"event\": \"rat"));
    }
    if (status == STATUS_OK) {
        status = rk_producer_flush(producer, 60000);
    }
    s->summary.malformed = MALFORMED;
    s->summary.sent = last + MALFORMED;
    s->summary.produce_per_s = s->summary.sent / ((double)(clock_mono_us() - start_us) / 1e6);
    buf_deinit(&bytes);
    rk_producer_close(producer);
    return status;
}

static enum status train(struct stage *s) {
    say("training from the topic, oldest events first");
    const char *result = in_out(s, "train.json");
    const char *argv[] = {s->self,   "train",  "--config", s->config, "--set",  s->brokers,
                          "--model", s->model, "--state",  s->state,  "--json", NULL};
    TRY(demo_part_run("moerank train", argv, result));
    return demo_summary_training(&s->summary, result);
}

static enum status serve(struct stage *s) {
    const char *port_file = in_out(s, "grpc.port");
    s->metrics_port = demo_free_port();
    const char *argv[] = {
        s->self,    "serve",
        "--config", s->config,
        "--set",    s->brokers,
        "--set",    arena_printf(&s->arena, "redis.socket=%s", s->socket),
        "--set",    arena_printf(&s->arena, "serving.path=%s", s->model),
        "--set",    arena_printf(&s->arena, "state.snapshot=%s", s->state),
        "--set",    arena_printf(&s->arena, "grpc.port_file=%s", port_file),
        "--set",    arena_printf(&s->arena, "admin.listen=127.0.0.1:%d", s->metrics_port),
        "--set",    arena_printf(&s->arena, "log.requests=%s", in_out(s, "requests.log")),
        NULL};
    TRY(demo_part_start("moerank serve", argv, in_out(s, "serve.log"), &s->serve));
    TRY(demo_part_wait_file(&s->serve, port_file, 30000));
    struct buf text = {0};
    TRY(io_read_file(port_file, 64, &text));
    s->listen = arena_printf(&s->arena, "127.0.0.1:%.*s", (int)strcspn(text.p, "\r\n"), text.p);
    buf_deinit(&text);
    TRY(rk_client_open(s->listen, &s->run.client));
    return rk_client_wait_serving(s->run.client, 30000);
}

static enum status live(struct stage *s) {
    say("live: each rating is scored over gRPC, then sent to Kafka; users open their lists in between");
    struct demo_run *r = &s->run;
    r->data = &s->data;
    r->first_live = (int)s->options->train_ratings;
    int64_t rest = s->data.n_ratings - r->first_live;
    r->n_live = (int)(rest < s->options->live_ratings ? rest : s->options->live_ratings);
    arena_init(&r->scratch, 1 << 20);
    r->story = demo_story_new(&s->data, r->first_live);
    TRY(demo_live_run(r));
    s->summary.sent += r->n_live;
    return demo_summary_counts(&s->summary, r, s->metrics_port);
}

/* The past once more: every logged request must give the bits it gave when it was served. */
static enum status replay(struct stage *s) {
    say("replay: every request of the server's log is ranked again from the topic and compared bit for bit");
    const char *result = in_out(s, "replay.json");
    const char *argv[] = {
        s->self,    "replay",  "--config", s->config,    "--set",
        s->brokers, "--model", s->model,   "--requests", in_out(s, "requests.log"),
        "--json",   NULL};
    demo_part_stop(&s->serve); /* its log is complete only now */
    TRY(demo_part_run("moerank replay", argv, result));
    return demo_summary_replay(&s->summary, result);
}

static void stop_all(struct stage *s) {
    rk_client_close(s->run.client);
    demo_part_stop(&s->serve);
    demo_part_stop(&s->broker);
    demo_part_stop(&s->redis);
    demo_story_free(s->run.story);
    demo_live_deinit(&s->run.live);
    demo_data_deinit(&s->data);
    arena_deinit(&s->run.scratch);
    arena_deinit(&s->arena);
}

static enum status run_stages(struct stage *s) {
    TRY(prepare(s));
    TRY(load_data(s));
    TRY(start_parts(s));
    TRY(produce_history(s));
    TRY(train(s));
    TRY(serve(s));
    TRY(live(s));
    return replay(s);
}

static enum status run(const struct verb_call *call, void *options) {
    struct stage *s = HEAP_NEW(struct stage);
    s->options = options;
    s->summary.out = s->options->out;
    s->summary.program = s->self;
    arena_init(&s->arena, 0);
    signal(SIGPIPE, SIG_IGN);
    int64_t start_us = clock_mono_us();
    enum status status = run_stages(s);
    if (status == STATUS_OK) {
        s->summary.seconds = (double)(clock_mono_us() - start_us) / 1e6;
        status = demo_summary_write(&s->summary, &s->run, in_out(s, "summary.json"), call->json);
    }
    stop_all(s);
    heap_free(s);
    return status;
}

static const struct verb verb = {
    .name = "demo",
    .about =
        "Runs the main job on this machine: streams MovieLens-100K through Kafka's protocol, trains a "
        "mixture of experts from the stream, serves it over gRPC while the newest ratings stream in, "
        "and prints what came of it. tools/demo fetches the data and calls this.",
    .example = "tools/demo\nmoerank demo --live-ratings 2000",
    .items = items,
    .bytes = sizeof(struct options),
    .run = run,
};

enum status cmd_demo(int argc, char **argv) { return verb_main(&verb, argc, argv); }
