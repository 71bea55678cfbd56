#!/usr/bin/env python3
"""Make docs/gpu-results.md from the results of bench/gpu/all.sh, so that no
number is copied by hand.

    report.py                    the page before anything was run
    report.py RESULTS.jsonl      the page of those results

Prints Markdown. Results of a rehearsal (--emulate) are refused; with --rehearsal
they give a page that says on top that its numbers mean nothing.
"""

import statistics
import sys
from pathlib import Path

sys.dont_write_bytecode = True
from results import read_records  # noqa: E402

NOTHING = ("Nothing has been run on a GPU yet: columns for measurements are "
           "empty.\n")
REHEARSAL = ("**A rehearsal without a GPU, kernels run by the CPU at tiny sizes:"
             " no number here is a measurement.**\n")
LIMITS = (("copy", "on the device, read and written", "GB/s"),
          ("copy to device", "from pinned host memory", "GB/s"),
          ("copy to host", "to pinned host memory", "GB/s"),
          ("bf16 product", "8192 x 8192 x 8192, cuBLASLt", "TFLOP/s"),
          ("tf32 product", "8192 x 8192 x 8192, cuBLASLt", "TFLOP/s"),
          ("fp32 product", "4096 x 4096 x 4096, cuBLASLt", "TFLOP/s"))
# Compared with PyTorch, and every op timed: model, batch, precision.
TRAINING = (("ViT-B-16", 128, "bf16"), ("ViT-B-16", 256, "bf16"),
            ("ViT-B-32", 128, "bf16"), ("ViT-L-14", 64, "bf16"),
            ("ViT-B-16", 128, "tf32"))
LENGTHS = (50, 197, 257, 577)
BACKENDS = ("cuDNN", "flash", "memory-efficient")


def table(head, align, rows):
    lines = ["| " + " | ".join(head) + " |",
             "|" + "|".join("--:" if a == "r" else "---" for a in align) + "|"]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def number(value, form="{:.3g}"):
    return "" if value is None else form.format(value)


def ratio(a, b):
    return None if a is None or not b else a / b


class Results:
    """The last line of every step."""

    def __init__(self, records):
        self.machine = next((r["machine"] for r in reversed(records)
                             if "machine" in r), None)
        self.source = records[-1]["source"] if records else ""
        self.emulated = any(r.get("emulated") for r in records)
        self.steps = {}
        for r in records:
            if r.get("step") and r["source"] == self.source:
                self.steps[r["stage"], r["step"]] = r

    def data(self, step):
        record = self.steps.get(("time", step))
        return (record or {}).get("data") or []

    def of_stage(self, stage):
        return [r for (s, _), r in self.steps.items() if s == stage]

    def limit(self, name):
        for row in self.data("limits"):
            if row.get("limit") == name:
                return row.get("gb_per_s") or row.get("tflop_per_s")
        return None


def median_of(rows, key, **wanted):
    values = [row[key] for row in rows if key in row
              and all(row.get(k) == v for k, v in wanted.items())]
    return statistics.median(values) if values else None


# ---- sections ---------------------------------------------------------------

def machine_section(results):
    machine = results.machine or {}
    dates = sorted(r["date"] for r in results.steps.values())
    span = "" if not dates else dates[0] if dates[0] == dates[-1] \
        else f"{dates[0]} to {dates[-1]} UTC"
    rows = [("date", span), ("device", machine.get("device") or ""),
            ("memory", machine.get("memory") or ""),
            ("driver", machine.get("driver") or ""),
            ("CUDA toolkit", machine.get("cuda") or ""),
            ("host", machine and f"{machine['cpu']}, {machine['n_cores']} cores"
                                 f", {machine['system']}" or ""),
            ("source (digest)", results.source),
            ("command", "`bench/gpu/all.sh`")]
    return table(("", ""), "ll", rows)


