#!/usr/bin/env python3
"""Does clang-tidy, as .clang-tidy says, find nothing in the C sources?

    tidy.py BUILD [--cheap] [FILE...]

BUILD is a configured build folder. --cheap leaves out the analyzer, which takes
nine tenths of the time: the test style.tidy is that, the target "tidy" is all.
FILE: only those. Exit status 77 without clang-tidy.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2]
FOLDERS = ("src", "io", "comm", "kernels")
FILES_PER_CALL = 4  # starting it takes longer than a small file


def commands(build):
    """One command a file: kernels/cpu is compiled for each instruction set, and
    kernels/cuda for tests as well."""
    found = {}
    path = build / "compile_commands.json"
    for entry in json.loads(path.read_text(encoding="utf-8")):
        file = Path(entry["directory"], entry["file"])
        if (file.suffix == ".c" and file.is_relative_to(SOURCE)
                and file.relative_to(SOURCE).parts[0] in FOLDERS):
            found.setdefault(str(file), entry)
    return found


def main():
    parser = argparse.ArgumentParser(prog="tidy.py")
    parser.add_argument("build", type=Path)
    parser.add_argument("--cheap", action="store_true")
    parser.add_argument("files", nargs="*", type=Path)
    args = parser.parse_args()
    tidy = shutil.which("clang-tidy")
    if not tidy:
        print("clang-tidy is missing: skipped")
        return 77
    chosen = commands(args.build)
    names = sorted({str(f.resolve()) for f in args.files} or chosen)
    if not names:
        sys.exit(f"tidy: {args.build} compiles nothing of {SOURCE}")

    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "compile_commands.json").write_text(
            json.dumps(list(chosen.values())), encoding="utf-8")
        command = [tidy, "-p", folder, "--quiet"]
        if args.cheap:
            command.append("--checks=-clang-analyzer-*")

        def check(some):
            return subprocess.run(command + some, capture_output=True,
                                  text=True, check=False)

        # A header's report comes with each file that includes it.
        told, failed = set(), False
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for call in pool.map(check, [
                    names[i:i + FILES_PER_CALL]
                    for i in range(0, len(names), FILES_PER_CALL)]):
                if call.returncode != 0:
                    failed = True
                    for report in (call.stdout or call.stderr).split(
                            f"\n{SOURCE}/"):
                        if report not in told:
                            told.add(report)
                            print(report, flush=True)
    print(f"{len(names)} files, {'faults above' if failed else 'no faults'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
