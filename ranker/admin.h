/* admin.h: HTTP for probes and Prometheus: GET /metrics (text format 0.0.4) and GET /healthz (200
 * or 503). No authentication: loopback, or behind a proxy. */
#pragma once
#include "base/status.h"
#include <stdbool.h>

struct rk_admin;
/* listen: "127.0.0.1:9464", "[::1]:0"; port 0: any. `healthy` is called on the server's thread. */
enum status rk_admin_start(const char *listen, bool (*healthy)(void *context), void *context,
                           struct rk_admin **out);
int rk_admin_port(const struct rk_admin *a);
void rk_admin_stop(struct rk_admin *a); /* NULL is fine */
