/* admin.c: libmicrohttpd on one thread of its own. Deliberately nothing that changes anything. */
#include "ranker/admin.h"
#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include "base/heap.h"
#include "base/metric.h"

struct rk_admin {
    struct MHD_Daemon *daemon;
    bool (*healthy)(void *context);
    void *context;
    int port;
};

static enum MHD_Result respond(struct MHD_Connection *c, unsigned code, const char *type,
                               struct slice body) {
    struct MHD_Response *r =
        MHD_create_response_from_buffer(body.n, (void *)(uintptr_t)body.p, MHD_RESPMEM_MUST_COPY);
    MHD_add_response_header(r, "Content-Type", type);
    enum MHD_Result result = MHD_queue_response(c, code, r);
    MHD_destroy_response(r);
    return result;
}

static enum MHD_Result on_request(void *context, struct MHD_Connection *c, const char *url,
                                  const char *method, const char *version, const char *data,
                                  size_t *data_bytes, void **state) {
    struct rk_admin *a = context;
    (void)version, (void)data, (void)data_bytes, (void)state;
    if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0)
        return respond(c, MHD_HTTP_METHOD_NOT_ALLOWED, "text/plain", SLICE_LIT("GET only\n"));
    if (strcmp(url, "/healthz") == 0) {
        bool ok = a->healthy(a->context);
        return respond(c, ok ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE, "text/plain",
                       ok ? SLICE_LIT("ok\n") : SLICE_LIT("not serving\n"));
    }
    if (strcmp(url, "/metrics") != 0)
        return respond(c, MHD_HTTP_NOT_FOUND, "text/plain", SLICE_LIT("/metrics or /healthz\n"));
    struct buf text = {0};
    metric_write_text(&text);
    enum MHD_Result result =
        respond(c, MHD_HTTP_OK, "text/plain; version=0.0.4; charset=utf-8", buf_slice(&text));
    buf_deinit(&text);
    return result;
}

/* "host:port" with a numeric host, "localhost", or "[v6]:port". */
static enum status parse(const char *listen, struct sockaddr_storage *out) {
    char host[64];
    const char *colon = strrchr(listen, ':');
    bool v6 = listen[0] == '[';
    size_t n = colon ? (size_t)(colon - listen) : 0;
    if (!colon || n >= sizeof host || (v6 && (n < 2 || colon[-1] != ']')))
        return fail(STATUS_INVALID_ARGUMENT, "admin.listen: '%s' is not host:port", listen);
    snprintf(host, sizeof host, "%.*s", (int)(v6 ? n - 2 : n), listen + v6);
    char *end;
    long port = strtol(colon + 1, &end, 10);
    struct sockaddr_in *in4 = (struct sockaddr_in *)out;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)out;
    if (strcmp(host, "localhost") == 0)
        strcpy(host, "127.0.0.1");
    *out = (struct sockaddr_storage){.ss_family = v6 ? AF_INET6 : AF_INET};
    bool ok = end != colon + 1 && !*end && port >= 0 && port < 65536 &&
              inet_pton(out->ss_family, host, v6 ? (void *)&in6->sin6_addr : &in4->sin_addr) == 1;
    if (!ok)
        return fail(STATUS_INVALID_ARGUMENT,
                    "admin.listen: '%s' is not host:port with a numeric host", listen);
    if (v6)
        in6->sin6_port = htons((uint16_t)port);
    else
        in4->sin_port = htons((uint16_t)port);
    return STATUS_OK;
}

enum status rk_admin_start(const char *listen, bool (*healthy)(void *context), void *context,
                           struct rk_admin **out) {
    struct sockaddr_storage at;
    TRY(parse(listen, &at));
    struct rk_admin *a = HEAP_NEW(struct rk_admin);
    a->healthy = healthy;
    a->context = context;
    unsigned flags = MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_AUTO;
    if (at.ss_family == AF_INET6)
        flags |= MHD_USE_IPv6;
    a->daemon = MHD_start_daemon(flags, 0, NULL, NULL, on_request, a, MHD_OPTION_SOCK_ADDR,
                                 (struct sockaddr *)&at, MHD_OPTION_CONNECTION_LIMIT, 32u,
                                 MHD_OPTION_CONNECTION_TIMEOUT, 30u, MHD_OPTION_END);
    if (!a->daemon) {
        heap_free(a);
        return fail(STATUS_UNAVAILABLE, "admin.listen: cannot listen on %s: %s", listen,
                    strerror(errno));
    }
    a->port = MHD_get_daemon_info(a->daemon, MHD_DAEMON_INFO_BIND_PORT)->port;
    *out = a;
    return STATUS_OK;
}

int rk_admin_port(const struct rk_admin *a) { return a->port; }

void rk_admin_stop(struct rk_admin *a) {
    if (!a)
        return;
    MHD_stop_daemon(a->daemon);
    heap_free(a);
}
