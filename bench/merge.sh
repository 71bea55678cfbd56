#!/bin/bash
# Merge checkpoints of ViT-B/16's size (345 MB each) and compare with a plain
# single-threaded C stream that reads, selects and writes the same bytes.
# Whole processes, mpirun and fsync included; the inputs lie in the page cache.
#
#   bench/merge.sh [--bin DIR] [--folder DIR] [--tasks N] [--ranks N]
#                  [--rounds N] [--method NAME]
#
#   --bin     where magmax_merge is (default: build/release/bin)
#   --folder  where to put 4 GB of temporary files (default: a new one in /tmp)
#   --tasks, --ranks, --rounds  default 10, 2, 7
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=bench/common.sh
. bench/common.sh

bin=build/release/bin
folder=
tasks=10
ranks=2
rounds=7
method=magmax
bench_options "bin folder tasks ranks rounds method" "$@"
bench_no_operands
bench_folder merge

${CC:-cc} -std=gnu17 -O3 -march=native -ffp-contract=off \
    -o "$work/merge_stream" bench/merge_stream.c -lm

echo "making $((tasks + 1)) files of 345 MB in $work" >&2
inputs=()
for ((i = 0; i <= tasks; i++)); do
    "$work/merge_stream" make "$work/input_$i.safetensors" "$i"
    inputs+=("$work/input_$i.safetensors")
done
sync
cat "${inputs[@]}" >/dev/null # the page cache holds them from here on

run_stream() {
    "$work/merge_stream" run "$work/stream.bin" "${inputs[@]}"
}

run_merge() {
    local coef=()
    if [ "$method" = task-arithmetic ]; then coef=(--scaling-coef 0.1); fi
    mpirun --oversubscribe --bind-to none -np "$ranks" "$bin/magmax_merge" \
        --method "$method" "${coef[@]}" -o "$work/merged.h5" \
        --pretrained "${inputs[@]}" 2>"$work/log" ||
        { cat "$work/log" >&2; exit 1; }
}

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

# The first round is not counted: it makes both outputs, which later rounds
# replace.
printf '%-6s %10s %10s %7s\n' round stream merge ratio
for ((round = 0; round <= rounds; round++)); do
    sync
    stream=$(seconds run_stream)
    sync
    merge=$(seconds run_merge)
    if [ "$round" -eq 0 ]; then continue; fi
    echo "$stream" >>"$work/stream.s"
    echo "$merge" >>"$work/merge.s"
    awk -v n="$round" -v a="$stream" -v b="$merge" 'BEGIN {
        printf "%-6d %8.3f s %8.3f s %7.2f\n", n, a, b, b / a }'
done
awk -v a="$(median "$work/stream.s")" -v b="$(median "$work/merge.s")" \
    -v n="$tasks" -v r="$ranks" -v m="$method" 'BEGIN {
    printf "%-6s %8.3f s %8.3f s %7.2f   (%s of %d tasks, %d ranks)\n",
           "median", a, b, b / a, m, n, r }'
