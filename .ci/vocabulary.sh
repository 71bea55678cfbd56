#!/bin/bash
# Fetch the vocabulary of CLIP's tokenizer from PyPI's open_clip_torch and put it
# where the programs look for it.
#
#   .ci/vocabulary.sh            fetch it, or leave it where it is
#   .ci/vocabulary.sh --where    only print its path
#   .ci/vocabulary.sh --ready    succeed where it is there, or pip is to fetch it
#
# It lies in ${XDG_DATA_HOME:-~/.local/share}/magmax (1.3 MB). Needs pip, and
# PyPI.
set -euo pipefail

package=open_clip_torch==2.24.0
name=bpe_simple_vocab_16e6.txt.gz
sha256=924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a

say() { printf 'vocabulary: %s\n' "$*" >&2; }

file=${XDG_DATA_HOME:-$HOME/.local/share}/magmax/$name

# is_right FILE: is that the vocabulary?
is_right() {
    [ -f "$1" ] && printf '%s  %s\n' "$sha256" "$1" |
        sha256sum --check --status
}

# The first Python that has pip; a virtual environment often has none.
find_python() {
    local python
    for python in python3 /usr/bin/python3; do
        if "$python" -m pip --version >/dev/null 2>&1; then
            command -v "$python"
            return
        fi
    done
    return 1
}

case ${1:-} in
--where) echo "$file"; exit 0 ;;
--ready) is_right "$file" || find_python >/dev/null; exit ;;
--help | -h) sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 0 ;;
'') ;;
*) say "unknown argument '$1'; see --help"; exit 2 ;;
esac

if is_right "$file"; then
    exit 0
fi
if ! python=$(find_python); then
    say "pip is missing: install python3-pip, or put $name at $file"
    exit 1
fi

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
say "fetching $name"
if ! "$python" -m pip download -q --disable-pip-version-check --no-input \
    --retries 2 --timeout 20 --no-deps --only-binary :all: \
    --dest "$tmp" "$package" >"$tmp/log" 2>&1; then
    tail -n 3 "$tmp/log" >&2
    say "$package could not be had (is PyPI reachable?); where it can be," \
        "fetch it there and copy $name to $file"
    exit 1
fi
"$python" - "$tmp"/*.whl "open_clip/$name" "$tmp/$name" <<'END'
import sys, zipfile
wheel, member, target = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive, open(target, "wb") as out:
    out.write(archive.read(member))
END
if ! is_right "$tmp/$name"; then
    say "$package holds another $name than expected (its SHA-256 differs)"
    exit 1
fi
mkdir -p "${file%/*}"
# Renamed last: who looks meanwhile sees the whole file or none.
cp "$tmp/$name" "$file.tmp.$$"
mv "$file.tmp.$$" "$file"
say "it is $file"
