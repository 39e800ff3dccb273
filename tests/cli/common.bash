# common.bash: what the tests of the command line share; sourced, never run.
#
#   expect NAME CODE COMMAND...   stdout and stderr equal expected/NAME.txt, exit code is CODE
#   want CODE COMMAND...          exit code only; output in $out and $err
#   json FILE EXPRESSION          python expression over the JSON object `r`; must be true
#
# UPDATE=1 writes the expected files anew; look at the difference before you commit it.
set -euo pipefail
here=tests/cli
: "${MOERANK_BUILD:?the build folder; ctest sets it}"
moerank=$MOERANK_BUILD/moerank
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
out=$tmp/stdout err=$tmp/stderr
unset "${!MOERANK_KAFKA@}"

# Not in an `if`, so that set -e does not end us on the code we came for.
run() {
    local code=0
    "$@" >"$out" 2>"$err" </dev/null || code=$?
    echo "$code"
}

complain() {
    echo "FAILED: $*" >&2
    sed 's/^/  stdout: /' "$out" | head -20 >&2
    sed 's/^/  stderr: /' "$err" | head -20 >&2
    exit 1
}

want() {
    local code=$1 got
    shift
    got=$(run "$@")
    [ "$got" = "$code" ] || complain "exit code $got instead of $code: $*"
}

expect() {
    local name=$1 code=$2
    shift 2
    want "$code" "$@"
    { cat "$out"; sed 's/^/stderr: /' "$err"; } | sed "s|$tmp|TMP|g; s|$MOERANK_BUILD|BUILD|g" >"$tmp/got"
    if [ "${UPDATE:-}" ]; then
        cp "$tmp/got" "$here/expected/$name.txt"
    elif ! diff -u "$here/expected/$name.txt" "$tmp/got" >&2; then
        echo "FAILED: $* is not expected/$name.txt (UPDATE=1 writes it anew)" >&2
        exit 1
    fi
}

json() {
    /usr/bin/python3 - "$1" "$2" <<'PY' || exit 1
import json, sys
r = json.load(open(sys.argv[1]))
if not eval(sys.argv[2], {"r": r, "by": lambda rows, key: {x[key]: x for x in rows}}):
    sys.exit(f"FAILED: {sys.argv[2]}\n{json.dumps(r, indent=1)[:3000]}")
PY
}
