#!/bin/bash
# Has Doxygen nothing to warn of in the headers?
#
#   tests/style/docs.sh BUILD      a configured build folder; exit 77 without doxygen
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

if ! command -v doxygen >/dev/null; then
    echo "doxygen is missing: skipped"
    exit 77
fi
exec doxygen "$1/docs/Doxyfile"
