/* service.h: the process: state + ingest thread + gRPC + workers + near-line + admin, started and
 * stopped in one place. */
#pragma once
#include "ranker/rank.h"

struct rk_service;
/* SIGTERM and SIGINT should be blocked before, so that its threads inherit that. Health says
 * SERVING once the topic has been read nearly to its end. */
enum status rk_service_start(struct rk_config *c, struct rk_service **out);
int rk_service_port(const struct rk_service *s);
/* Reads serving.path again and publishes it; on failure the old model stays. */
enum status rk_service_reload(struct rk_service *s);
/* Drains: no new calls, those in flight finish (at most grace_ms), last snapshot, commit. */
void rk_service_stop(struct rk_service *s, int grace_ms);
