#!/bin/bash
# What people get wrong: each answer names the place and the nearest right word, in one line.
source tests/cli/common.bash

expect unknown_verb 2 "$moerank" trian
expect unknown_verb_far 2 "$moerank" xyzzy
expect unknown_option 2 "$moerank" generate --evnets 10
expect no_value 2 "$moerank" generate --events
expect not_a_number 2 "$moerank" generate --events ten
expect out_of_bounds 2 "$moerank" generate --epsilon 2
expect not_a_choice 2 "$moerank" generate --shape lists
expect short_option 2 "$moerank" generate -e 10
expect stray_word 2 "$moerank" generate ten
expect missing_option 2 "$moerank" train --config x.yaml
expect too_few_events 2 "$moerank" generate --events 10 --quiet

expect config_missing 3 "$moerank" validate --config "$tmp/none.yaml"
cat >"$tmp/section.yaml" <<'YAML'
kafka: {topic: events}
grcp: {listen: "127.0.0.1:0"}
YAML
expect config_section 2 "$moerank" validate --config "$tmp/section.yaml"
cat >"$tmp/key.yaml" <<'YAML'
cache:
  enabled: true
  tll: 30s
YAML
expect config_key 2 "$moerank" validate --config "$tmp/key.yaml"
cat >"$tmp/value.yaml" <<'YAML'
grpc:
  workers: many
YAML
expect config_value 2 "$moerank" validate --config "$tmp/value.yaml"
cat >"$tmp/feature.yaml" <<'YAML'
features:
  - {name: age, kind: numbr, source: user.age}
YAML
expect config_feature 2 "$moerank" validate --config "$tmp/feature.yaml"
cat >"$tmp/task.yaml" <<'YAML'
features:
  - {name: age, kind: number, source: user.age}
examples: {from: rating}
tasks:
  - {name: like, positve: rating}
YAML
expect config_task 2 "$moerank" validate --config "$tmp/task.yaml"
printf 'cache: {enabled: true\n' >"$tmp/broken.yaml"
expect config_broken 2 "$moerank" validate --config "$tmp/broken.yaml"
expect config_set 2 "$moerank" validate --config docs/examples/synthetic.yaml --set cache.tll=1s
expect nothing_to_do 2 "$moerank" validate
expect events_missing 3 "$moerank" validate --events "$tmp/none.jsonl"
expect model_missing 3 "$moerank" inspect "$tmp/none.safetensors"
printf '\x10\x00\x00\x00\x00\x00\x00\x00{"a":1}' >"$tmp/cut.safetensors"
want 1 "$moerank" inspect "$tmp/cut.safetensors"

# Nobody listens: said within the time-out, with its own exit code.
want 4 "$moerank" rank --connect 127.0.0.1:1 --user u1 --items a,b
