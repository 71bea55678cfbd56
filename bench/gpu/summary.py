"""What a run comes to: one sentence, and a page of lines for a terminal."""

import re
import statistics

from machine import sheet_tflops
from process import CUT_OFF, FAILED, LEFT_OVER, NOT_RUN, PASSED
from steps import GROUPS, MAIN, name_of

MOST_LINES = 60
LINE_CHARS = 160
TELLING = re.compile(r"error|fail|invalid|refus|mismatch|differ|not found|wrong|"
                     r"cannot|ended (with|by|after)", re.IGNORECASE)
# cmocka's lines of tests that fail at nothing.
HARMLESS = re.compile(r"\[( RUN| *OK|  PASSED|=)")
# Of groups that are tests; of those that are sanitizers.
TESTS = ("tests", "other tests", "models")
SANITIZERS = ("sanitizers", "other sanitizers")


def last_line(reason):
    lines = (reason or "").strip().splitlines()
    return lines[-1].strip()[:LINE_CHARS] if lines else ""


def telling_line(reason):
    """The first line of a reason that says what went wrong, else the last."""
    for line in (reason or "").splitlines():
        if TELLING.search(line) and not HARMLESS.match(line):
            return line.strip()[:LINE_CHARS]
    return last_line(reason)


def median_of(rows, key, **wanted):
    values = [row[key] for row in rows if row.get(key) is not None
              and all(row.get(k) == v for k, v in wanted.items())]
    return statistics.median(values) if values else None


def training_of(view, model, batch, precision):
    """Ours alone, ours beside PyTorch, PyTorch (images/s), GFLOP an image; None
    for what was not measured."""
    alone = view.data(name_of("training", model, batch, precision))
    beside = view.data(name_of("PyTorch", model, batch, precision))
    return (median_of(alone, "images_per_s", variant=""),
            median_of(beside, "images_per_s", program="magmax"),
            median_of(beside, "images_per_s", program="PyTorch"),
            median_of(alone + beside, "gflop_per_image"))


def count(records):
    return {status: sum(r["status"] == status for r in records) for status in
            (PASSED, FAILED, NOT_RUN, CUT_OFF, LEFT_OVER)}


def counted(view, groups, what):
    """As "62 passed, 1 failed", of tests in these groups; "" for none."""
    n = count([r for group in groups for r in view.of_group(group)
               if not r["step"].startswith(("prepare.", "training."))])
    if not n[PASSED] + n[FAILED]:
        return ""
    return f"{what}: {n[PASSED]} passed, {n[FAILED]} failed"


def headline(view, stopped=None):
    """One sentence: what was reached."""
    device = view.identity["device"]
    parts = []
    alone, beside, theirs, gflop = training_of(view, *MAIN)
    ours = alone or beside
    if ours:
        model, batch, precision = MAIN
        text = (f"{model}, batch {batch}, {precision} trains at {ours:,.0f} "
                "images/s")
        details = []
        if sheet_tflops(device) and gflop:
            details.append(f"{ours * gflop * 0.1 / sheet_tflops(device):.1f} % "
                           "MFU")
        if beside and theirs:
            details.append(f"{beside / theirs:.2f} times PyTorch's "
                           f"{theirs:,.0f}")
        parts.append(text + (f" ({', '.join(details)})" if details else ""))
    parts += filter(None, (counted(view, TESTS, "tests"),
                           counted(view, SANITIZERS, "sanitizers")))
    if stopped:
        parts.insert(0, f"stopped: {stopped}")
    text = "; ".join(parts) or "nothing was measured yet"
    if view.identity["emulated"]:
        return f"REHEARSAL without a GPU, no number is a measurement: {text}."
    return f"{device}: {text}." if device else \
        "Nothing was measured on a GPU yet."


def problems(view, status):
    """Lines: steps of that status, those with the same reason together."""
    alike = {}
    for record in view.steps.values():
        if record["status"] == status:
            line = telling_line(record.get("reason"))
            alike.setdefault(line, []).append(record["step"])
    for line, steps in alike.items():
        more = f" and {len(steps) - 3} more" if len(steps) > 3 else ""
        yield f"  {', '.join(steps[:3])}{more}: {line}"


def summary(view, stopped, seconds):
    lines = [headline(view, stopped)]
    for group in GROUPS:
        records = view.of_group(group.name)
        if records:
            counts = ", ".join(f"{n} {status}" for status, n in
                               count(records).items() if n)
            lines.append(f"{group.name:17} {counts}")
    for status in (FAILED, CUT_OFF, NOT_RUN, LEFT_OVER):
        of_status = list(problems(view, status))
        if of_status:
            lines += [f"{status}:", *of_status]
    if len(lines) > MOST_LINES - 1:
        more = len(lines) - (MOST_LINES - 2)
        lines = [*lines[:MOST_LINES - 2], f"  and {more} lines more"]
    identity = view.identity
    lines.append(f"{seconds:.0f} s; source {identity['source']}, kit "
                 f"{identity['kit']}")
    return "\n".join(lines)
