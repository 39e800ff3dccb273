#!/bin/bash
# The synthetic stream: equal options give equal bytes, numbers are what was asked for, lines are
# events, and the truth it prints is better than chance.
source tests/cli/common.bash

small=(--events 3000 --users 100 --items 60 --quiet)
want 0 "$moerank" generate "${small[@]}" --to "$tmp/a.jsonl" --json
cp "$out" "$tmp/a.json"
want 0 "$moerank" generate "${small[@]}"
cmp -s "$out" "$tmp/a.jsonl" || complain "stdout and a file differ"
want 0 "$moerank" generate "${small[@]}" --seed 2 --to "$tmp/b.jsonl"
cmp -s "$tmp/a.jsonl" "$tmp/b.jsonl" && complain "another seed, the same events"

[ "$(wc -l <"$tmp/a.jsonl")" = 3000 ] || complain "not 3000 lines"
json "$tmp/a.json" 'r["events"] == 3000 == sum(r["by_kind"].values()) and r["malformed"] == 0'
json "$tmp/a.json" 'r["by_kind"]["item"] == 60 and r["by_kind"]["user"] == 100 and r["by_kind"]["rating"] == 0'
json "$tmp/a.json" 'all(0.6 < v < 0.95 for v in r["ceiling_auc"].values()) and len(r["ceiling_auc"]) == 4'
json "$tmp/a.json" 'r["ceiling_auc"]["click_place"] > r["ceiling_auc"]["click"]'
head -1 "$tmp/a.jsonl" | grep -q '"event":"item"' || complain "items come first"

# All lines are events, in time order, and answer rankings that were shown.
want 0 "$moerank" validate --events "$tmp/a.jsonl" --json --quiet
json "$out" 'r["bad"] == 0 and r["events"] == 3000 and r["out_of_order_share"] == 0'
json "$out" 'r["on_unseen_items_share"] == 0 and r["item_was_shown_share"] == 1'

# Propensities are of one draw after another: in (0, 1], and the last place has no choice left.
/usr/bin/python3 - "$tmp/a.jsonl" <<'PY'
import json, sys
lists = [e for e in map(json.loads, open(sys.argv[1])) if e["event"] == "ranking"]
assert len(lists) > 500
for e in lists:
    p = [x["propensity"] for x in e["items"]]
    assert len(p) == 10 == len({x["id"] for x in e["items"]})
    assert all(0 < v <= 1 for v in p) and p[-1] == 1, p
PY

# Malformed ones beside the good ones, exactly as many; late ones out of order.
want 0 "$moerank" generate "${small[@]}" --malformed 0.1 --late 0.1 --late-by 30m --to "$tmp/c.jsonl" --json
json "$out" 'r["events"] == 3000 and r["malformed"] == 300 and 100 < r["late"] < 400'
want 1 "$moerank" validate --events "$tmp/c.jsonl" --json --quiet
json "$out" 'r["events"] == 3000 and r["bad"] == 300 and r["out_of_order_share"] > 0.03'
json "$out" 'len(r["bad_lines"]) >= 6 and sum(x["count"] for x in r["bad_lines"]) == 300'

# The other shape.
want 0 "$moerank" generate "${small[@]}" --shape ratings --to "$tmp/r.jsonl" --json
json "$out" 'r["by_kind"]["rating"] == 2840 and set(r["ceiling_auc"]) == {"like", "love"}'
/usr/bin/python3 - "$tmp/r.jsonl" <<'PY'
import json, sys
stars = [e["fields"][0]["value"] for e in map(json.loads, open(sys.argv[1])) if e["event"] == "interaction"]
assert set(stars) == {1, 2, 3, 4, 5} and 0.4 < sum(s >= 4 for s in stars) / len(stars) < 0.7
PY
want 2 "$moerank" generate --format protobuf --to "$tmp/x"
