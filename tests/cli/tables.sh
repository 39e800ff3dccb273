#!/bin/bash
# Training on a table: a model and figures, what is wrong with a row, nothing half-written, a sweep.
source tests/cli/common.bash

awk 'BEGIN { srand(1); print "a,b,c,y"
    for (i = 0; i < 1500; i++) { a = rand(); b = rand(); c = rand() < 0.5 ? "p" : "q"
        print a "," b "," c "," (a * (c == "p") + b + rand() / 2 > 1) } }' >"$tmp/rows.csv"
cat >"$tmp/table.yaml" <<'YAML'
table: {number: [a, b], category: [c]}
tasks: [{name: y}]
model: {layers: [{kind: mmoe, experts: 2, expert: {kind: mlp, hidden: [8], out: 4}}], calibrate: platt}
train: {epochs: 3, rate: 0.01, validation: 0.2, batch_rows: 128}
YAML
train=("$moerank" train --config "$tmp/table.yaml" --quiet)

want 0 "${train[@]}" --table "$tmp/rows.csv" --test "$tmp/rows.csv" --model "$tmp/m.st" \
    --predictions "$tmp/p.csv" --json
python3 - "$out" <<'PY' || complain "the figures are not as they should be"
import json, sys
r = json.load(open(sys.argv[1]))
assert r["table"]["rows"] == 1500 and r["test"][0]["task"] == "y"
assert r["test"][0]["auc"] > 0.8, r["test"][0]
PY
[ -s "$tmp/m.st" ] && [ "$(wc -l <"$tmp/p.csv")" = 1501 ] || complain "model or predictions are missing"

# the same seed, the same model
want 0 "${train[@]}" --table "$tmp/rows.csv" --model "$tmp/again.st"
cmp -s <(tail -c 400 "$tmp/m.st") <(tail -c 400 "$tmp/again.st") || complain "another model from the same seed"

# the model file alone reads another table: other order of columns, no label needed, the same figures
want 0 "$moerank" predict --model "$tmp/m.st" --table "$tmp/rows.csv" --predictions "$tmp/again.csv" --json
cmp -s "$tmp/p.csv" "$tmp/again.csv" || complain "other predictions from the model file"
json "$out" 'r["tasks"][0]["auc"] > 0.8 and r["table"]["unknown_categories"] == 0'
awk -F, -v OFS=, '{ print $3, $2, $1 }' "$tmp/rows.csv" >"$tmp/turned.csv"
want 0 "$moerank" predict --model "$tmp/m.st" --table "$tmp/turned.csv" --predictions "$tmp/again.csv" --json
cmp -s "$tmp/p.csv" "$tmp/again.csv" || complain "other predictions without labels"
json "$out" 'r["tasks"][0]["rows"] == 0 and r["tasks"][0]["auc"] is None'
printf 'a,b,c\n1,x,p\n' >"$tmp/wrong.csv"
want 2 "$moerank" predict --model "$tmp/m.st" --table "$tmp/wrong.csv" --predictions "$tmp/none.csv"
grep -q "wrong.csv:2: column 'b': 'x' is not a number" "$err" || complain "the bad cell is not named"
[ ! -e "$tmp/none.csv" ] || complain "predictions of a bad table were written"

# training that fails leaves the model that is there
cp "$tmp/m.st" "$tmp/kept.st"
sed 's/name: y/name: y, loss: mse/; s/, calibrate: platt//' "$tmp/table.yaml" >"$tmp/diverges.yaml"
want 1 "$moerank" train --config "$tmp/diverges.yaml" --quiet --table "$tmp/rows.csv" \
    --model "$tmp/kept.st" --set train.optimizer=sgd --set train.rate=10
grep -q "not finite" "$err" || complain "a diverging loss is not named"
cmp -s "$tmp/m.st" "$tmp/kept.st" || complain "a failed training touched the model"
ls "$tmp" | grep -q "kept.st.tmp" && complain "half a model was left"

# a bad row names its place, and nothing is written
{ cat "$tmp/rows.csv"; echo "x,1,p,1"; } >"$tmp/bad.csv"
want 2 "${train[@]}" --table "$tmp/bad.csv" --model "$tmp/none.st"
grep -q "bad.csv:1502: column 'a': 'x' is not a number" "$err" || complain "the bad cell is not named"
[ ! -e "$tmp/none.st" ] || complain "a model of a bad table was written"
want 0 "${train[@]}" --table "$tmp/bad.csv" --set table.on_bad_row=skip
grep -q "1502" "$out" || complain "the skipped row is not reported"

want 0 "$moerank" sweep --config "$tmp/table.yaml" --table "$tmp/rows.csv" --quiet --seeds 2 --control \
    --vary "train.rate=0.001|0.01"
[ "$(grep -c 'train.rate=' "$out")" = 4 ] || complain "two settings and their controls are four lines"
want 2 "$moerank" sweep --config "$tmp/table.yaml" --table "$tmp/rows.csv" --vary nonsense
