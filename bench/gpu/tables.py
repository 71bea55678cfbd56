"""The tables of docs/gpu-results.md: each makes Markdown of a results.View."""

from expectations import KERNELS, STEPS
from machine import sheet_tflops
from process import FAILED, NOT_RUN, PASSED
from steps import (GROUPS, LARGE, LENGTHS, MAIN, OTHERS, SANITIZERS,
                   name_of)
from summary import count, median_of, telling_line, training_of

LIMITS = (("copy", "on the device, read and written", "GB/s"),
          ("copy to device", "from pinned host memory", "GB/s"),
          ("copy to host", "to pinned host memory", "GB/s"),
          ("bf16 product", "8192 x 8192 x 8192, cuBLASLt", "TFLOP/s"),
          ("tf32 product", "8192 x 8192 x 8192, cuBLASLt", "TFLOP/s"),
          ("fp32 product", "4096 x 4096 x 4096, cuBLASLt", "TFLOP/s"))
BACKENDS = ("cuDNN", "flash", "memory-efficient")
TRAINING = (MAIN, LARGE, *OTHERS)
# A first choice of an algorithm that loses less is a good one.
WORTH_SAYING = 1.03


def table(head, align, rows):
    lines = ["| " + " | ".join(head) + " |",
             "|" + "|".join("--:" if a == "r" else "---" for a in align) + "|"]
    lines += ["| " + " | ".join(map(str, row)) + " |"
              for row in rows or [[""] * len(head)]]
    return "\n".join(lines) + "\n"


def number(value, form="{:.3g}"):
    return "" if value is None else form.format(value)


def ratio(a, b):
    return None if a is None or not b else a / b


def limit_of(view, name):
    for row in view.data("limits"):
        if row.get("limit") == name:
            return row.get("gb_per_s") or row.get("tflop_per_s")
    return None


# ---- what was run -----------------------------------------------------------

def machine(view):
    about = view.machine or {}
    dates = sorted(r["date"] for r in view.steps.values())
    span = "" if not dates else dates[0] if dates[0] == dates[-1] \
        else f"{dates[0]} to {dates[-1]} UTC"
    libraries = {row["library"]: row["path"] for row in view.data("libraries")
                 if row.get("path")}
    host = about and (f"{about['cpu']}, {about['n_cores']} cores, "
                      f"{about['system']}")
    return table(("", ""), "ll", [
        ("date", span), ("device", view.identity["device"] or ""),
        ("memory", about.get("memory") or ""),
        ("driver", about.get("driver") or ""),
        ("compiled by", about.get("cuda") or ""),
        ("libraries", ", ".join(f"`{p}`" for p in libraries.values())),
        ("host", host or ""),
        ("source, kit (digests)", " ".join(filter(None, (
            view.identity["source"], view.identity["kit"])))),
        ("command", "`bench/gpu/run.py`")])


def what_was_run(view):
    rows, notes = [], []
    for group in GROUPS:
        records = view.of_group(group.name)
        rows.append((group.name, *(n if records else ""
                                   for n in count(records).values()),
                     number(sum(r["seconds"] for r in records), "{:.0f}")
                     if records else ""))
        alike = {}
        for r in records:
            if r["status"] in (FAILED, NOT_RUN):
                key = r["status"], telling_line(r.get("reason"))
                alike.setdefault(key, []).append(r["step"])
        for (status, reason), steps in sorted(alike.items()):
            shown = ", ".join(f"`{s}`" for s in sorted(steps)[:6])
            more = f" and {len(steps) - 6} more" if len(steps) > 6 else ""
            notes.append(f"- {group.name}, {status}: {shown}{more}: {reason}")
    text = table(("steps", *count([]), "seconds"), "lrrrrrr", rows)
    return text + ("\n" + "\n".join(notes) + "\n" if notes else "")


def limits(view):
    return table(("what", "how", "measured"), "llr", [
        (name, how, number(limit_of(view, name), "{:.4g} " + unit))
        for name, how, unit in LIMITS])


def sanitizers(view):
    """One row per op test, one column per tool."""
    records = view.of_group("sanitizers") + view.of_group("other sanitizers") \
        + view.of_group("planted faults")
    by_name = {}
    for r in records:
        tool, _, name = r["step"].partition(".")
        by_name.setdefault(name, {})[tool] = r["status"]
    first = sorted(by_name.items(), key=lambda item: item[0] != "planted")
    return table(("op test", *SANITIZERS), "l" + "l" * len(SANITIZERS), [
        ("mistakes that were planted" if name == "planted" else f"`{name}`",
         *("found" if name == "planted" and tools.get(t) == PASSED
           else tools.get(t, "") for t in SANITIZERS))
        for name, tools in first])


