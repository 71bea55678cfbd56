#!/bin/bash
# Is every C, C++ and CUDA source formatted as .clang-format says? Names those that are not.
#
#   tests/style/format.sh          check; exit 77 without clang-format
#   tests/style/format.sh --fix    rewrite them
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

if ! command -v clang-format >/dev/null; then
    echo "clang-format is missing: skipped"
    exit 77
fi

mapfile -d '' -t files < <(find src kernels comm io tests bench \
    -regextype posix-extended -regex '.*\.(c|h|cpp|cu|cuh)' -print0 2>/dev/null | sort -z)
# One call for all: starting it takes longer than what it does.
mapfile -t wrong < <(clang-format --style=file --dry-run "${files[@]}" 2>&1 |
    sed -n 's/^\([^:]*\):[0-9]*:[0-9]*: warning: .*/\1/p' | sort -u)

for file in "${wrong[@]}"; do
    if [ "${1:-}" = --fix ]; then
        clang-format --style=file -i "$file"
        echo "$file: rewritten"
    else
        echo "$file: not formatted"
    fi
done
echo "${#files[@]} files, ${#wrong[@]} not formatted"
if [ "${#wrong[@]}" -gt 0 ] && [ "${1:-}" != --fix ]; then
    echo "to format them: tests/style/format.sh --fix"
    exit 1
fi
