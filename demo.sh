#!/bin/bash
# The main job, end to end, on 70,000 real photographs, in a few minutes on two
# cores: pre-train a small Vision Transformer, fine-tune it over five tasks,
# merge the tasks' checkpoints, evaluate everything, print a table, draw it.
#
#   ./demo.sh [FOLDER]      results go to FOLDER (default demo-out); running it
#                           again continues where it stopped
#
# Installs missing Debian packages first and builds into build/release.
# RANKS=N changes the number of MPI ranks (default 2). MAGMAX_BIN=FOLDER takes the
# programs from there, and builds nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
case ${1-} in --help | -h) sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 0 ;; esac

out=${1:-demo-out}
ranks=${RANKS:-2}
bin=${MAGMAX_BIN:-$PWD/build/release/bin}
domains=(upright rot90 invert noise pixelate)

say() { printf '\n== %s\n' "$*" >&2; }

if [ -z "${MAGMAX_BIN:-}" ]; then
    .ci/install.sh build demo
    say "building"
    cmake --preset release >/dev/null
    cmake --build --preset release >/dev/null
fi

mkdir -p "$out"
cd "$out"

# Ranks share the cores unbound; a container's root may run mpirun.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
run() {
    local program=$1
    shift
    mpirun --oversubscribe --bind-to none -np "$ranks" "$bin/$program" "$@"
}

begin=$SECONDS
cat >vit.json <<'JSON'
{"embed_dim": 32,
 "vision_cfg": {"image_size": 28, "patch_size": 7, "width": 64, "layers": 4,
                "head_width": 16}}
JSON

if [ ! -f fashion5.h5 ]; then
    say "Fashion-MNIST in five domains: ${domains[*]}"
    "$bin/magmax_pack" --dataset FashionMNIST \
        --domains "$(IFS=,; printf '%s' "${domains[*]}")" -o fashion5.h5
fi
if [ ! -f head.h5 ]; then
    "$bin/magmax_head" --orthonormal --scale 20 --model vit.json \
        --dataset fashion5.h5 -o head.h5
fi

# What every step of training shares. No crops: they would undo the domains.
data=(--model vit.json --dataset fashion5.h5 --head head.h5)
training=("${data[@]}" --batch-size 128 --warmup-ratio 0.1 --no-augment)
tasks=(--split-strategy domain --samples-per-class 1000 --epochs 2 --lr 1.5e-4)

say "pre-training theta_0: 200 images per class and domain"
run magmax_train "${training[@]}" --from-scratch --samples-per-class 200 \
    --epochs 12 --lr 2e-3 --save pretrain
theta_0=pretrain/task_000.h5

say "fine-tuning, one task after the other"
run magmax_train "${training[@]}" "${tasks[@]}" --load "$theta_0" \
    --sequential-finetuning --save sequential

say "fine-tuning, every task from theta_0"
run magmax_train "${training[@]}" "${tasks[@]}" --load "$theta_0" \
    --save independent

# lambda is fixed beforehand: each method's default.
say "merging"
for tuned in sequential independent; do
    for method in magmax average random; do
        run magmax_merge --pretrained "$theta_0" --method "$method" \
            -o "$tuned-$method.h5" "$tuned"/task_*.h5
    done
done

say "evaluating on 4,000 test images a domain"
rows=(
    "theta_0|$theta_0"
    "last sequential|sequential/task_004.h5"
    "MagMax|sequential-magmax.h5"
    "average|sequential-average.h5"
    "random mix|sequential-random.h5"
    "MagMax, independent|independent-magmax.h5"
    "average, independent|independent-average.h5"
    "random mix, independent|independent-random.h5"
)
: >scores.jsonl
for row in "${rows[@]}"; do
    run magmax_eval "${data[@]}" --load "${row#*|}" --split-strategy domain \
        --samples-per-class 400 --batch-size 250 --json |
        jq -c --arg model "${row%%|*}" \
            '{model: $model, accuracy: .task_agnostic,
              mean: .mean_task_agnostic}' >>scores.jsonl
done

# table.txt for people, table.dat for the figure, scores.jsonl for programs.
{
    printf '%-24s' 'accuracy, %'
    printf '%10s' "${domains[@]}" mean
    printf '\n'
    jq -r '[.model, ((.accuracy + [.mean])[] * 100)] | @tsv' scores.jsonl |
        awk -F'\t' '{ printf "%-24s", $1
                      for (i = 2; i <= NF; i++) printf "%10.1f", $i
                      printf "\n" }'
} >table.txt
{
    printf 'domain'
    jq -r '.model' scores.jsonl | while read -r model; do
        printf '\t"%s"' "$model"
    done
    printf '\n'
    columns=("${domains[@]}" mean)
    for i in "${!columns[@]}"; do
        printf '"%s"' "${columns[i]}"
        jq -r --argjson i "$i" '(.accuracy + [.mean])[$i] * 100' scores.jsonl |
            while read -r value; do printf '\t%s' "$value"; done
        printf '\n'
    done
} >table.dat
gnuplot <<PLOT
set terminal pngcairo size 1200,560 font "sans,11"
set output "accuracy.png"
set title "Accuracy after learning five domains of Fashion-MNIST"
set ylabel "test accuracy, %"
set yrange [40:*]
set style data histogram
set style histogram cluster gap 2
set style fill solid 0.9 noborder
set grid ytics lc rgb "#cccccc"
set key outside right top vertical noenhanced
plot for [i=2:$((${#rows[@]} + 1))] "table.dat" using i:xtic(1) \
    title columnheader(i)
PLOT

printf '\n'
cat table.txt
say "done in $((SECONDS - begin)) s; table.txt, accuracy.png, scores.jsonl," \
    "checkpoints and logs are in $out"
