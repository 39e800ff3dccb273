/* rpc_health.c: grpc.health.v1. Which services exist and how they are is the server's to say. */
#include "grpc/health/v1/health.pb-c.h"
#include "proto/wire.h"

enum status rpc_decode_health_request(struct arena *a, struct slice bytes, struct slice *service) {
    void *unpacked;
    TRY(ev_wire_unpack(a, &grpc__health__v1__health_check_request__descriptor, bytes, &unpacked));
    const Grpc__Health__V1__HealthCheckRequest *m = unpacked;
    *service = EV_WIRE_SLICE(m->service);
    return STATUS_OK;
}

void rpc_encode_health_response(bool serving, struct buf *out) {
    ev_put_uint(out, 1,
                serving ? GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING
                        : GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING);
}
