#!/bin/bash
# A bad file: reasons with line numbers, and the rest counted all the same.
source tests/cli/common.bash

cat >"$tmp/events.jsonl" <<'JSON'
{"event":"item","id":"1","timestamp":1000,"item":"a","fields":[{"name":"price","value":3}]}
{"event":"user","id":"2","timestamp":1001,"user":"u","fields":[{"name":"age","value":30},{"name":"shoe","value":44}]}
not an event
{"event":"ranking","id":"3","timestamp":1002,"user":"u","items":[{"id":"a"},{"id":"b"}]}
{"event":"interaction","id":"4","timestamp":1003,"user":"u","item":"a","type":"click","ranking":"3"}
{"event":"interaction","id":"5","timestamp":1003,"user":"u","type":"click"}
{"event":"interaction","id":"6","timestamp":1000,"user":"u","item":"b","type":"click","ranking":"9"}
{"event":"interaction","id":"7","timestamp":1004,"user":"u","item":"b"}
also not

{"event":"interaction","id":"8","timestamp":1005,"user":"u","item":"z","type":"order","ranking":"3"}
JSON
cat >"$tmp/plan.yaml" <<'YAML'
lateness: 1ms
features:
  - {name: price, kind: number, source: item.price}
  - {name: brand, kind: category, source: item.brand, hash: 16, embed: 2}
  - {name: age, kind: number, source: user.age}
  - {name: clicks, kind: count, scope: item, on: click}
  - {name: device, kind: category, source: context.device, hash: 16, embed: 2}
YAML
expect validate_events 1 "$moerank" validate --events "$tmp/events.jsonl" --quiet
expect validate_both 1 "$moerank" validate --events "$tmp/events.jsonl" --config "$tmp/plan.yaml" --quiet
expect validate_json 1 "$moerank" validate --events "$tmp/events.jsonl" --config "$tmp/plan.yaml" --quiet --json
json "$out" 'r["lines"] == 11 and r["bad"] == 5'
want 1 "$moerank" validate --events "$tmp/events.jsonl" --config "$tmp/plan.yaml" --quiet --json --cost
json "$out" 'len(r["costs"]) == 5 and by(r["costs"], "feature")["clicks"]["bytes"] > 0 and all(c["us_per_row"] >= 0 for c in r["costs"])'
expect validate_config 0 "$moerank" validate --config docs/examples/synthetic.yaml

# Compressed and from stdin: the same.
want 1 "$moerank" validate --events "$tmp/events.jsonl" --quiet --json
cp "$out" "$tmp/plain"
gzip -k "$tmp/events.jsonl"
want 1 "$moerank" validate --events "$tmp/events.jsonl.gz" --quiet --json
cmp -s "$out" "$tmp/plain" || complain "gz differs"
code=0
"$moerank" validate --events - --quiet --json <"$tmp/events.jsonl" >"$out" 2>"$err" || code=$?
{ [ "$code" = 1 ] && cmp -s "$out" "$tmp/plain"; } || complain "stdin differs"