def stage_section(results):
    rows, notes = [], []
    for stage in ("build", "test", "sanitize", "time"):
        records = results.of_stage(stage)
        count = {status: sum(r["status"] == status for r in records)
                 for status in ("passed", "failed", "not run")}
        rows.append((stage, *(n if records else "" for n in count.values()),
                     number(sum(r["seconds"] for r in records), "{:.0f}")
                     if records else ""))
        reasons = {}
        for r in records:
            if r["status"] != "passed":
                last = (r.get("reason") or "").strip().splitlines()
                reasons.setdefault((r["status"], last[-1] if last else ""),
                                   []).append(r["step"])
        for (status, reason), steps in sorted(reasons.items()):
            shown = ", ".join(f"`{s}`" for s in sorted(steps)[:6])
            more = f" and {len(steps) - 6} more" if len(steps) > 6 else ""
            notes.append(f"- {stage}, {status}: {shown}{more}: {reason}")
    text = table(("stage", "passed", "failed", "not run", "seconds"), "lrrrr",
                 rows)
    return text + ("\n" + "\n".join(notes) + "\n" if notes else "")


def limits_section(results):
    return table(("what", "how", "measured"), "llr", [
        (name, how, number(results.limit(name), "{:.4g} " + unit))
        for name, how, unit in LIMITS])


def training_section(results):
    rows = []
    for model, batch, precision in TRAINING:
        data = results.data(f"training.{model}.{batch}.{precision}")
        ours = median_of(data, "images_per_s", program="magmax")
        theirs = median_of(data, "images_per_s", program="PyTorch")
        rate = results.limit(f"{precision} product")
        gflop = median_of(data, "gflop_per_image", program="magmax")
        used = ours and rate and ours * gflop * 1e-3 / rate
        rows.append((model, batch, precision, number(ours, "{:.0f}"),
                     number(used and 100 * used, "{:.1f} %"),
                     number(theirs, "{:.0f}"),
                     number(ratio(ours, theirs), "{:.2f}")))
    return table(("model", "batch", "precision", "images/s", "MFU",
                  "PyTorch, images/s", "ratio"), "lrlrrrr", rows)


def floor_s(row, copy, rate):
    """What the op cannot be faster than, on this card; and what bounds it."""
    by_bytes = row["bytes"] / (copy * 1e9)
    by_flop = row["flop"] / (rate * 1e12)
    return (by_bytes, "bytes") if by_bytes >= by_flop else (by_flop,
                                                           "operations")


def ops_section(results, model, batch, precision):
    copy = results.limit("copy")
    rate = results.limit(f"{precision} product")
    rows, sums = [], [0.0, 0.0]
    for row in results.data(f"ops.{model}.{batch}.{precision}"):
        floor, bound = floor_s(row, copy, rate) if copy and rate else (None, "")
        seconds = row["seconds"]
        if row["calls"] and floor:
            sums[0] += row["calls"] * seconds
            sums[1] += row["calls"] * floor
        rows.append((row["op"], row["calls"] or "", number(row["bytes"] / 1e6,
                                                           "{:.0f}"),
                     number(row["flop"] / 1e9, "{:.0f}"), bound,
                     number(floor and floor * 1e6, "{:.0f}"),
                     number(seconds * 1e6, "{:.0f}"),
                     number(ratio(floor, seconds), "{:.2f}")))
    if not rows:
        rows = [[""] * 8]
    text = table(("op", "calls a step", "MB", "GFLOP", "bound by", "floor, µs",
                  "measured, µs", "part of the limit"), "lrrrlrrr", rows)
    if sums[0]:
        text += (f"\nA step's ops one by one: {sums[0] * 1e3:.2f} ms; their "
                 f"floor: {sums[1] * 1e3:.2f} ms.\n")
    return text


def attention_section(results):
    rows = []
    theirs = results.data("attention.PyTorch")
    for tokens in LENGTHS:
        ours = results.data(f"attention.{tokens}")
        for op, key in (("attention", "forward_s"),
                        ("attention_grad", "gradient_s")):
            mine = median_of(ours, "seconds", op=op)
            flop = median_of(ours, "flop", op=op)
            rate = ratio(flop and flop * 1e-12, mine)
            rows.append((tokens, op, number(mine and mine * 1e6, "{:.0f}"),
                         number(ratio(rate, results.limit("bf16 product")),
                                "{:.2f}"),
                         *(number((median_of(theirs, key, tokens=tokens,
                                             backend=b) or 0) * 1e6 or None,
                                  "{:.0f}") for b in BACKENDS)))
    return table(("tokens", "op", "magmax, µs", "part of the matmul rate",
                  *(f"PyTorch {b}, µs" for b in BACKENDS)), "rlrrrrr", rows)


