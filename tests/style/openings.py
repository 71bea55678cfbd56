#!/usr/bin/env python3
"""Does every C and CUDA source open with a comment that says what is in it?

    openings.py SOURCE_DIR      prints each that does not; exit 1 where there is one
"""

import re
import sys
from pathlib import Path

FOLDERS = ("src", "io", "comm", "kernels", "bench", "tests")
OPENING = re.compile(r"(?:#!.*\n)?\s*(/\*.*?\*/|(?://[^\n]*\n)+)", re.S)
SENTENCE = re.compile(r"\w.{15,}[.:)]", re.S)  # not a name or a licence line alone


def check(path):
    opening = OPENING.match(path.read_text())
    if not opening:
        return "does not open with a comment that says what is in it"
    # What ctest reads stands in a comment of its own, or behind the sentence.
    text = re.sub(r"^[ /*]*ctest:.*$", "", opening.group(1), flags=re.M)
    if not SENTENCE.search(text):
        return "its opening comment has no sentence"
    return None


def main():
    root = Path(sys.argv[1])
    files = [path for folder in FOLDERS for path in sorted((root / folder).rglob("*"))
             if path.suffix in (".c", ".cu")]
    wrong = [f"{path.relative_to(root)}: {why}" for path in files
             if (why := check(path))]
    print(*wrong, f"{len(files)} files, {len(wrong)} without an opening", sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
