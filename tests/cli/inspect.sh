#!/bin/bash
# What a model's experts do: figures of a model whose behaviour is known, JSON, a page, and refusals.
source tests/cli/common.bash

# y1 is a on rows of kind p and b on those of kind q; y2 does not care
awk 'BEGIN { srand(2); print "a,b,kind,y1,y2"
    for (i = 0; i < 3000; i++) { a = rand(); b = rand(); c = rand() < 0.5 ? "p" : "q"
        print a "," b "," c "," ((c == "p" ? a : b) + rand() / 4 > 0.6) "," (a + b + rand() / 4 > 1.1) } }' \
    >"$tmp/rows.csv"
cat >"$tmp/table.yaml" <<'YAML'
table: {number: [a, b], category: [kind]}
tasks: [{name: y1}, {name: y2}]
model:
  layers:
    - {kind: cgc, shared: 2, own: 1, expert: {kind: mlp, hidden: [8], out: 4}, gate: {kind: topk, k: 2}}
  tower: {hidden: []}
train: {epochs: 6, rate: 0.02, validation: 0.2, batch_rows: 128}
YAML
train=("$moerank" train --config "$tmp/table.yaml" --quiet --table "$tmp/rows.csv")
want 0 "${train[@]}" --model "$tmp/m.st"
want 0 "${train[@]}" --model "$tmp/early.st" --set train.epochs=1
look=("$moerank" inspect "$tmp/m.st" --data "$tmp/rows.csv" --quiet)

want 0 "${look[@]}" --json --row 7 --html "$tmp/page.html" --against "$tmp/early.st"
cp "$out" "$tmp/got.json"
json "$tmp/got.json" 'r["rows"] == 3000 and all(t["auc"] > 0.9 for t in r["tasks"])'
json "$tmp/got.json" 'len(r["gates"]) == 2 and all(abs(g["active"] - 2) < 1e-9 for g in r["gates"])'
json "$tmp/got.json" 'abs(sum(x["rows"] for x in r["load"] if x["gate"] == "level0.y1") - 2) < 1e-6'
json "$tmp/got.json" 'len(r["without"]) == 4 * 2 and len(r["similarity"]) == 6 and len(r["experts"]) == 4'
json "$tmp/got.json" 'min(x["change"] for x in r["without"] if x["task"] == "y1") < -0.005'
json "$tmp/got.json" 'all(m["saturation"] < 1 and 0 < m["flip_rate"] < 1 for m in r["moves"])'
json "$tmp/got.json" 'all(abs(x["logit"] - x["rest"] - sum(p["adds"] for p in r["prediction"]["parts"] if p["task"] == x["task"])) < 1e-5 for x in r["prediction"]["logits"])'
# the expert of the other task is no part of it, and leaving it out moves nothing
json "$tmp/got.json" 'all(x["change"] == 0 for x in r["without"] if (x["expert"], x["task"]) in (("y2.0", "y1"), ("y1.0", "y2")))'
json "$tmp/got.json" 'len(r["own_experts"]) == 2 and all(0 < x["weight"] < 1 for x in r["own_experts"])'

# whose loss moves which expert: shares of an expert add up, and an own expert is moved by its task alone
json "$tmp/got.json" 'len(r["gradients"]) == 4 * 2 and all(abs(sum(g["share"] for g in r["gradients"] if g["expert"] == e["expert"]) - 1) < 1e-3 for e in r["experts"])'
json "$tmp/got.json" 'all(g["norm"] == 0 for g in r["gradients"] if (g["expert"], g["task"]) in (("y2.0", "y1"), ("y1.0", "y2")))'
json "$tmp/got.json" '{c["expert"] for c in r["conflicts"]} == {"shared.0", "shared.1"} and all(-1 <= c["cosine"] <= 1 for c in r["conflicts"])'
json "$tmp/got.json" 'all(0 < x["gradient"] < 1 for x in r["own_experts"]) and not any(e["starved"] for e in r["experts"])'

# the page: one file, nothing from elsewhere, no script, well formed where it is drawn
/usr/bin/python3 - "$tmp/page.html" <<'PY' || complain "the page is not as it should be"
import html.parser, re, sys
import xml.etree.ElementTree as et
text = open(sys.argv[1], encoding="utf-8").read()
assert "http" not in text and "<script" not in text and "url(" not in text and "@import" not in text
drawings = re.findall(r"<svg.*?</svg>", text, re.S)
assert len(drawings) >= 8, len(drawings)
for d in drawings:
    et.fromstring(d)
assert "nan" not in re.sub(r"[a-z]nan|nan[a-z]", "", " ".join(drawings)).lower()
assert "prefers-color-scheme:dark" in text
for title in ("Gate map", "Balance", "Without an expert", "One prediction", "Specialisation", "Co-activation",
              "Similarity of experts", "Gradients", "Against another checkpoint"):
    assert title in text, title
PY

# a segment by its name; itself as the other checkpoint has not moved
want 0 "${look[@]}" --json --segment kind --against "$tmp/m.st" --rows 500
json "$out" 'r["rows"] <= 500 and {s["segment"] for s in r["segments"]} == {"kind"}'
json "$out" 'all(m["saturation"] == 1 and m["flip_rate"] == 0 for m in r["moves"])'
json "$out" 'all(abs(sum(s["weight"] for s in r["segments"] if (s["gate"], s["value"]) == k) - 1) < 1e-5 for k in {(s["gate"], s["value"]) for s in r["segments"]})'
want 0 "${look[@]}"
grep -q "^follows" "$out" || complain "the text is not what it was"

# a ReLU gate's controller: its trace is told by train and kept in the model; nothing is dead
want 0 "${train[@]}" --model "$tmp/relu.st" --json --set train.batch_rows=32 --set train.epochs=12 \
    --set "model.layers=[{kind: mmoe, experts: 8, expert: {kind: mlp, hidden: [8], out: 4}, gate: {kind: relu, k: 2}}]"
json "$out" 'len(r["relu_trace"]) >= 2 * 32 and r["gate_alarms"] == []'
json "$out" 'all(abs(x["sparsity"] - 0.75) < 0.05 for x in r["relu_trace"] if x["step"] > 600)'
json "$out" 'max(x["lambda"] for x in r["relu_trace"]) > 1e-5 and min(x["lambda"] for x in r["relu_trace"]) < 1e-7'
want 0 "$moerank" inspect "$tmp/relu.st" --data "$tmp/rows.csv" --quiet --json --html "$tmp/relu.html"
json "$out" 'all(0.9 < g["active"] < 3.1 and g["zero_rows"] < 0.3 and g["dead"] < 7 for g in r["gates"])'
json "$out" '{x["state"] for x in r["gate_state"]} >= {"lambda", "sparsity", "zero_rows", "alarm"}'
grep -q "Controllers of ReLU gates" "$tmp/relu.html" || complain "no curve of the controller"

want 2 "${look[@]}" --segment nonsense
grep -q "no such input" "$err" || complain "the unknown segment is not named"
want 2 "${look[@]}" --row 4000
grep -q "3000 rows" "$err" || complain "a row too many is not refused"
want 2 "$moerank" inspect "$tmp/m.st" --html "$tmp/none.html"
[ ! -e "$tmp/none.html" ] || complain "a page of nothing"
want 3 "$moerank" inspect "$tmp/m.st" --data "$tmp/missing.csv" --quiet
want 0 "${train[@]}" --model "$tmp/other.st" --set "table.number=[a]" --set "table.category=[kind]"
want 1 "${look[@]}" --against "$tmp/other.st"
