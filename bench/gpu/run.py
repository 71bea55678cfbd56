#!/usr/bin/env python3
"""Everything that only a GPU can show, from a ready-made folder (bench/gpu/kit.sh
makes it): tests, timings beside PyTorch's and beside what was expected,
sanitizers. The steps come in order of worth, each with a time limit of its own;
after each of them results.jsonl and the page made from it are whole.

    run.py [OPTION...]

  --out DIR       results.jsonl, gpu-results.md, summary.txt, output.log and
                  product_table.inc (default: gpu-results)
  --limit S       seconds for all (default: 540; with --rest 180)
  --rest FILE     a results.jsonl from before: what passed there is not run again
  --only PATTERN  only steps whose name has this regular expression in it
  --kit DIR       the folder (default: the one that this file lies in)
  --emulate       a rehearsal without a GPU: kernels/cuda run by the CPU, tiny
                  sizes; its results say so and make no page
  --slower N      limits of groups and steps times N, for a slow machine
  --list          print the groups of steps and their limits

Ends with 0 where all steps passed, 1 where one failed, 3 where some were cut off.
"""

import argparse
import concurrent.futures
import os
import re
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))

from machine import describe_machine  # noqa: E402
from process import (CUT_OFF, FAILED, LEFT_OVER, NOT_RUN, PASSED,  # noqa: E402
                     Ending, Step, end_all, run_step)
from report import page  # noqa: E402
from results import Results, View, read_records, write_whole  # noqa: E402
from steps import GROUPS, Kit  # noqa: E402
from summary import last_line, summary, telling_line  # noqa: E402

MOST_OUTPUT = 200_000  # characters of a step in output.log
MOST_LOG = 15_000_000


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--out", type=Path, default=Path("gpu-results"))
    parser.add_argument("--limit", type=float)
    parser.add_argument("--rest", type=Path)
    parser.add_argument("--only", type=re.compile, default=re.compile(""))
    parser.add_argument("--kit", type=Path)
    parser.add_argument("--emulate", action="store_true")
    parser.add_argument("--slower", type=float, default=1)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--help", "-h", action="store_true")
    args = parser.parse_args(arguments)
    if args.help:
        print(__doc__.strip())
        sys.exit()
    if args.list:
        for group in GROUPS:
            print(f"{group.name:18} {group.limit_s:4} s"
                  + (f", {group.jobs} at once" if group.jobs > 1 else ""))
        sys.exit()
    if args.limit is None:
        args.limit = 180 if args.rest else 540
    if args.limit <= 0 or args.slower <= 0:
        parser.error("--limit and --slower must be positive")
    if args.rest and not args.rest.is_file():
        parser.error(f"--rest: there is no {args.rest}")
    args.kit = args.kit or find_kit()
    if not args.kit or not (args.kit / "kit.json").is_file():
        parser.error("no kit.json: give --kit the folder that "
                     "bench/gpu/kit.sh makes")
    return args


def find_kit():
    for folder in Path(__file__).resolve().parents:
        if (folder / "kit.json").is_file():
            return folder
    return None


