#!/usr/bin/env python3
"""Core-seconds (user + system) of each test of a build, and their sum.

    tests/core_seconds.py build/release [-R REGEX] [-o NOW.json]
    tests/core_seconds.py build/release --before THEN.json

Runs the tests one after the other, as ctest would, and adds up what the
processes of each used; --before prints an earlier measurement beside it. On a
machine that does other things too the numbers are higher: compare only what was
measured side by side. ./test.sh prints the core-seconds of each of its parts.
"""

import argparse
import ctypes
import json
import os
import re
import subprocess
import sys
import time

PR_SET_CHILD_SUBREAPER = 36


def tests_of(build):
    """[{"name", "command", "properties"}] as ctest describes them."""
    proc = subprocess.run(
        ["ctest", "--test-dir", build, "--show-only=json-v1"],
        capture_output=True, text=True, check=True)
    return [t for t in json.loads(proc.stdout)["tests"] if "command" in t]


def reap_orphans():
    """Wait for daemons that a test left to us; their core-seconds."""
    used = 0.0
    while True:
        try:
            _, _, usage = os.wait3(0)
        except ChildProcessError:
            return used
        used += usage.ru_utime + usage.ru_stime


def measure(test):
    """Run a test; its core-seconds (user, system), seconds and exit code."""
    properties = {p["name"]: p["value"] for p in test["properties"]}
    env = dict(os.environ)
    env.update(line.split("=", 1) for line in properties.get("ENVIRONMENT", []))
    begin = time.monotonic()
    process = subprocess.Popen(
        test["command"], env=env, cwd=properties.get("WORKING_DIRECTORY"),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - begin
    return {"user": round(usage.ru_utime + reap_orphans(), 2),
            "system": round(usage.ru_stime, 2), "wall": round(seconds, 2),
            "code": process.returncode}


def core_seconds(record):
    return record["user"] + record["system"]


def print_table(now, before):
    """The most expensive tests first, then the sums."""
    def cost(name):
        return max(core_seconds(r[name]) for r in (now, before) if name in r)

    def line(name, record, then):
        earlier = f"{core_seconds(then):9.2f}" if then else " " * 9
        cells = ("{user:9.2f}{system:9.2f}".format(**record)
                 + f"{core_seconds(record):9.2f}{record['wall']:9.2f}"
                 if record else " " * 36)
        print(f"{cells}{earlier if before else ''}  {name}")

    print("     user   system      sum     wall"
          + ("   before" if before else ""))
    for name in sorted(now.keys() | before.keys(), key=cost, reverse=True):
        line(name, now.get(name), before.get(name))

    def total(records):
        return {key: sum(r[key] for r in records.values())
                for key in ("user", "system", "wall")}

    line(f"total of {len(now)} tests", total(now),
         total(before) if before else None)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n", 1)[0],
        epilog="Run from anywhere; needs ctest.")
    parser.add_argument("build", help="a build folder, tests built")
    parser.add_argument("-R", "--regex", default="", help="tests to run")
    parser.add_argument("-o", "--output", help="keep the measurement here")
    parser.add_argument("--before", help="an earlier measurement")
    arguments = parser.parse_args()

    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    now, failed = {}, []
    for test in tests_of(arguments.build):
        if not re.search(arguments.regex, test["name"]):
            continue
        print(f"{test['name']} ...", file=sys.stderr, flush=True)
        record = now[test["name"]] = measure(test)
        if record["code"] not in (0, 77):
            failed.append(test["name"])
        if arguments.output:
            with open(arguments.output, "w", encoding="utf-8") as file:
                json.dump(now, file, indent=1)
    before = {}
    if arguments.before:
        with open(arguments.before, encoding="utf-8") as file:
            before = {n: r for n, r in json.load(file).items()
                      if re.search(arguments.regex, n)}
    print_table(now, before)
    if failed:
        sys.exit("failed: " + " ".join(failed))


if __name__ == "__main__":
    main()
