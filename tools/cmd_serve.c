/* cmd_serve.c: the process that ranks: everything happens in ranker/service.h; here it is only
 * started, and stopped by a signal. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include "base/log.h"
#include "ranker/service.h"
#include "tools/options.h"
#include "tools/verbs.h"

struct options {
    struct option_config config;
};
static const struct conf_item items[] = {OPTION_CONFIG(struct options, config), CONF_END};

/* Where it really listens: a port 0 of the settings has become one. */
static void announce(const struct rk_config *c, const struct rk_service *s, bool json) {
    const char *listen = c->grpc.listen, *colon = strrchr(listen, ':');
    bool is_path = strncmp(listen, "unix:", 5) == 0;
    int port = rk_service_port(s),
        host = is_path || !colon ? (int)strlen(listen) : (int)(colon - listen);
    if (json)
        printf("{\"listen\":\"%.*s\",\"port\":%d}\n", host, listen, port);
    else if (is_path)
        printf("listening on %s\n", listen);
    else
        printf("listening on %.*s:%d\n", host, listen, port);
    fflush(stdout);
}

static enum status serve(const struct verb_call *call, struct rk_config *c, const sigset_t *ends) {
    struct rk_service *s;
    int got = 0;
    log_setup((enum log_level)c->log.level, c->log.json);
    TRY(rk_service_start(c, &s));
    announce(c, s, call->json);
    sigwait(ends, &got);
    log_info("serve", "signal %d: finishing calls in flight", got);
    rk_service_stop(s, (int)(c->grpc.grace_us / 1000));
    return STATUS_OK;
}

static enum status run(const struct verb_call *call, void *options) {
    const struct options *o = options;
    struct rk_config *c;
    sigset_t ends;
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    sigprocmask(SIG_BLOCK, &ends, NULL); /* before any thread is made: they inherit it */
    signal(SIGPIPE, SIG_IGN);
    TRY(option_config_load(&o->config, &c));
    enum status status = serve(call, c, &ends);
    rk_config_free(c);
    return status;
}

static const struct verb verb = {
    .name = "serve",
    .about =
        "Ranks over gRPC while events stream in from Kafka: keeps state, answers Rank, Recommend, "
        "Feedback and GetModel, re-ranks users' lists after their events, caches answers in "
        "Redis, writes snapshots. Prints where it listens once it answers, and runs until "
        "SIGTERM or SIGINT: then it takes no new calls, finishes those in flight (at most "
        "grpc.grace), writes a last snapshot and ends.",
    .example =
        "moerank serve --config moerank.yaml\n"
        "moerank serve --config moerank.yaml --set grpc.listen=127.0.0.1:0 --set log.level=debug",
    .items = items,
    .bytes = sizeof(struct options),
    .run = run,
};

enum status cmd_serve(int argc, char **argv) { return verb_main(&verb, argc, argv); }
