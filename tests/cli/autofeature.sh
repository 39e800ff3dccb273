#!/bin/bash
# A plan proposed from events trains as it stands, and what it learns is worth something: lists with
# clicks, ratings without lists, and Metarank's events.
source tests/cli/common.bash

learns() { # EVENTS TASK AUC
    want 0 "$moerank" train --config "$tmp/plan.yaml" --events "$1" --model "$tmp/model.safetensors" --set train.epochs=2 --quiet --json
    json "$out" "by(r['tasks'], 'task')['$2']['validation_auc'] > $3"
}

want 0 "$moerank" generate --events 24000 --users 400 --items 150 --quiet --to "$tmp/lists.jsonl"
want 0 "$moerank" autofeature "$tmp/lists.jsonl" --output "$tmp/plan.yaml" --json
json "$out" 'r["tasks"] == 3 and r["features"] >= 15'
grep -q 'name: order, positive: "order", given: "click"' "$tmp/plan.yaml" || complain "orders are not learnt from clicks"
learns "$tmp/lists.jsonl" click 0.6
want 0 "$moerank" validate --config "$tmp/plan.yaml" --events "$tmp/lists.jsonl" --sample 20 --quiet --json
json "$out" 'all(f["missing"] is None or f["missing"] < 0.95 for f in r["features"])'

want 0 "$moerank" generate --shape ratings --events 20000 --quiet --to "$tmp/ratings.jsonl"
want 0 "$moerank" autofeature "$tmp/ratings.jsonl" --output "$tmp/plan.yaml" --json
learns "$tmp/ratings.jsonl" rating 0.6

/usr/bin/python3 - "$tmp/metarank.jsonl" <<'PY'
import sys
sys.path.insert(0, "tests/bench")
import metarank_data as d
d.RANKINGS = 4000
d.write_stream(sys.argv[1])
PY
want 0 "$moerank" autofeature "$tmp/metarank.jsonl" --output "$tmp/plan.yaml" --json
json "$out" 'r["tasks"] == 1 and r["features"] >= 20'
learns "$tmp/metarank.jsonl" click 0.7

# Wrong lines are left out and told; a file of nothing else is refused by its first one's reason.
{ echo '{"event":'; head -c 300 /dev/zero | tr '\0' x; echo; cat "$tmp/ratings.jsonl"; } >"$tmp/mixed.jsonl"
want 0 "$moerank" autofeature "$tmp/mixed.jsonl" --output "$tmp/mixed.yaml" --json
json "$out" 'r["wrong_lines"] == 2'
cmp -s <(tail -n +2 "$tmp/mixed.yaml") <("$moerank" autofeature "$tmp/ratings.jsonl" --output "$tmp/plan.yaml" --quiet >/dev/null && tail -n +2 "$tmp/plan.yaml") || complain "wrong lines change the plan"
head -2 "$tmp/mixed.jsonl" >"$tmp/wrong.jsonl"
want 1 "$moerank" autofeature "$tmp/wrong.jsonl" --output "$tmp/none.yaml"
grep -q 'none of 2 lines is an event; line 1: ' "$err" || complain "no reason"
[ ! -e "$tmp/none.yaml" ] || complain "a plan of nothing"

# Nothing to learn from; no file; no plan.
grep '"event":"item"' "$tmp/metarank.jsonl" >"$tmp/items.jsonl"
want 1 "$moerank" autofeature "$tmp/items.jsonl" --output "$tmp/none.yaml"
[ ! -e "$tmp/none.yaml" ] || complain "a plan of nothing"
want 3 "$moerank" autofeature "$tmp/nowhere.jsonl" --output "$tmp/none.yaml"
want 2 "$moerank" autofeature --output "$tmp/none.yaml"
