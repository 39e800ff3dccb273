#!/bin/bash
# What a plan needs, counted on made-up events, is what real ones take: within a quarter.
source tests/cli/common.bash
config=tests/bench/ingest.yaml

want 0 "$moerank" generate --events 71000 --users 10000 --items 1000 --quiet --to "$tmp/events.jsonl" --json
clicks=$(grep -c '"type":"click"' "$tmp/events.jsonl")
shown=$((10 * $(grep -c '"event":"ranking"' "$tmp/events.jsonl")))

# From the events themselves: what the state of `ingest` takes within a tenth, and 0.6 MB of pages
# that are part full.
want 0 "$moerank" ingest --config $config --file "$tmp/events.jsonl" --quiet --json
cp "$out" "$tmp/ingest.json"
want 0 "$moerank" size $config --events "$tmp/events.jsonl" --users 10000 --items 1000 --quiet --json
cp "$out" "$tmp/size.json"
state=$(grep -o '"state_bytes":[0-9]*' "$tmp/ingest.json" | cut -d: -f2)
json "$out" "0.9 * r['memory_mb'] < $state / 1e6 < 1.1 * r['memory_mb'] + 0.6"
json "$out" 'by(r["scopes"], "scope")["user"]["sample"] == 10000 and by(r["scopes"], "scope")["item"]["sample"] == 1000'

# Made up, of as many actions and impressions: likes and orders are fewer than clicks in the stream,
# so the answer is for their mean.
actions=$(($(grep -c '"event":"interaction"' "$tmp/events.jsonl") / 10000 / 3))
want 0 "$moerank" size $config --users 10000 --items 1000 --actions $actions --impressions $((shown / 10000)) --span 7d --json
made=$(grep -o '"memory_mb":[0-9.]*' "$out" | cut -d: -f2)
real=$(grep -o '"memory_mb":[0-9.]*' "$tmp/size.json" | cut -d: -f2)
json "$out" "abs($made / $real - 1) < 0.25"
[ "$clicks" -gt 0 ] || complain "no clicks"

# Twice the users, twice the need; and every kind fills.
want 0 "$moerank" size $config --users 20000 --items 2000 --actions $actions --impressions $((shown / 10000)) --span 7d --json
json "$out" "1.95 < r['memory_mb'] / $made < 2.05"
want 0 "$moerank" size docs/examples/movielens.yaml --json
json "$out" 'r["memory_mb"] > 10'
json "$out" 'by(r["features"], "feature")["rated"]["scope"] == "user" and by(r["features"], "feature")["rated"]["bytes"] > 10'
head -c 2000 /dev/urandom >"$tmp/noise"
want 1 "$moerank" size $config --events "$tmp/noise"
grep -q 'is an event; line 1: ' "$err" || complain "not said why"
{ head -3 "$tmp/noise"; cat "$tmp/events.jsonl"; } >"$tmp/mixed.jsonl"
want 0 "$moerank" size $config --events "$tmp/mixed.jsonl" --quiet
grep -q 'are no events and left out; line 1: ' "$err" || complain "wrong lines are not told"
want 2 "$moerank" size
want 3 "$moerank" size "$tmp/none.yaml"