class Session:
    def __init__(self, args):
        self.args = args
        self.begin = time.monotonic()
        self.kit = Kit(args.kit, args.emulate, args.out)
        machine = describe_machine(args.emulate)
        if machine["device"] is None:
            machine["device"] = "none"
        about = self.kit.about
        identity = {"source": about["source"], "kit": about.get("digest"),
                    "device": machine["device"], "emulated": args.emulate}
        machine |= {"cuda": about.get("cuda"), "limit_s": args.limit}
        self.stopped = None  # why what times is worth nothing
        self.summary = ""
        args.out.mkdir(parents=True, exist_ok=True)
        self.log = open(args.out / "output.log", "w", encoding="utf-8",
                        errors="replace")
        before = read_records(args.rest) if args.rest else []
        self.results = Results(args.out / "results.jsonl", identity, machine,
                               before, self.write_pages)
        self.done = {name for name, record in self.results.of_steps().items()
                     if record["status"] in (PASSED, NOT_RUN)}

    def left_s(self):
        return self.args.limit - (time.monotonic() - self.begin)

    def write_pages(self, results):
        """What is wrong with a page must not cost the run its results."""
        try:
            mine = View(results.records, tuple(results.identity.values()))
            self.summary = summary(mine, self.stopped,
                                   time.monotonic() - self.begin)
            write_whole(self.args.out / "summary.txt", self.summary + "\n")
            if not self.args.emulate:
                write_whole(self.args.out / "gpu-results.md",
                            page(View(results.records)))
        except Exception as error:
            sys.stdout.write(f"no page: {type(error).__name__}: {error}\n")

    # ---- steps --------------------------------------------------------------

    def run(self, group, step, deadline):
        before = self.results.of_steps().get(step.needs)
        if step.needs and (before is None or before["status"] != PASSED):
            status = before["status"] if before else "not done"
            reason = before.get("reason") if status == NOT_RUN else None
            ending = Ending(NOT_RUN, reason=reason or f"{step.needs}: {status}")
        else:
            patient = replace(step, timeout=step.timeout * self.args.slower)
            ending = run_step(patient, min(deadline - time.monotonic(),
                                           self.left_s()))
        self.keep_output(step, ending)
        self.results.add(group.name, step, ending)
        reason = f": {last_line(ending.reason)}" if ending.reason else ""
        # At once: others write too.
        sys.stdout.write(f"{ending.status:9} {ending.seconds:6.1f} s  "
                         f"{step.name}{reason}\n")
        sys.stdout.flush()
        return ending

    def keep_output(self, step, ending):
        text = ending.output
        if len(text) > MOST_OUTPUT:
            half = MOST_OUTPUT // 2
            text = f"{text[:half]}\n... (cut) ...\n{text[-half:]}"
        if self.log.tell() + len(text) < MOST_LOG:
            self.log.write(f"==== {step.name} ({ending.status}, "
                           f"{ending.seconds:.1f} s): {' '.join(step.command)}\n"
                           f"{text}\n")
            self.log.flush()

    def steps_of(self, group):
        try:
            return group.steps(self.kit)
        except Exception as error:  # of a kit that is not whole
            return [Step(group.name, [],
                         broken=f"error: {type(error).__name__}: {error}")]

    def run_group(self, group):
        steps = [s for s in self.steps_of(group)
                 if self.args.only.search(s.name)
                 and (group.vital or s.name not in self.done)]
        deadline = time.monotonic() + group.limit_s * self.args.slower
        with concurrent.futures.ThreadPoolExecutor(group.jobs) as pool:
            endings = list(pool.map(
                lambda step: self.run(group, step, deadline), steps))
        for step, ending in zip(steps, endings):
            if group.vital and ending.status in (FAILED, CUT_OFF, LEFT_OVER):
                self.stopped = f"{step.name}: {telling_line(ending.reason)}"
                return

    def run_all(self):
        if self.kit.emulate != bool(self.kit.about.get("emulated")):
            self.stopped = ("the kit is an emulated one: --emulate rehearses "
                            "with it" if self.kit.about.get("emulated") else
                            "--emulate needs an emulated kit")
        elif self.results.identity["device"] == "none":
            self.stopped = ("no GPU: nvidia-smi shows none; --emulate rehearses "
                            "without one")
        no_device = self.stopped is not None
        for group in GROUPS:
            if not no_device and (group.finds_faults or not self.stopped):
                self.run_group(group)
        return self.finish()

    def finish(self):
        self.write_pages(self.results)
        print(self.summary, flush=True)
        statuses = [r["status"] for r in self.results.of_steps().values()]
        if self.stopped or FAILED in statuses:
            return 1
        return 3 if CUT_OFF in statuses or LEFT_OVER in statuses else 0

    def end_early(self, number, _frame):
        """A handler of signals: leave nothing running, and the summary."""
        end_all()
        print(self.summary, flush=True)
        os._exit(128 + number)


def main():
    session = Session(parse_arguments())
    signal.signal(signal.SIGTERM, session.end_early)
    signal.signal(signal.SIGINT, session.end_early)
    sys.exit(session.run_all())


if __name__ == "__main__":
    main()
