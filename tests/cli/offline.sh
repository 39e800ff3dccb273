#!/bin/bash
# The whole loop from files: generate, validate, train, inspect, rank, ingest, dump, replay. The same
# seed gives the same model, the same events the same state, and the model beats its baselines.
source tests/cli/common.bash
config=(--config docs/examples/synthetic.yaml)
events=$tmp/events.jsonl model=$tmp/model.safetensors state=$tmp/state.snap

want 0 "$moerank" generate --events 24000 --users 400 --items 150 --malformed 0.001 --quiet --to "$events"
head -20000 "$events" >"$tmp/first.jsonl"
want 1 "$moerank" validate "${config[@]}" --events "$tmp/first.jsonl" --sample 10 --quiet --json
json "$out" 'all(x["missing"] < 0.9 for x in r["features"])'
json "$out" 'by(r["fields"], "field")["item.price"]["plan"] == "read"'

# ---- train
train=("$moerank" train "${config[@]}" --events "$tmp/first.jsonl" --set train.epochs=2 --quiet --json)
want 0 "${train[@]}" --model "$model" --state "$state"
cp "$out" "$tmp/train.json"
json "$out" 'r["events"]["applied"] + r["events"]["dead_lettered"] == 20000 and r["events"]["dead_lettered"] == 19'
json "$out" 'by(r["tasks"], "task")["click"]["validation_auc"] > 0.6'
json "$out" 'by(r["tasks"], "task")["like"]["rows"] < by(r["tasks"], "task")["click"]["rows"]'
want 0 "${train[@]}" --model "$tmp/again.safetensors"
[ "$(grep -o '"version":"[0-9a-f]*"' "$out")" = "$(grep -o '"version":"[0-9a-f]*"' "$tmp/train.json")" ] ||
    complain "the same seed, another model"

# ---- inspect
want 0 "$moerank" inspect "$model" --json
version=$(grep -o '"version":"[0-9a-f]*"' "$tmp/train.json" | cut -d'"' -f4)
json "$out" "r['version'] == '$version' and [t['task'] for t in r['tasks']] == ['click', 'like', 'order']"
json "$out" '[e["expert"] for e in r["experts"]] == [0, 1, 2, 3, 0, 0, 0] and all(e["norm"] > 0 for e in r["experts"])'
json "$out" 'len(set(e["norm"] for e in r["experts"])) == 7'
want 0 "$moerank" inspect "$state" "${config[@]}" --json
json "$out" 'by(r["entities"], "scope")["item"]["entities"] == 150 and r["applied"][0]["offset"] == 19999'
want 0 "$moerank" inspect docs/examples/synthetic.yaml --json
json "$out" 'by(r["features"], "feature")["genre_fit"]["side"] == "cross"'

# ---- ingest makes the state that training left
want 0 "$moerank" ingest "${config[@]}" --file "$tmp/first.jsonl" --state "$tmp/other.snap" --dump "$tmp/other.dump" --quiet
want 0 "$moerank" dump "${config[@]}" --state "$state" --to "$tmp/state.dump"
cmp -s "$tmp/state.dump" "$tmp/other.dump" || complain "train and ingest leave different states"
want 0 "$moerank" dump "${config[@]}" --state "$state"
cmp -s "$tmp/state.dump" "$out" || complain "dump to stdout differs"
# ... and repeating all of it changes nothing
want 0 "$moerank" ingest "${config[@]}" --file "$tmp/first.jsonl" --state "$tmp/other.snap" --dump "$tmp/twice.dump" --quiet --json
json "$out" 'r["applied"] == 0 and r["repeated"] > 19000'
cmp -s "$tmp/state.dump" "$tmp/twice.dump" || complain "repeated events changed the state"

# ---- rank
rank=("$moerank" rank "${config[@]}" --model "$model" --state "$state" --user u1)
want 0 "${rank[@]}" --items i1,i2,i3,i4,i5,nobody --context device=phone --explain --json
cp "$out" "$tmp/rank.json"
json "$out" 'sorted(x["item"] for x in r["ranked"]) == ["i1", "i2", "i3", "i4", "i5", "nobody"]'
json "$out" 'all(a["score"] >= b["score"] for a, b in zip(r["ranked"], r["ranked"][1:]))'
json "$out" 'all(abs(x["score"] - x["click"] - 0.5 * x["like"] - 0.5 * x["order"]) < 1e-5 for x in r["ranked"])'
json "$out" 'any(f["feature"].startswith("genre_fit") for f in r["features"]) and len(r["gates"]) > 0'
printf 'i5\ni4\n\ni3\ni2\ni1\nnobody\n' >"$tmp/items"
want 0 "${rank[@]}" --items-file "$tmp/items" --context device=phone --json
/usr/bin/python3 - "$tmp/rank.json" "$out" <<'PY'
import json, sys
a, b = ({x["item"]: x["score"] for x in json.load(open(f))["ranked"]} for f in sys.argv[1:])
assert a == b, "scores depend on the order of candidates"
PY
want 0 "${rank[@]}" --top 3 --json
json "$out" 'len(r["ranked"]) == 3 and r["candidates"] == 150'

# ---- evaluate on what came after
replay=("$moerank" replay "${config[@]}" --evaluate --model "$model" --quiet --json)
want 0 "${replay[@]}" --events "$events"
json "$out" 'r["seen_in_training"] is False and 5000 < r["rows"] < 25000'
json "$out" 'by(r["auc"], "task")["click"]["model"] > by(r["auc"], "task")["click"]["popularity"] + 0.02'
json "$out" 'by(r["auc"], "task")["click"]["model"] > by(r["auc"], "task")["click"]["item_rate"]'
json "$out" 'by(r["ndcg10"], "task")["click"]["model"] > by(r["ndcg10"], "task")["click"]["random"] + 0.02'
json "$out" '0.7 < by(r["calibration"], "task")["click"]["predicted_to_observed"] < 1.4'
want 0 "${replay[@]}" --events "$tmp/first.jsonl"
json "$out" 'r["seen_in_training"] is True'

# ---- a model and a plan that do not fit
sed 's/{name: age, .*//' docs/examples/synthetic.yaml | sed '/^  - $/d' >"$tmp/other.yaml"
want 1 "$moerank" rank --config "$tmp/other.yaml" --model "$model" --state "$state" --user u1
grep -q 'moerank rank: ' "$err" || complain "a model of another plan is not refused"
