#!/usr/bin/env python3
"""Make docs/gpu-results.md from the results of bench/gpu/run.py, so that no
number is copied by hand.

    report.py                    the page before anything was run
    report.py RESULTS.jsonl      the page of those results: of the source, kit and
                                 device that most of its steps have

Prints Markdown. Results of a rehearsal (--emulate) are refused; with --rehearsal
they give a page that says on top that its numbers mean nothing.
"""

import sys
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))

import tables  # noqa: E402
from results import View, read_records  # noqa: E402
from steps import LARGE, MAIN, OTHERS  # noqa: E402
from summary import headline  # noqa: E402

OPS = (MAIN, LARGE, *OTHERS[::2])  # other_models in steps.py times the others


def page(view):
    state = ""
    if view.steps:
        state = ("Times are medians; the ops' are of many calls in a row on "
                 "random numbers.\n")
    if view.n_others:
        state += (f"Left out: {view.n_others} results of another source, kit or "
                  "device.\n")
    parts = [
        "# GPU results\n", headline(view) + "\n",
        "This page is made by `bench/gpu/report.py` from the file that "
        "`bench/gpu/run.py` writes\n([how to run it](gpu-run.md)); do not edit "
        "it. Columns without numbers were not measured.\n",
        *([state] if state else []), tables.machine(view),
        "## Training\n",
        "MFU: three times a forward pass's operations (ViT-B/16: 105.4 GFLOP an "
        "image) against\nthe dense bf16 rate of the card's data sheet, and "
        "against the product of the same\nprecision measured below. All tokens "
        "of all blocks count, as is usual; ours leaves out\nwhat no output "
        "depends on, in the last block. PyTorch: `torch.compile` from bytes to\n"
        "loss, autocast, fused AdamW, the fastest of its attentions, in "
        "alternating rounds.\nExpected: [before anything had run]"
        "(gpu-expectations.md), for an H100 SXM.\n",
        tables.training(view) + tables.same_weights(view),
        "## Variants of the kernels\n",
        "ViT-B/16, batch 128, bf16: training steps with each value of "
        "`MAGMAX_CUDA_VARIANTS` that\nis not the default, in turn with the "
        "default.\n", tables.variants(view),
        "## Algorithms of products\n",
        "Of cuBLASLt's first eight offers with 32 and with 128 MiB of workspace, "
        "those that repeat\ntheir bits; products of which the first offer takes "
        "over 3 % more than the best.\n", tables.algorithms(view),
        "## A step by kernels, beside the expectation\n",
        "ViT-B/16, batch 128, bf16; measured: each op alone, times its calls.\n",
        tables.kernels_expected(view),
        "## What was run\n", tables.what_was_run(view),
        "## Sanitizers\n", tables.sanitizers(view),
        "## The card's own limits\n", tables.limits(view)]
    for model, batch, precision in OPS:
        parts += [f"## By op: {model}, batch {batch}, {precision}\n",
                  "The floor is the larger of bytes over the copy's bandwidth "
                  "and operations over the\nproduct's rate, both from above. "
                  "Goal where bytes bound: 0.85.\n",
                  tables.ops(view, model, batch, precision)]
    parts += [
        "## Attention\n",
        "bf16, heads of 64; batch 128 (577 tokens: 32). Goal: cuDNN's time.\n",
        tables.attention(view),
        "## Merging ten ViT-L/14 image towers\n",
        "Whole processes, files in the page cache; the limit is the time of the "
        "copies to and\nfrom the device alone.\n", tables.merging(view),
        "## By kernel: ViT-B-16, batch 128, bf16\n",
        "Two training steps under Nsight Compute, caches as they are, and what "
        "it takes to begin;\nbytes are those of device memory.\n",
        tables.kernels(view)]
    return "\n".join(parts)


def main():
    names = [a for a in sys.argv[1:] if a != "--rehearsal"]
    if len(names) > 1 or any(n.startswith("-") for n in names):
        sys.exit(__doc__)
    if names and not Path(names[0]).is_file():
        sys.exit(f"report: there is no {names[0]}")
    view = View(read_records(names[0]) if names else [])
    if names and not view.steps:
        sys.exit(f"report: {names[0]} holds no results")
    if view.identity["emulated"] and "--rehearsal" not in sys.argv:
        sys.exit(f"report: {names[0]} is a rehearsal's (--emulate), not "
                 "measurements; --rehearsal shows it all the same")
    print(page(view), end="")


if __name__ == "__main__":
    main()
