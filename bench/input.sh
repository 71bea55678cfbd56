#!/bin/bash
# Does a training step wait for its images? A folder of JPEGs, a small model,
# with and without threads that read ahead, alternately.
#
#   bench/input.sh BUILD [IMAGES [WORKERS...]]
#
# Needs python3 (or $PYTHON) with numpy and Pillow, jq and GNU time; writes below
# a temporary folder.
set -euo pipefail
bin=$(cd "$1/bin" && pwd)
images=${2:-512}
workers=("${@:3}")
[ "${#workers[@]}" -gt 0 ] || workers=(0 1 2)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

"${PYTHON:-python3}" - "$dir" "$images" <<'PY'
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

cd "$dir"
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
for round in 1 2 3; do
    for n in "${workers[@]}"; do
        measure "JPEG, $n workers" photos "$n"
    done
    measure "packed 224 x 224" photos.h5 0
done
