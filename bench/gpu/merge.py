"""Merging on a GPU and on the CPU, whole processes, inputs in the page cache.

    merge.py BIN ROUNDS [--quick]

BIN holds magmax_merge; a temporary folder takes 16 GB of files of ViT-L/14's
image tower (theta_0 and ten tasks). Prints a JSON object a round and device.
--quick: files of a few KB.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

NOT_HERE = 77  # exit code: there is nothing to run it with
try:
    import h5py
    import numpy as np
except ImportError as error:
    print(error)
    sys.exit(NOT_HERE)

N_TASKS = 10


def tower(width, layers, tokens, patch, embed):
    """Names and shapes, in open_clip's order."""
    shapes = {"class_embedding": [width], "positional_embedding": [tokens, width],
              "proj": [width, embed], "conv1.weight": [width, 3, patch, patch],
              "ln_pre.weight": [width], "ln_pre.bias": [width]}
    for layer in range(layers):
        at = f"transformer.resblocks.{layer}."
        shapes |= {
            at + "ln_1.weight": [width], at + "ln_1.bias": [width],
            at + "attn.in_proj_weight": [3 * width, width],
            at + "attn.in_proj_bias": [3 * width],
            at + "attn.out_proj.weight": [width, width],
            at + "attn.out_proj.bias": [width],
            at + "ln_2.weight": [width], at + "ln_2.bias": [width],
            at + "mlp.c_fc.weight": [4 * width, width],
            at + "mlp.c_fc.bias": [4 * width],
            at + "mlp.c_proj.weight": [width, 4 * width],
            at + "mlp.c_proj.bias": [width]}
    shapes |= {"ln_post.weight": [width], "ln_post.bias": [width]}
    return {"visual." + name: shape for name, shape in shapes.items()}


def write_file(path, shapes, seed):
    """A safetensors file of random weights; its data's bytes."""
    rng = np.random.default_rng(seed)
    header, at = {}, 0
    for name, shape in shapes.items():
        size = 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape,
                        "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for shape in shapes.values():
            file.write(rng.standard_normal(int(np.prod(shape)),
                                           np.float32).tobytes())
    return at


def read(path, name):
    """A merged tensor's bytes."""
    with h5py.File(path) as file:
        return file["model"][name][()].tobytes()


def time_merges(folder, bin_folder, rounds, quick):
    shapes = tower(64, 2, 17, 8, 32) if quick else tower(1024, 24, 257, 14, 768)
    inputs = [folder / f"{i}.safetensors" for i in range(N_TASKS + 1)]
    with ProcessPoolExecutor(min(8, os.cpu_count())) as pool:
        n_bytes = list(pool.map(write_file, inputs, [shapes] * len(inputs),
                                range(len(inputs))))[0]
    os.sync()
    for number in range(-1, rounds):  # the first warms up
        for device in ("cuda", "cpu"):
            begin = time.perf_counter()
            ended = subprocess.run(
                [bin_folder / "magmax_merge", "--device", device, "-o",
                 folder / f"{device}.h5", "--pretrained", *inputs], text=True,
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            seconds = time.perf_counter() - begin
            if ended.returncode:
                sys.exit(ended.stderr)
            if number >= 0:
                print(json.dumps({
                    "merge": "tiny" if quick else "ViT-L-14",
                    "tasks": N_TASKS, "device": device, "round": number,
                    "bytes_read": n_bytes * len(inputs),
                    "bytes_written": n_bytes, "seconds": seconds}), flush=True)
    same = all(read(folder / "cuda.h5", name) == read(folder / "cpu.h5", name)
               for name in shapes)
    print(json.dumps({"same bits": same}))
    if not same:
        sys.exit("merge: the merged weights differ")


def main():
    # The files go, whoever ends this.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("merge: ended"))
    # Making 16 GB of inputs takes longer than finding this out.
    if not (Path(sys.argv[1]) / "magmax_merge").exists():
        sys.exit(f"merge: no magmax_merge in {sys.argv[1]}")
    with tempfile.TemporaryDirectory(prefix="magmax-merge-") as folder:
        time_merges(Path(folder), Path(sys.argv[1]), int(sys.argv[2]),
                    "--quick" in sys.argv)


if __name__ == "__main__":
    main()
