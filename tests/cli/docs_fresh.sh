#!/bin/bash
# The generated pages are what the program says now.
source tests/cli/common.bash

want 0 "$moerank" docs --check
# and the check can fail
cp -r docs "$tmp/docs"
echo more >>"$tmp/docs/metrics.md"
want 1 "$moerank" docs --check --dir "$tmp/docs"
grep -q 'metrics.md is stale' "$err" || complain "the stale page is not named"
want 0 "$moerank" docs --dir "$tmp/docs"
want 0 "$moerank" docs --check --dir "$tmp/docs"
