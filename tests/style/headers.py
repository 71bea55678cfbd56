#!/usr/bin/env python3
"""Does the comment of every function that takes a communicator state Ranks?

    headers.py SOURCE_DIR     prints each violation; exit 1 where there is one

A function takes a communicator as mm_comm *, or in a struct: one that has an
mm_comm * among its members, or such a struct, wherever it is defined. Its
comment is the one that ends on the line before it, or before a function that
follows it without an empty line between: a comment covers a group. There Ranks
is a field of its own ("Ranks    Local.") or in a line ("Ranks: local."). Where a
comment in front says "Ranks: local, all of it", it covers the whole header.
"""

import re
import sys
from pathlib import Path

COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.S)
FUNCTION = re.compile(
    r"^(?!typedef\b|#)[A-Za-z_][\w \*]*?\b(mm_\w+)\(([^;{}]*?)\)[^;{}()]*"
    r"(?:\(\([^;{}]*\)\)\s*)?[;{]", re.M)
STRUCT = re.compile(r"\bstruct (mm_\w+) \{(.*?)^\}", re.S | re.M)
RANKS = re.compile(r"^[ /*]*Ranks {2,}\S|\bRanks(, [A-Z]\w+)*:", re.M)
COVERS_ALL = re.compile(r"\bRanks(: | {2,})\w+, all[\s*]+of it\b")


def blank(match):
    """Comments vanish; the lines they span stay."""
    return re.sub(r"[^\n]", " ", match.group())


def names_any(types, text):
    return any(word in types for word in re.findall(r"\bmm_\w+", text))


def carriers(codes):
    """Types that have a communicator: mm_comm, and structs with one."""
    structs = {}
    for code in codes.values():
        for name, members in STRUCT.findall(code):
            # A function's arguments are no members.
            members = re.sub(r"\(\*\w+\)\s*\([^;]*\)", "", members)
            structs[name] = members
    types = {"mm_comm"}
    while True:
        more = {name for name, members in structs.items()
                if name not in types and names_any(types, members)}
        if not more:
            return types
        types |= more


def comment_above(text, offset, code):
    """The comment of the declaration at `offset`: of its group, if any."""
    lines, bare = text[:offset].splitlines(), code[:offset].splitlines()
    at = len(lines) - 1
    while at >= 0 and lines[at].strip() and bare[at].strip():
        at -= 1
    end = at
    while at >= 0 and lines[at].strip() and not bare[at].strip():
        at -= 1
    return "\n".join(lines[at + 1:end + 1])


def check_file(root, path, text, code, types, problems):
    n_functions = 0
    covers_all = COVERS_ALL.search(text)
    for match in FUNCTION.finditer(code):
        name, arguments = match.groups()
        if not names_any(types, arguments):
            continue
        n_functions += 1
        if not covers_all and not RANKS.search(comment_above(text, match.start(), code)):
            line = code.count("\n", 0, match.start()) + 1
            problems.append(f"{path.relative_to(root)}:{line}: {name} takes a "
                            "communicator, and its comment has no Ranks")
    return n_functions


def main():
    root = Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    texts = {path: path.read_text(encoding="utf-8")
             for top in ("src", "io", "comm", "kernels")
             for path in sorted((root / top).rglob("*.[ch]"))}
    codes = {path: COMMENT.sub(blank, text) for path, text in texts.items()}
    types = carriers(codes)
    problems, n_functions = [], 0
    for path, text in texts.items():
        if path.suffix == ".h":
            n_functions += check_file(root, path, text, codes[path], types,
                                      problems)
    if n_functions == 0:
        sys.exit(f"headers: no functions with a communicator below {root}")
    for problem in problems:
        print(problem)
    print(f"{n_functions} functions with a communicator, "
          f"{len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
