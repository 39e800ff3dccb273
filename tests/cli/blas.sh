#!/bin/bash
# OpenBLAS's choice of kernels is put right by one more execution: once, never twice, never over the
# user's own. MOERANK_BLAS_CORE fakes what this CPU would be told.
source tests/cli/common.bash
unset OPENBLAS_CORETYPE MOERANK_BLAS_CORE
verb=("$moerank" inspect docs/examples/synthetic.yaml)
cores() { # what OpenBLAS says it took, each time it was loaded
    local got
    got=$(env OPENBLAS_VERBOSE=2 "$@" "${verb[@]}" 2>&1 >/dev/null | sed -n 's/^Core: //p' | tr '\n' ' ')
    echo "${got% }"
}
same() { [ "$2" = "$3" ] || { echo "FAILED: $1: '$3' instead of '$2'" >&2; exit 1; }; }

own=$(cores MOERANK_BLAS_CORE=off)
if [ -z "$own" ] || ! grep -q avx2 /proc/cpuinfo; then
    echo "OpenBLAS says nothing of its kernels here, or there is no other choice"
    exit 0
fi
same "no better core" 1 "$(wc -w <<<"$own")"
same "a better core" "$own Haswell" "$(cores MOERANK_BLAS_CORE=Haswell)"
same "the user's core" Haswell "$(cores OPENBLAS_CORETYPE=Haswell)"
same "the user's core and a better one" Haswell "$(cores OPENBLAS_CORETYPE=Haswell MOERANK_BLAS_CORE=SkylakeX)"
[ "$(cores env)" = "$own" ] || grep -q avx512 /proc/cpuinfo || same "a CPU without AVX-512" "$own" "$(cores env)"

# the second execution has the first one's words and its exit code
want 0 "${verb[@]}" --json
cp "$out" "$tmp/first"
MOERANK_BLAS_CORE=Haswell want 0 "${verb[@]}" --json
cmp -s "$out" "$tmp/first" || complain "another answer from the second execution"
MOERANK_BLAS_CORE=Haswell want 2 "$moerank" inspect --nonsense
MOERANK_BLAS_CORE=Haswell want 2 "$moerank" nonsense
