#!/bin/bash
# One event of a file bears a time that cannot be: it is left out, with its line named, and what is
# learnt and remembered of all others is what it is without it.
source tests/cli/common.bash
config=(--config docs/examples/synthetic.yaml)
wrong='{"event":"interaction","id":"x","timestamp":253402300799000,"user":"u1","item":"i1","type":"click"}'

want 0 "$moerank" generate --events 8000 --users 100 --items 50 --quiet --to "$tmp/good.jsonl"
{ head -3000 "$tmp/good.jsonl"; echo "$wrong"; tail -n +3001 "$tmp/good.jsonl"; } >"$tmp/wrong.jsonl"

of() { # FILE: version of the model, and the state that training leaves
    want 0 "$moerank" train "${config[@]}" --events "$tmp/$1.jsonl" --set train.epochs=1 --model "$tmp/model" --state "$tmp/$1.snap" --quiet --json
    json "$out" "r['events']['applied'] == 8000 and r['events']['late'] == $2"
    version=$(grep -o '"version":"[0-9a-f]*"' "$out")
    want 0 "$moerank" dump "${config[@]}" --state "$tmp/$1.snap" --to "$tmp/$1.dump"
}
of good 0
good=$version
of wrong 1
[ "$version" = "$good" ] || complain "another model"
cmp -s <(grep -v '"offset"' "$tmp/good.dump") <(grep -v '"offset"' "$tmp/wrong.dump") || complain "another state"

want 0 "$moerank" ingest "${config[@]}" --file "$tmp/wrong.jsonl" --quiet --json
json "$out" 'r["applied"] == 8000 and r["dead_lettered"] == 1'
grep -q 'the first: line 3001' "$err" || complain "the line is not named"
want 0 "$moerank" validate --events "$tmp/wrong.jsonl" --quiet --json
json "$out" 'r["too_far_ahead"] == 1 and r["out_of_order_share"] == 0'
want 0 "$moerank" replay "${config[@]}" --evaluate --events "$tmp/wrong.jsonl" --model "$tmp/model" --quiet --json
json "$out" 'r["late"] == 1'
