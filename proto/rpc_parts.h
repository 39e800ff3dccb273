/* rpc_parts.h: parts that several messages of the ranking service share; for proto/ only. */
#pragma once
#include "proto/wire.h"

struct Moerank__V1__Token;
struct Moerank__V1__Applied;
struct Moerank__V1__RankRequest;
struct Moerank__V1__RankResponse;

/* NULL: not given */
struct rpc_token rpc_token_of(const struct Moerank__V1__Token *m);
enum status rpc_check_token(const char *name, const struct rpc_token *t);
void rpc_put_token(struct buf *out, int field, const struct rpc_token *t);

/* [n] in the arena */
const struct rpc_applied *rpc_applied_of(struct arena *a, size_t n,
                                         struct Moerank__V1__Applied *const *m);
void rpc_put_applied(struct buf *out, int field, const struct rpc_applied *v, int n);

enum status rpc_rank_request_of(struct arena *a, const struct Moerank__V1__RankRequest *m,
                                struct rpc_rank_request *out);
enum status rpc_rank_response_of(struct arena *a, const struct Moerank__V1__RankResponse *m,
                                 struct rpc_rank_response *out);
