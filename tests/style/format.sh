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

n_files=0
n_wrong=0
while IFS= read -r -d '' file; do
    n_files=$((n_files + 1))
    if ! clang-format --style=file --dry-run -Werror "$file" 2>/dev/null; then
        n_wrong=$((n_wrong + 1))
        if [ "${1:-}" = --fix ]; then
            clang-format --style=file -i "$file"
            echo "$file: rewritten"
        else
            echo "$file: not formatted"
        fi
    fi
done < <(find src kernels comm io tests bench \
    -regextype posix-extended -regex '.*\.(c|h|cpp|cu|cuh)' -print0 2>/dev/null | sort -z)

echo "$n_files files, $n_wrong not formatted"
if [ "$n_wrong" -gt 0 ] && [ "${1:-}" != --fix ]; then
    echo "to format them: tests/style/format.sh --fix"
    exit 1
fi