def merge_section(results):
    data = results.data("merge")
    rows = []
    for device in ("cuda", "cpu"):
        seconds = median_of(data, "seconds", device=device)
        up, down = results.limit("copy to device"), results.limit("copy to host")
        floor = None
        if seconds and up and down and device == "cuda":
            floor = (median_of(data, "bytes_read") / up
                     + median_of(data, "bytes_written") / down) * 1e-9
        rows.append((f"`--device {device}`", number(seconds, "{:.2f}"),
                     number(floor, "{:.2f}"),
                     number(ratio(floor, seconds), "{:.2f}")))
    return table(("", "seconds", "copies alone, s", "part of the limit"),
                 "lrrr", rows)


def kernels_section(results):
    rows = [(f"`{row['kernel']}`", row["calls"], number(row["seconds"] * 1e6,
                                                         "{:.0f}"),
             number(row["bytes"] / 1e6, "{:.0f}"),
             number(row["bytes"] / row["seconds"] * 1e-9, "{:.0f}"))
            for row in results.data("kernels.ViT-B-16.128.bf16")[:40]
            if row["seconds"] > 0]
    return table(("kernel", "calls", "µs", "MB", "GB/s"), "lrrrr",
                 rows or [[""] * 5])


def page(results):
    if results.emulated:
        state = REHEARSAL
    elif not results.steps:
        state = NOTHING
    else:
        state = ("Measured as the table says. Times are medians; the ops' are of "
                 "many calls in a row on random numbers.\n")
    parts = [
        "# GPU results\n",
        "This page is made by `bench/gpu/report.py` from the file that "
        "`bench/gpu/all.sh` writes\n([how to run it](gpu.md)); do not edit it.\n",
        state, machine_section(results),
        "## What was run\n", stage_section(results),
        "## The card's own limits\n", limits_section(results),
        "## Training\n",
        "MFU: three times a forward pass's operations (ViT-B/16: 105.4 GFLOP an "
        "image) against\nthe product of the same precision above. All tokens "
        "of all blocks count, as is usual;\nours leaves out what no output "
        "depends on, in the last block. PyTorch: `torch.compile`\nfrom bytes to "
        "loss, autocast, fused AdamW, the fastest of its attentions, in\n"
        "alternating rounds. Goals: 50 % MFU, 1.2 times PyTorch.\n",
        training_section(results)]
    for model, batch, precision in TRAINING[:1] + TRAINING[2:]:
        parts += [f"## By op: {model}, batch {batch}, {precision}\n",
                  "The floor is the larger of bytes over the copy's bandwidth "
                  "and operations over the\nproduct's rate, both from above. "
                  "Goal where bytes bound: 0.85.\n",
                  ops_section(results, model, batch, precision)]
    parts += [
        "## Attention\n",
        "bf16, heads of 64; batch 128 (577 tokens: 32). Goal: cuDNN's time.\n",
        attention_section(results),
        "## Merging ten ViT-L/14 image towers\n",
        "Whole processes, files in the page cache; the limit is the time of the "
        "copies to and\nfrom the device alone.\n", merge_section(results),
        "## By kernel: ViT-B-16, batch 128, bf16\n",
        "Two training steps under Nsight Compute, and what it takes to begin; "
        "bytes are those\nof device memory.\n", kernels_section(results)]
    return "\n".join(parts)


def main():
    names = [a for a in sys.argv[1:] if a != "--rehearsal"]
    if len(names) > 1 or any(n.startswith("-") for n in names):
        sys.exit(__doc__)
    if names and not Path(names[0]).is_file():
        sys.exit(f"report: there is no {names[0]}")
    results = Results(read_records(names[0]) if names else [])
    if names and not results.steps:
        sys.exit(f"report: {names[0]} holds no results")
    if results.emulated and "--rehearsal" not in sys.argv:
        sys.exit(f"report: {names[0]} is a rehearsal's (--emulate), not "
                 "measurements; --rehearsal shows it all the same")
    print(page(results), end="")


if __name__ == "__main__":
    main()
