#!/bin/bash
# A zero-shot head of ImageNet's classes and prompts with ViT-B/32's text tower
# (random weights): texts/s, the part of the measured multiply-add peak, tokens
# computed; and, where an interpreter has open_clip, the same head by its
# build_zero_shot_classifier in turn, over fewer texts, with the ratio.
#
#   bench/zeroshot.sh [--build DIR] [--classes N] [--prompts N] [--rounds N]
#                     [--processes N]
#
#   --build    an existing build folder (default: build/bench, made here)
#   --classes  default 1000, which are all
#   --prompts  default 4; 80 are all, some eight minutes a round
#   --rounds   default 3; medians over them are printed last
#   --processes  default 1, with two threads (OMP_NUM_THREADS=...); N: as many
#              with one thread and one core each, side by side as ranks would
#              be, each with its share of the number of classes
#
# MODEL=..., BATCH=... (tokens at a time), VOCABULARY=..., PYTHON=... (with
# open_clip_torch), TORCH_CLASSES=... (how many it gets) replace the defaults.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=bench/common.sh
. bench/common.sh

build=
classes=1000
prompts=4
rounds=3
processes=1
bench_options "build classes prompts rounds processes" "$@"
bench_no_operands
bench_build zeroshot
model=${MODEL:-ViT-B-32}
batch=${BATCH:-2048}
vocabulary=${VOCABULARY:-$(.ci/vocabulary.sh --where)}
torch_classes=${TORCH_CLASSES:-$((classes < 100 ? classes : 100))}
python=${PYTHON:-/usr/bin/python3}
torch=no
"$python" -c 'import open_clip' 2>/dev/null && torch=yes

export OMP_NUM_THREADS="${OMP_NUM_THREADS:-2}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$build/bin-bench/zeroshot" list "$torch_classes" "$prompts" >"$work/lists.json"

# head_of [PREFIX...]: one process's head, PREFIX before the command.
head_of() {
    "$@" "$build/bin-bench/zeroshot" "$model" $((classes / processes)) \
        "$prompts" "$batch" "$vocabulary"
}

for ((round = 0; round < rounds; round++)); do
    if [ "$processes" -eq 1 ]; then
        head_of | tee -a "$work/ours"
    else
        for ((core = 0; core < processes; core++)); do
            head_of env OMP_NUM_THREADS=1 taskset -c "$core" >"$work/$core" &
        done
        wait
        for ((core = 0; core < processes; core++)); do
            tee -a "$work/ours" <"$work/$core"
        done
    fi
    if [ "$torch" = yes ]; then
        "$python" bench/zeroshot_torch.py "$model" "$work/lists.json" |
            tee -a "$work/torch"
    fi
done

python3 - "$work" "$processes" <<'PYTHON'
import json, os, statistics, sys

def read(name):
    path = os.path.join(sys.argv[1], name)
    return [json.loads(line) for line in open(path)] \
        if os.path.exists(path) else []

def median(rows, key):
    return statistics.median(row[key] for row in rows)

ours, torch = read("ours"), read("torch")
rate, tokens = (int(sys.argv[2]) * median(ours, "texts_per_s"),
                ours[0]["tokens"])
print(f"\n{rate:.4g} texts/s, {median(ours, 'of_peak'):.2f} of peak in "
      f"operations that were computed, "
      f"{median(ours, 'of_peak_rate_of_full_context'):.2f} of the texts/s "
      f"that the peak allows with full contexts of 77 tokens; "
      f"{ours[0]['tokens_computed'] / tokens - 1:.1%} of the computed tokens "
      f"are filling, a full context would have "
      f"{ours[0]['tokens_of_full_context'] / tokens:.1f} times as many")
if torch:
    theirs = median(torch, "texts_per_s")
    print(f"open_clip: {theirs:.4g} texts/s; ratio {rate / theirs:.1f}")
PYTHON
