#!/bin/bash
# Publishing for a precision: measured, written when the limits hold, refused when not, and served
# as published; of events and of tables.
source tests/cli/common.bash
config=(--config docs/examples/synthetic.yaml)
events=$tmp/events.jsonl model=$tmp/m.st
want 0 "$moerank" generate --events 12000 --users 300 --items 120 --quiet --to "$events"
head -10000 "$events" >"$tmp/first.jsonl"
want 0 "$moerank" train "${config[@]}" --events "$tmp/first.jsonl" --set train.epochs=2 --quiet --model "$model"

quantize=("$moerank" quantize "${config[@]}" --events "$events" --model "$model" --requests 8 --rows 200 --quiet --json)
want 0 "${quantize[@]}" --precision fp32 --out "$tmp/m32.st"
json "$out" 'by(r["forms"], "form")["fp32"]["greatest_difference"] < 1e-5 and r["written"]'
json "$out" 'r["judged_rows"] > 500 and r["calibrated_rows"] > 5000'
want 2 "${quantize[@]}" --precision int4
want 3 "$moerank" quantize "${config[@]}" --events "$events" --model "$tmp/none.st" --quiet
MOERANK_ISA=portable want 1 "${quantize[@]}" --precision int8 --out "$tmp/none.st"
grep -q "no instructions for int8" "$err" || complain "a CPU without int8 is not named"
[ ! -e "$tmp/none.st" ] || complain "a model was written that nobody measured"

if grep -q avx512_vnni /proc/cpuinfo; then
    # an impossible limit: nothing is written, the figure is named
    want 1 "${quantize[@]}" --out "$tmp/none.st" --overlap-min 1 --top 3
    grep -q "not published: int8.* keeps .* of the top 3" "$err" || complain "the missed limit is not named"
    want 1 "${quantize[@]}" --out "$tmp/none.st" --score-max 1e-7
    [ ! -e "$tmp/none.st" ] || complain "a refused model was written"
    json "$out" 'r["written"] == "" and not by(r["forms"], "form")["int8"]["ok"]'
    # loose enough for a model that has hardly been trained
    want 0 "${quantize[@]}" --out "$tmp/m8.st" --overlap-min 0.9 --auc-loss-max 0.01
    json "$out" 'len(r["layers"]) == 9 and all(0 < x["relative_error"] < 0.1 for x in r["layers"])'
    json "$out" '0 < by(r["forms"], "form")["int8"]["greatest_difference"] < 0.2'
    want 0 "$moerank" inspect "$tmp/m8.st" --json

    # served as published unless the settings say otherwise
    want 0 "$moerank" ingest "${config[@]}" --file "$tmp/first.jsonl" --state "$tmp/s.snap" --quiet
    rank=("$moerank" rank "${config[@]}" --state "$tmp/s.snap" --user u1 --json)
    want 0 "${rank[@]}" --model "$model"; cp "$out" "$tmp/fp32"
    want 0 "${rank[@]}" --model "$tmp/m8.st"; cp "$out" "$tmp/int8"
    want 0 "${rank[@]}" --model "$tmp/m8.st" --set serving.precision=fp32
    python3 - "$tmp/fp32" "$tmp/int8" "$out" <<'PY' || complain "scores are not of the precision asked for"
import json, sys
a, b, c = ({x["item"]: x["score"] for x in json.load(open(f))["ranked"]} for f in sys.argv[1:])
assert a == c and a != b and all(abs(a[i] - b[i]) < 0.2 for i in a)
PY
    want 1 "${rank[@]}" --model "$model" --set serving.precision=int8
    grep -q "no int8 units" "$err" || complain "a model without units is not refused"
    MOERANK_ISA=portable want 1 "${rank[@]}" --model "$tmp/m8.st"
fi

# a table's model
awk 'BEGIN { srand(1); print "a,b,c,y"
    for (i = 0; i < 1500; i++) { a = rand(); b = rand(); c = rand() < 0.5 ? "p" : "q"
        print a "," b "," c "," (a * (c == "p") + b + rand() / 2 > 1) } }' >"$tmp/rows.csv"
cat >"$tmp/table.yaml" <<'YAML'
table: {number: [a, b], category: [c]}
tasks: [{name: y}]
model: {layers: [{kind: mmoe, experts: 2, expert: {kind: mlp, hidden: [8], out: 4}}]}
train: {epochs: 2, rate: 0.01, validation: 0.2, batch_rows: 128}
YAML
want 0 "$moerank" train --config "$tmp/table.yaml" --table "$tmp/rows.csv" --model "$tmp/t.st" --quiet
want 0 "$moerank" quantize --config "$tmp/table.yaml" --table "$tmp/rows.csv" --test "$tmp/rows.csv" \
    --model "$tmp/t.st" --precision fp32 --rows 100 --quiet --json
json "$out" 'r["judged_rows"] == 1500 and by(r["forms"], "form")["fp32"]["auc_loss"] < 1e-6'
sed 's/category: \[c\]/ignore: [c]/; s/ignore: \[c\]/columns: [{name: c, kind: ignore}]/' "$tmp/table.yaml" >"$tmp/other.yaml"
want 1 "$moerank" quantize --config "$tmp/other.yaml" --table "$tmp/rows.csv" --model "$tmp/t.st" --quiet
grep -q "was not trained on" "$err" || complain "a table of other columns is not refused"

# before any trees are fitted: nothing but the file is read
sed 's/category: \[c\]}/category: [c], trees: [{of: [y]}]}/' "$tmp/table.yaml" >"$tmp/trees.yaml"
want 1 "$moerank" quantize --config "$tmp/trees.yaml" --table "$tmp/rows.csv" --model "$tmp/t.st"
grep -q "was not trained on" "$err" || complain "a table with trees is not refused"
grep -q "trees" "$err" && complain "trees were fitted for a model that has none"
sed 's/,p,/,x,/' "$tmp/rows.csv" | awk 'NR % 2 { sub(/,x,/, ",p,") } { print }' >"$tmp/three.csv"
want 1 "$moerank" quantize --config "$tmp/table.yaml" --table "$tmp/three.csv" --model "$tmp/t.st" --quiet
grep -q "was not trained on" "$err" || complain "a table of other categories is not refused"
