#!/bin/bash
# Keep what a long run of a fuzz target found: make corpus/TARGET.tar.xz again, of
# what it holds and of new inputs that reach code which those before did not.
#
#   tests/fuzz/keep.sh TARGET [BUILD]     config, jpeg, ...; default: build/fuzz
#
# The new inputs are those in BUILD/found/TARGET. The archive is reproducible: the
# same inputs make the same bytes. An input that made the program fail does not
# belong there: give it a name and put it into corpus/TARGET.
set -euo pipefail
target=${1:?name a target: config, jpeg, ...}
build=$(realpath "${2:-build/fuzz}")
cd "$(dirname "${BASH_SOURCE[0]}")/corpus"

all=$(mktemp -d)
trap 'rm -rf "$all"' EXIT
cp "$target"/* "$all"
if [ -f "$target.tar.xz" ]; then
    tar -xf "$target.tar.xz" -C "$all"
fi
if [ -d "$build/found/$target" ]; then
    "$build/bin-fuzz/fuzz_$target" -merge=1 "$all" "$build/found/$target"
fi

# libFuzzer names what it finds by its SHA-1.
cd "$all"
mapfile -t found < <(find . -regextype posix-extended -regex '\./[0-9a-f]{40}' \
    -printf '%f\n' | LC_ALL=C sort)
if [ "${#found[@]}" -eq 0 ]; then
    echo "nothing to keep"
    exit
fi
cd "$OLDPWD"
tar --sort=name --format=ustar --mtime=@0 --owner=0 --group=0 --numeric-owner \
    --mode=644 -C "$all" -cf - "${found[@]}" | xz -9e >"$target.tar.xz"
echo "$target.tar.xz: ${#found[@]} inputs"
