"""Reads what Nsight Compute prints."""

import csv

# What it says of a machine whose counters it cannot read.
REFUSALS = ("LibraryNotLoaded", "ERR_NVGPUCTRPERM", "Failed to initialize",
            "No supported GPUs")


def kernel_name(text):
    """Without what the kernel returns and takes; template arguments stay."""
    text = text.replace("(anonymous namespace)::", "").removeprefix("void ")
    depth = 0
    for at, c in enumerate(text):
        depth += (c == "<") - (c == ">")
        if c == "(" and depth == 0 and at > 0:
            text = text[:at]
            break
    return text[:100]


# Units of ncu, by the start of their names: of "ns", "nsecond", "Mbyte", ...
SCALES = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "K": 1e3, "M": 1e6, "G": 1e9}


def ncu_value(number, unit):
    """In seconds or bytes; ncu writes 1,234.5."""
    value = float(number.replace(",", ""))
    prefixed = len(unit) > 1 and unit not in ("second", "byte", "sec")
    return value * (SCALES.get(unit[0], 1.0) if prefixed else 1.0)


def parse_ncu(output):
    """Calls, seconds and bytes by kernel, from ncu's raw page: one row per call and
    one column per metric, after a row of units."""
    lines = [line for line in output.splitlines() if line.startswith('"')]
    kernels, units = {}, {}
    for row in csv.DictReader(lines):
        if not row["ID"]:
            units = row
            continue
        kernel = kernels.setdefault(kernel_name(row["Kernel Name"]),
                                    {"calls": 0, "seconds": 0.0, "bytes": 0.0})
        kernel["calls"] += 1
        for name, metric in (("seconds", "gpu__time_duration.sum"),
                             ("bytes", "dram__bytes.sum")):
            kernel[name] += ncu_value(row[metric], units[metric])
    if not kernels:
        raise ValueError("ncu named no kernel")
    return [{"kernel": name, **sums} for name, sums in sorted(
        kernels.items(), key=lambda item: -item[1]["seconds"])]
