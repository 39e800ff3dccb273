#!/bin/bash
# All tracked C files are as clang-format would write them (.clang-format; version 14).
set -euo pipefail

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cp .clang-format "$tmp"
printf 'int  f( void ){return 1 ;}\n' >"$tmp/bad.c"
if clang-format --dry-run -Werror "$tmp/bad.c" 2>/dev/null; then
    echo "self-check: badly formatted text was not found" >&2
    exit 1
fi

folders=(base proto features moe ranker tools tests)
if git ls-files -z -- "${folders[@]}" >"$tmp/list" 2>/dev/null && [ -s "$tmp/list" ]; then
    :
else
    find "${folders[@]}" -type f -print0 >"$tmp/list"
fi
files=()
while IFS= read -r -d '' file; do
    [[ $file == *.[ch] && -e $file ]] && files+=("$file")
done <"$tmp/list"
[ "${#files[@]}" -gt 0 ] || { echo "no files to look at" >&2; exit 1; }

if ! clang-format --dry-run -Werror "${files[@]}" 2>"$tmp/out"; then
    grep -E '^[^:]+:[0-9]+:[0-9]+: error' "$tmp/out" | cut -d: -f1 | uniq -c | sed 's/$/: places/'
    echo "run: clang-format -i FILE"
    exit 1
fi
echo "${#files[@]} files, nothing to complain about"