# ---- training ---------------------------------------------------------------

def training(view):
    rows = []
    sheet = sheet_tflops(view.identity["device"])
    for model, batch, precision in TRAINING:
        alone, beside, theirs, gflop = training_of(view, model, batch, precision)
        ours = alone or beside
        rate = limit_of(view, f"{precision} product")
        work = ours and gflop and ours * gflop * 1e-3
        expected = STEPS.get((model, batch, precision))
        rows.append((
            model, batch, precision,
            number(expected, "{:.1f}"),
            number(ours and batch / ours * 1e3, "{:.1f}"),
            number(expected and batch / expected * 1e3, "{:.0f}"),
            number(ours, "{:.0f}"),
            number(ratio(work, sheet and precision == "bf16" and sheet / 100),
                   "{:.1f} %"),
            number(ratio(work, rate and rate / 100), "{:.1f} %"),
            number(beside, "{:.0f}"), number(theirs, "{:.0f}"),
            number(ratio(beside, theirs), "{:.2f}")))
    return table(("model", "batch", "precision", "expected, ms", "measured, ms",
                  "expected, images/s", "measured, images/s", "MFU",
                  "of the product's rate", "beside PyTorch, images/s",
                  "PyTorch, images/s", "ratio"), "lrlrrrrrrrrr", rows)


def same_weights(view):
    rows = [row for row in view.data(name_of("training", *MAIN))
            if "same bits" in row]
    return "" if not rows else "\n" + "; ".join(
        f"The weights of {row['runs']} runs are "
        f"{'the same, bit for bit' if row['same bits'] else 'NOT the same'}"
        for row in rows) + ".\n"


def variants(view):
    data = view.data("variants")
    default = median_of(data, "images_per_s", variant="")
    rows = []
    for variant in dict.fromkeys(r["variant"] for r in data if "variant" in r):
        mine = [r for r in data if r.get("variant") == variant]
        speed = median_of(mine, "images_per_s")
        same = next((r["same bits"] for r in mine if "same bits" in r), None)
        failure = next((r["failed"] for r in mine if "failed" in r), "")
        rows.append((f"`{variant}`" if variant else "the default",
                     number(speed, "{:.0f}"),
                     number(ratio(speed, default), "{:.3f}"),
                     {True: "yes", False: "NO", None: ""}[same], failure))
    return table(("variant", "images/s", "of the default", "same bits again",
                  "failure"), "lrrll", rows)


def algorithms(view):
    """Products whose first offer is not the best; what the best would save."""
    offers = {}
    for row in view.data("algorithms"):
        if row.get("repeats"):
            key = tuple(row[k] for k in ("model", "product", "pass", "epilogue",
                                         "m", "n", "k"))
            offers.setdefault((*key, row["addend"]), []).append(row)
    rows, saved_us = [], {}
    for (model, product, which, epilogue, m, n, k, _), all_ in offers.items():
        first, best = all_[0], min(all_, key=lambda row: row["us"])
        lost_us = first["us"] - best["us"]
        if first["in_use"]:
            saved_us[model] = saved_us.get(model, 0) + lost_us * first["calls"]
        if first["us"] > WORTH_SAYING * best["us"]:
            rows.append((lost_us * first["calls"], (
                model, f"{product}, {which}", f"{m} x {n} x {k}", epilogue,
                "yes" if first["in_use"] else "no", f"{first['us']:.1f}",
                f"{best['us']:.1f}", f"{first['us'] / best['us']:.2f}",
                f"{best['rank'] + 1}, {best['workspace_mib']} MiB")))
    rows.sort(key=lambda row: -row[0])
    text = table(("model", "product", "m x n x k", "epilogue", "in use",
                  "first, µs", "best, µs", "first of best", "best: rank, room"),
                 "lllllrrrl", [row for _, row in rows[:30]])
    for model, us in saved_us.items():
        text += (f"\n{model}: the best of all products in use would save "
                 f"{us * 1e-3:.2f} ms a step.\n")
    refused = [row for row in view.data("algorithms") if "refused" in row]
    alike = dict.fromkeys(f"{r['product']}, {r['pass']}, {r['epilogue']}: "
                          f"{r['refused']}" for r in refused)
    return text + "".join(f"\n- refused: {line}" for line in alike) + \
        ("\n" if alike else "")


# ---- ops --------------------------------------------------------------------

def floor_s(row, copy, rate):
    """What the op cannot be faster than, on this card; and what bounds it."""
    by_bytes = row["bytes"] / (copy * 1e9)
    by_flop = row["flop"] / (rate * 1e12)
    return (by_bytes, "bytes") if by_bytes >= by_flop else (by_flop,
                                                            "operations")


