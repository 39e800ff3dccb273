#!/bin/bash
# Verbs that talk to each other: dev-broker, send, train and ingest from the topic, serve, rank, and
# replay of what was served, which must give the same bits and must notice when they differ.
source tests/cli/common.bash
config=(--config docs/examples/synthetic.yaml)
children=()
trap 'for p in "${children[@]}"; do kill "$p" 2>/dev/null || true; done; wait; rm -rf "$tmp"' EXIT

# until SECONDS COMMAND...: polls until it succeeds
until_true() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$end" ] || { echo "FAILED: not in time: $*" >&2; cat "$tmp"/*.err >&2; exit 1; }
        sleep 0.1
    done
}

# ---- a broker
"$moerank" dev-broker --partitions 4 --topics events,events-dead,synthetic --address-file "$tmp/address" --with-parent >"$tmp/broker.out" 2>"$tmp/broker.err" &
children+=($!)
until_true 20 test -s "$tmp/address"
export MOERANK_KAFKA_BROKERS
MOERANK_KAFKA_BROKERS=$(cat "$tmp/address")
grep -q "^$MOERANK_KAFKA_BROKERS$" "$tmp/broker.out" || complain "dev-broker prints no address"
grep -q 'nothing is kept' "$tmp/broker.err" || complain "dev-broker does not say that nothing is kept"

# ---- straight from generate, as protobuf, some of it out of order
direct=(--events 2000 --users 60 --items 40 --late 0.05 --late-by 5m --quiet)
want 0 "$moerank" generate "${direct[@]}" --kafka "${config[@]}" --set kafka.topic=synthetic --format protobuf --json
json "$out" 'r["events"] == 2000 and r["late"] > 10'
want 0 "$moerank" ingest "${config[@]}" --set kafka.topic=synthetic --set kafka.group=direct --until-end --quiet --json
json "$out" 'r["received"] == 2000 == r["applied"] and r["users"] == 60 and r["items"] == 40'

# ---- a line longer than any event: left out, and what follows it is sent
{ head -c 1100000 /dev/zero | tr '\0' x; echo; echo '{"event":"user","id":"1","timestamp":1000,"user":"u"}'; } >"$tmp/long.jsonl"
want 0 "$moerank" send "${config[@]}" --topic synthetic --file "$tmp/long.jsonl" --quiet --json
json "$out" 'r["sent"] == 1 and r["too_long"] == 1 and r["wrong"] == 0'
want 1 "$moerank" send "${config[@]}" --topic synthetic --file "$tmp/long.jsonl" --quiet --strict

# ---- 6000 good events, 60 malformed, from a file
small=(--events 6000 --users 60 --items 40 --malformed 0.01 --quiet)
want 0 "$moerank" generate "${small[@]}" --to "$tmp/events.jsonl"
head -5060 "$tmp/events.jsonl" >"$tmp/first.jsonl"
tail -1000 "$tmp/events.jsonl" >"$tmp/rest.jsonl"
want 0 "$moerank" send "${config[@]}" --file "$tmp/first.jsonl" --quiet --json
json "$out" 'r["sent"] == 5060 and r["wrong"] == 50'

# A group of its own for each process: dev-broker gives a group that was left free only after its
# session time-out.
# ---- train and ingest from the topic: nothing lost, equal states whatever the order of partitions
want 0 "$moerank" train "${config[@]}" --model "$tmp/model" --state "$tmp/train.snap" --set train.epochs=1 --quiet --json
json "$out" 'r["events"]["applied"] == 5010 and r["events"]["dead_lettered"] == 50'
want 0 "$moerank" ingest "${config[@]}" --set kafka.group=ingest --until-end --state "$tmp/ingest.snap" --dump "$tmp/ingest.dump" --quiet --json
json "$out" 'r["applied"] == 5010 and r["dead_lettered"] == 50'
want 0 "$moerank" dump "${config[@]}" --state "$tmp/train.snap" --to "$tmp/train.dump"
cmp -s "$tmp/train.dump" "$tmp/ingest.dump" || complain "train and ingest leave different states"

# ---- serve from what training left, while the rest comes in
"$moerank" serve "${config[@]}" --set serving.path="$tmp/model" --set state.snapshot="$tmp/train.snap" \
    --set grpc.listen=127.0.0.1:0 --set grpc.port_file="$tmp/port" --set log.requests="$tmp/requests" \
    --set nearline.enabled=false >"$tmp/serve.out" 2>"$tmp/serve.err" &
serve=$!
children+=("$serve")
until_true 30 test -s "$tmp/port"
server=127.0.0.1:$(cat "$tmp/port")
until_true 10 grep -q "^listening on $server$" "$tmp/serve.out"
ask=("$moerank" rank --connect "$server" --items i1,i2,i3,i4,i5,nobody --no-cache --json)
want 0 "${ask[@]}" --user u1 --explain
json "$out" 'len(r["ranked"]) == 6 and r["user_epoch"] > 0 and len(r["features"]) > 0 and len(r["gates"]) > 0'
"$moerank" send "${config[@]}" --file "$tmp/rest.jsonl" --quiet >/dev/null 2>"$tmp/send.err" &
sending=$!
for u in 0 1 2 3 4 5 6 7 8 9; do
    want 0 "${ask[@]}" --user "u$u"
done
wait "$sending"
seen_all() { # the server has applied what the topic holds: its answer is that of the whole stream
    want 0 "${ask[@]}" --user u0
    [ "$(grep -o '"user_epoch":[0-9]*' "$out")" = "$epoch" ]
}
want 0 "$moerank" ingest "${config[@]}" --set kafka.group=after --until-end --state "$tmp/all.snap" --quiet
want 0 "$moerank" rank "${config[@]}" --model "$tmp/model" --state "$tmp/all.snap" --user u0 --items i1 --json
epoch=$(grep -o '"user_epoch":[0-9]*' "$out")
until_true 20 seen_all
kill -TERM "$serve"
code=0
wait "$serve" || code=$?
[ "$code" = 0 ] || { cat "$tmp/serve.err" >&2; echo "FAILED: serve ends with $code" >&2; exit 1; }

# ---- the past once more
replay=("$moerank" replay "${config[@]}" --model "$tmp/model" --requests "$tmp/requests" --quiet --json)
want 0 "${replay[@]}"
json "$out" 'r["compared"] >= 12 and r["equal"] == r["compared"] == r["requests"]'
want 1 "${replay[@]}" --set score.like=3
json "$out" 'r["different"] == r["compared"]'
grep -q 'requests differ; the first: request' "$err" || complain "the first difference is not named"
want 1 "${replay[@]}" --events "$tmp/first.jsonl"
grep -q 'had seen partition' "$err" || complain "events that do not reach far enough are not refused"
