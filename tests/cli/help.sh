#!/bin/bash
# Help of the program and of each verb: all of it on stdout, with exit code 0.
source tests/cli/common.bash

want 0 "$moerank" --help
verbs=$(sed -n 's/^  \([a-z][a-z-]*\)  .*/\1/p' "$out")
[ "$(wc -w <<<"$verbs")" -ge 12 ] || complain "few verbs: $verbs"
for verb in serve ingest train replay rank inspect validate generate send dump dev-broker docs; do
    grep -qw -- "$verb" <<<"$verbs" || complain "$verb is not among the verbs"
done
for verb in $verbs; do
    want 0 "$moerank" "$verb" --help
    for part in "^Usage: moerank $verb" '^Options:' '^  --json' '^Example:' '^Exit codes:'; do
        grep -q -- "$part" "$out" || complain "$verb --help has no line '$part'"
    done
    [ ! -s "$err" ] || complain "$verb --help writes to stderr"
    [ "$(awk 'length > 100' "$out" | wc -l)" = 0 ] || complain "$verb --help is wider than 100"
    cp "$out" "$tmp/long"
    want 0 "$moerank" "$verb" -h
    cmp -s "$out" "$tmp/long" || complain "$verb -h differs from --help"
done
expect help_dump 0 "$moerank" dump --help
want 0 "$moerank" --version
grep -q '^moerank [0-9]' "$out" || complain "--version"
want 2 "$moerank"
grep -q '^Usage: moerank VERB' "$err" || complain "no verb: help on stderr"