def kernels_expected(view):
    """A step of B/16 by kinds of kernels, beside the expectation."""
    measured = {row["op"]: row["calls"] * row["seconds"] * 1e3
                for row in view.data(name_of("ops", *MAIN))}
    rows, sums = [], [0.0, 0.0, 0.0]
    for what, floor_ms, expected_ms, names in KERNELS:
        known = all(name in measured for name in names)
        ms = sum(measured[name] for name in names) if known else None
        for i, value in enumerate((floor_ms, expected_ms, ms or 0)):
            sums[i] += value
        rows.append((what, f"{floor_ms:.2f}", f"{expected_ms:.2f}",
                     number(ms, "{:.2f}"), number(ratio(ms, expected_ms),
                                                  "{:.2f}")))
    rows.append(("**sum**", f"{sums[0]:.1f}", f"{sums[1]:.1f}",
                 number(sums[2] or None, "{:.1f}"),
                 number(ratio(sums[2] or None, sums[1]), "{:.2f}")))
    return table(("kernels", "floor, ms", "expected, ms", "measured, ms",
                  "of the expected"), "lrrrr", rows)


def ops(view, model, batch, precision):
    copy = limit_of(view, "copy")
    rate = limit_of(view, f"{precision} product")
    rows, sums = [], [0.0, 0.0]
    for row in view.data(name_of("ops", model, batch, precision)):
        floor, bound = floor_s(row, copy, rate) if copy and rate else (None, "")
        seconds = row["seconds"]
        if row["calls"] and floor:
            sums[0] += row["calls"] * seconds
            sums[1] += row["calls"] * floor
        rows.append((row["op"], row["calls"] or "",
                     number(row["bytes"] / 1e6, "{:.0f}"),
                     number(row["flop"] / 1e9, "{:.0f}"), bound,
                     number(floor and floor * 1e6, "{:.0f}"),
                     number(seconds * 1e6, "{:.0f}"),
                     number(ratio(floor, seconds), "{:.2f}")))
    text = table(("op", "calls a step", "MB", "GFLOP", "bound by", "floor, µs",
                  "measured, µs", "part of the limit"), "lrrrlrrr", rows)
    if sums[0]:
        text += (f"\nA step's ops one by one: {sums[0] * 1e3:.2f} ms; their "
                 f"floor: {sums[1] * 1e3:.2f} ms.\n")
    return text


def attention(view):
    rows = []
    theirs = view.data("attention.PyTorch")
    for tokens in sorted(tokens for _, _, tokens in LENGTHS):
        ours = view.data(f"attention.{tokens}")
        for op, key in (("attention", "forward_s"),
                        ("attention_grad", "gradient_s")):
            mine = median_of(ours, "seconds", op=op)
            flop = median_of(ours, "flop", op=op)
            rate = ratio(flop and flop * 1e-12, mine)
            rows.append((tokens, op, number(mine and mine * 1e6, "{:.0f}"),
                         number(ratio(rate, limit_of(view, "bf16 product")),
                                "{:.2f}"),
                         *(number((median_of(theirs, key, tokens=tokens,
                                             backend=b) or 0) * 1e6 or None,
                                  "{:.0f}") for b in BACKENDS)))
    return table(("tokens", "op", "magmax, µs", "part of the matmul rate",
                  *(f"PyTorch {b}, µs" for b in BACKENDS)), "rlrrrrr", rows)


def merging(view):
    data = view.data("merge")
    rows = []
    for device in ("cuda", "cpu"):
        seconds = median_of(data, "seconds", device=device)
        up, down = limit_of(view, "copy to device"), limit_of(view,
                                                              "copy to host")
        floor = None
        if seconds and up and down and device == "cuda":
            floor = (median_of(data, "bytes_read") / up
                     + median_of(data, "bytes_written") / down) * 1e-9
        rows.append((f"`--device {device}`", number(seconds, "{:.2f}"),
                     number(floor, "{:.2f}"),
                     number(ratio(floor, seconds), "{:.2f}")))
    return table(("", "seconds", "copies alone, s", "part of the limit"),
                 "lrrr", rows)


def kernels(view):
    rows = [(f"`{row['kernel']}`", row["calls"],
             number(row["seconds"] * 1e6, "{:.0f}"),
             number(row["bytes"] / 1e6, "{:.0f}"),
             number(row["bytes"] / row["seconds"] * 1e-9, "{:.0f}"))
            for row in view.data(name_of("kernels", *MAIN))[:40]
            if row["seconds"] > 0]
    return table(("kernel", "calls", "µs", "MB", "GB/s"), "lrrrr", rows)
