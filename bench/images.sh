#!/bin/bash
# JPEG files of 500 x 375 to 224 x 224 in normalised fp32, on one core: images/s
# of decoding alone (the JPEG library), of our whole path, and of Pillow and
# torchvision, as open_clip's evaluation transform, in turn; then medians and
# ratios.
#
#   bench/images.sh [--build DIR] [--rounds N] [FILE...]
#
#   --build   an existing build folder (default: build/bench, made here)
#   --rounds  default 7
#   FILE      JPEG files to use instead of 24 made ones of each quality
#
# Needs python3 with Pillow and numpy to make files; without torchvision the last
# column is left out. PYTHON=... names another interpreter.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=bench/common.sh
. bench/common.sh

build=
rounds=7
bench_options "build rounds" "$@"
files=("${operands[@]}")
bench_build images

python=${PYTHON:-/usr/bin/python3}
torch=no
"$python" -c 'import torchvision' 2>/dev/null && torch=yes
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

measure() { # NAME FILE...
    local name=$1
    shift
    for ((round = 0; round < rounds; round++)); do
        "$build/bin-bench/images" 3 "$@" >>"$work/$name.ours"
        if [ "$torch" = yes ]; then
            "$python" bench/images_torch.py time 1 "$@" >>"$work/$name.torch"
        fi
    done
    "$python" - "$name" "$work/$name" "$@" <<'PYTHON'
import json, os, statistics, sys

name, base, files = sys.argv[1], sys.argv[2], sys.argv[3:]
ours = [json.loads(line) for line in open(base + ".ours")]
pick = lambda rows, key: statistics.median(row[key] for row in rows)
kib = statistics.mean(os.path.getsize(file) for file in files) / 1024
line = (f"{name:10} {kib:4.0f} KiB  decoding alone {pick(ours, 'decode'):5.0f}"
        f"  ours {pick(ours, 'ours'):5.0f}"
        f" ({pick([{'r': r['ours'] / r['decode']} for r in ours], 'r'):.2f} of it;"
        f" resize {pick(ours, 'resize_ms'):.2f} ms,"
        f" normalise {pick(ours, 'normalise_ms'):.2f} ms)")
if os.path.exists(base + ".torch"):
    theirs = [json.loads(line) for line in open(base + ".torch")]
    ratios = [{"r": o["ours"] / t["pillow"]} for o, t in zip(ours, theirs)]
    line += (f"  Pillow {pick(theirs, 'pillow'):4.0f}"
             f"  ratio {pick(ratios, 'r'):.2f}")
print(line)
PYTHON
}

if [ "${#files[@]}" -gt 0 ]; then
    measure files "${files[@]}"
    exit
fi
for quality in 60 75 90; do
    mkdir "$work/$quality"
    "$python" bench/images_torch.py make "$work/$quality" 24 "$quality"
    measure "quality-$quality" "$work/$quality"/*.jpg
done
