"""Runs a benchmark several times, in turn with each variant of the kernels, and
checks that the same variant leaves the same weights, bit for bit.

    alternate.py [--variants] ROUNDS -- COMMAND...

COMMAND prints one JSON line, in it "weights_fnv". Prints one JSON object per run, and
one per variant that says whether its weights agreed. --variants: besides the
backend's own choice each other value of each of MAGMAX_CUDA_VARIANTS, which the
backend itself lists; one that fails is left out of the later rounds, and fails
this program at its end.
"""

import json
import os
import re
import subprocess
import sys

VARIABLE = "MAGMAX_CUDA_VARIANTS"


def run(command, variant):
    env = {**os.environ, VARIABLE: variant}
    return subprocess.run(command, env=env, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False)


def known_variants(command):
    """What the backend says there is, when asked for what there is not; without
    the first value of each, which it takes by itself."""
    output = run(command, "?").stdout
    listed = re.search(rf"{VARIABLE}: .*; there is (.*)", output)
    if not listed:
        sys.exit(f"{output}\nalternate: no list of variants in this")
    variants = []
    for known in listed.group(1).split(", "):
        name, values = known.split("=")
        variants += [f"{name}={value}" for value in values.split("|")[1:]]
    return variants


def measure(command, variant, number):
    """A run's row; None, having said why, where it fails."""
    ended = run(command, variant)
    rows = [line for line in ended.stdout.splitlines() if line.startswith("{")]
    if ended.returncode or not rows:
        lines = ended.stdout.strip().splitlines() or ["no output"]
        print(*lines[-10:], sep="\n")
        print(json.dumps({"variant": variant, "failed": lines[-1]}), flush=True)
        return None
    row = json.loads(rows[-1])
    print(json.dumps({"variant": variant, "round": number,
                      "images_per_s": row["train_images_per_s"],
                      "gflop_per_image": row["train_gflop_per_image"],
                      "weights_fnv": row.get("weights_fnv")}), flush=True)
    return row


def main():
    at = sys.argv.index("--") if "--" in sys.argv else 0
    words, command = sys.argv[1:at], sys.argv[at + 1:]
    with_variants = words[:1] == ["--variants"]
    if not command or len(words) != 1 + with_variants:
        sys.exit(__doc__)
    variants = [""] + (known_variants(command) if with_variants else [])
    weights, failed = {}, False
    for number in range(int(words[-1])):
        for variant in list(variants):
            row = measure(command, variant, number)
            if row is None:
                failed = True
                variants.remove(variant)
            else:
                weights.setdefault(variant, []).append(row.get("weights_fnv"))
    for variant, sums in weights.items():
        same = None not in sums and len(set(sums)) == 1
        failed = failed or not same
        print(json.dumps({"variant": variant, "runs": len(sums),
                          "same bits": same}))
        if not same:
            print(f"alternate: weights of {len(sums)} runs of "
                  f"'{variant or 'default'}' differ: {sums}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
