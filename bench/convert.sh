#!/bin/bash
# Convert a whole CLIP of ViT-L/14's size (1.7 GB) from safetensors to HDF5 and
# back, and compare with cp of the same bytes. Whole processes; cp is followed
# by sync of its file and folder, as magmax_convert does by itself; inputs lie
# in the page cache, outputs are replaced in turn.
#
#   bench/convert.sh [--bin DIR] [--folder DIR] [--model NAME] [--ranks N]
#                    [--rounds N]
#
#   --bin     where magmax_convert is (default: build/release/bin)
#   --folder  where to put 7 GB of temporary files (default: a new one in /tmp)
#   --model   whose sizes (default: ViT-L-14)
#   --ranks   default 1, without mpirun
#   --rounds  default 5
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=bench/common.sh
. bench/common.sh

bin=build/release/bin
folder=
model=ViT-L-14
ranks=1
rounds=5
bench_options "bin folder model ranks rounds" "$@"
bench_no_operands
bench_folder convert

echo "making a $model in $work" >&2
/usr/bin/python3 bench/convert_input.py "$model" "$work/in.safetensors"
sync

convert() {
    local launch=()
    if [ "$ranks" -gt 1 ]; then
        launch=(mpirun --oversubscribe --bind-to none -np "$ranks")
    fi
    "${launch[@]}" "$bin/magmax_convert" "$@" 2>"$work/log" ||
        { cat "$work/log" >&2; exit 1; }
}

copy() {
    cp "$1" "$2.tmp"
    sync "$2.tmp"
    mv "$2.tmp" "$2"
    sync "$work"
}

to_h5() { convert "$work/in.safetensors" "$work/out.h5"; }
to_safetensors() { convert "$work/out.h5" "$work/out.safetensors"; }
to_huggingface() {
    convert --names huggingface "$work/out.h5" "$work/hf.safetensors"
}
plain_copy() { copy "$work/in.safetensors" "$work/copy.safetensors"; }

# seconds COMMAND: wall time of the whole command.
seconds() {
    local begin=$EPOCHREALTIME
    "$@" >/dev/null
    echo "$begin $EPOCHREALTIME" | awk '{ printf "%.3f\n", $2 - $1 }'
}

# median FILE
median() {
    sort -n "$1" | awk '{ v[NR] = $1 }
        END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}

# The first round is not counted: it makes all outputs, which later rounds
# replace.
runs=(plain_copy to_h5 to_safetensors to_huggingface)
printf '%-6s' round
printf ' %15s' "${runs[@]}"
echo
for ((round = 0; round <= rounds; round++)); do
    line=$(printf '%-6d' "$round")
    for run in "${runs[@]}"; do
        sync
        took=$(seconds "$run")
        if [ "$round" -gt 0 ]; then echo "$took" >>"$work/$run.s"; fi
        line+=$(printf ' %13s s' "$took")
    done
    if [ "$round" -gt 0 ]; then echo "$line"; fi
done
printf '%-6s' median
for run in "${runs[@]}"; do printf ' %13s s' "$(median "$work/$run.s")"; done
echo
copied=$(median "$work/plain_copy.s")
printf '%-6s' "x cp"
for run in "${runs[@]}"; do
    awk -v a="$(median "$work/$run.s")" -v b="$copied" \
        'BEGIN { printf " %15.2f", a / b }'
done
echo

# peak COMMAND...: the largest resident size of a rank.
/usr/bin/python3 - "$bin/magmax_convert" "$work/in.safetensors" \
    "$work/out.h5" <<'EOF'
import os
import subprocess
import sys

process = subprocess.Popen(sys.argv[1:], stderr=subprocess.DEVNULL)
usage = os.wait4(process.pid, 0)[2]
print(f"peak memory of one rank: {usage.ru_maxrss / 1024:.0f} MB")
EOF
