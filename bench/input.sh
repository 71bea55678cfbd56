#!/bin/bash
# Does a training step wait for its images? A folder of JPEGs, a small model,
# with and without threads that read ahead, alternately.
#
#   bench/input.sh [--bin DIR] [--folder DIR] [--images N] [WORKERS...]
#
#   --bin      where the programs are (default: build/release/bin)
#   --folder   where to put temporary files (default: a new one in /tmp)
#   --images   default 512
#   WORKERS    numbers of threads that read ahead (default: 0 1 2)
#
# Needs /usr/bin/python3 (or $PYTHON) with numpy and Pillow, jq and GNU time.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=bench/common.sh
. bench/common.sh

bin=build/release/bin
folder=
images=512
bench_options "bin folder images" "$@"
workers=("${operands[@]}")
[ "${#workers[@]}" -gt 0 ] || workers=(0 1 2)
bin=$(cd "$bin" && pwd)
bench_folder input

"${PYTHON:-/usr/bin/python3}" - "$work" "$images" <<'PY'
import json, sys
from pathlib import Path
import numpy as np
from PIL import Image

root, n = Path(sys.argv[1]), int(sys.argv[2])
rng = np.random.default_rng(0)
for i in range(n):
    coarse = rng.integers(0, 256, (47, 63, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((500, 375), Image.BICUBIC)
    path = root / "photos" / f"class{i % 8}" / f"{i:05d}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, quality=90)
(root / "model.json").write_text(json.dumps({
    "embed_dim": 64, "vision_cfg": {
        "image_size": 224, "patch_size": 32, "width": 192, "layers": 4,
        "head_width": 64}}))
PY

cd "$work"
"$bin/magmax_head" --orthonormal --model model.json --dataset photos \
    -o head.h5 2>/dev/null
"$bin/magmax_pack" --dataset photos --resize 224 -o photos.h5 2>/dev/null

measure() { # what, data set, workers
    rm -rf run
    /usr/bin/time -f %U -o user "$bin/magmax_train" --from-scratch \
        --model model.json --head head.h5 --dataset "$2" --workers "$3" \
        --epochs 2 --batch-size 64 --save run 2>/dev/null
    jq -rs --arg what "$1" --arg user "$(cat user)" \
        'map(select(.epoch == 1)) |
         ([.[].n_images] | add) as $n |
         ([.[] | .n_images / .images_per_s] | add) as $s |
         [$what, ($n / $s | round), ([.[].input_s] | add * 100 | round / 100),
          ($s * 100 | round / 100), $user] | @tsv' run/log.jsonl
}

printf 'second epoch\timages/s\twaits, s\tof, s\tuser, s (both)\n'
for _ in 1 2 3; do
    for n in "${workers[@]}"; do
        measure "JPEG, $n workers" photos "$n"
    done
    measure "packed 224 x 224" photos.h5 0
done
