#!/bin/bash
# Training steps and forward passes of ViT-B/32, ViT-B/16 and the demo's small
# model: images/s, part of the measured multiply-add peak, peak memory, and,
# where python3 has PyTorch, the same in PyTorch in turn, with the ratio. Then
# 2 ranks of 1 thread against 1 rank of 2.
#
#   bench/vit_step.sh [--build DIR] [--rounds N] [MODEL...]
#
#   --build   an existing build folder (default: build/bench, made here)
#   --rounds  default 3; medians over them are printed last
#   MODEL     ViT-B-32, ViT-B-16, small; default: all
#
# PyTorch: Debian's python3-torch, or PYTHON=... for another interpreter.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=bench/common.sh
. bench/common.sh

build=
rounds=3
bench_options "build rounds" "$@"
models=("${operands[@]}")
[ "${#models[@]}" -gt 0 ] || models=(ViT-B-32 ViT-B-16 small)
bench_build vit_step

python=${PYTHON:-/usr/bin/python3}
torch=no
"$python" -c 'import torch' 2>/dev/null && torch=yes

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/small.json" <<'JSON'
{"embed_dim": 32,
 "vision_cfg": {"image_size": 28, "patch_size": 7, "width": 64, "layers": 4,
                "head_width": 16}}
JSON

ours() { # MODEL BATCH REPEATS WHAT, appended to FILE
    "$build/bin-bench/vit_step" "$@"
}

for name in "${models[@]}"; do
    model=$name batch=16 repeats=3
    if [ "$name" = small ]; then
        model=$work/small.json batch=128 repeats=200
    fi
    for ((round = 0; round < rounds; round++)); do
        for what in train forward; do
            OMP_NUM_THREADS=2 ours "$model" "$batch" "$repeats" "$what" |
                tee -a "$work/$name.$what.ours"
            if [ "$torch" = yes ]; then
                OMP_NUM_THREADS=2 "$python" bench/vit_step_torch.py \
                    "$model" "$batch" "$repeats" "$what" |
                    tee -a "$work/$name.$what.torch"
            fi
        done
        OMP_NUM_THREADS=1 mpirun --oversubscribe --bind-to none -np 2 \
            "$build/bin-bench/vit_step" "$model" "$batch" "$repeats" train |
            tee -a "$work/$name.ranks.ours"
    done
done

"$python" - "$work" "${models[@]}" <<'PYTHON'
import json, os, statistics, sys

work, models = sys.argv[1], sys.argv[2:]

def read(name):
    path = os.path.join(work, name)
    if not os.path.exists(path):
        return []
    return [json.loads(line) for line in open(path)]

def median(rows, key):
    return statistics.median(row[key] for row in rows)

print("\nmodel      pass     images/s  of peak  GiB   PyTorch  GiB   ratio")
for model in models:
    for what in ("train", "forward"):
        ours, torch = read(f"{model}.{what}.ours"), read(f"{model}.{what}.torch")
        key = what + "_images_per_s"
        rate = median(ours, key)
        line = (f"{model:10} {what:8} {rate:8.4g}  "
                f"{median(ours, what + '_of_peak'):7.2f} "
                f"{median(ours, 'max_rss_gib'):5.2f}")
        if torch:
            theirs = median(torch, key)
            line += (f" {theirs:9.4g} {median(torch, 'max_rss_gib'):5.2f}"
                     f" {rate / theirs:6.2f}")
        print(line)
    ranks = read(f"{model}.ranks.ours")
    one = median(read(f"{model}.train.ours"), "train_images_per_s")
    two = median(ranks, "train_images_per_s")
    print(f"{model:10} train, 2 ranks x 1 thread: {two:.4g} images/s, "
          f"{two / one:.2f} of 1 rank x 2 threads; "
          f"{100 * median(ranks, 'train_waited'):.1f} % of the step waiting")
PYTHON
