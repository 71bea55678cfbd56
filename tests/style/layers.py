#!/usr/bin/env python3
"""Do includes run one way, are there no circles, and is each vendor named in one
folder only?

    layers.py SOURCE_DIR      prints each violation; exit 1 where there is one
"""

import re
import sys
from pathlib import Path

# Lower layers first. A file includes only from its own layer or below.
LAYERS = [
    ["src/base"],
    ["kernels"],
    ["comm"],
    ["io"],
    ["io/hdf5", "io/python", "io/image"],
    ["io/weights", "io/dataset"],
    ["src/model", "src/image", "src/data", "src/tokenizer"],
    ["src/input"],
    ["src/train", "src/merge", "src/eval", "src/convert", "src/report"],
    ["src/programs"],
]

# What is named in one folder only: headers, and words in the code.
VENDORS = {
    "MPI": ("comm", r"mpi\.h", r"\bP?MPI_\w+"),
    "NCCL": ("comm", r"nccl[\w/]*\.h", r"\bnccl[A-Z]\w+"),
    "HDF5": ("io", r"(hdf5|H5\w*)\.h", r"\bH5[A-Z]{1,2}[a-z]\w*\s*\("),
    "zip and compression": (
        "io", r"(zip|zlib|zstd|libdeflate|archive)\.h", None),
    "image formats": (
        "io/image", r"(jpeglib|turbojpeg|png|webp/\w+|(netpbm/)?(pam|pnm))\.h", None),
    "Unicode and patterns": (
        "src/tokenizer", r"(pcre2|uni(case|ctype|norm|str))\.h",
        r"\b(pcre2|u8|uc)_\w+\s*\("),
    "BLAS and oneDNN": (
        "kernels", r"(\w*cblas\w*|openblas/\w+|blis/\w+|(oneapi/)?dnnl/?\w*"
        r"|oneapi/dnnl/\w+|lapacke)\.h", r"\b(cblas|dnnl)_\w+\s*\("),
    "CUDA": (
        "kernels", r"(cuda\w*|cublas\w*|cudnn\w*|curand\w*)\.h",
        r"\b(cuda|cublas)[A-Z]\w+\s*\("),
}

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', re.M)
NOT_CODE = re.compile(
    r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)


def folder_of(path):
    """The layer folder of a path below the root, or None outside all."""
    parts = Path(path).parts
    if parts[0] in ("src", "io"):
        return "/".join(parts[:2]) if len(parts) > 2 else parts[0]
    return parts[0] if parts[0] in ("kernels", "comm") else None


def is_below(folder, home):
    return folder == home or folder.startswith(home + "/")


def level_of(folder):
    for level, folders in enumerate(LAYERS):
        if folder in folders:
            return level
    return None


def line_of(text, offset):
    return text.count("\n", 0, offset) + 1


def blank(match):
    """Comments and strings vanish; the lines they span stay."""
    return re.sub(r"[^\n]", " ", match.group())


def check_file(root, path, problems, edges):
    name = path.relative_to(root).as_posix()
    text = path.read_text(encoding="utf-8")
    folder = folder_of(name)
    level = level_of(folder)
    if level is None:
        problems.append(f"{name}: folder {folder} is in no layer")
        return

    no_comments = re.sub(r"/\*.*?\*/", blank, text, flags=re.S)
    for match in INCLUDE.finditer(no_comments):
        place = f"{name}:{line_of(no_comments, match.start())}"
        quote, target = match.groups()
        if quote == "<":
            for vendor, (home, header, _) in VENDORS.items():
                if re.fullmatch(header, target) and not is_below(
                        folder, home):
                    problems.append(f"{place}: <{target}>: {vendor} is named "
                                    f"only in {home}/")
            continue
        if target.startswith((".", "/")) or not (root / target).is_file():
            problems.append(f'{place}: "{target}" does not start at the root '
                            "of the source tree")
            continue
        target_folder = folder_of(target)
        target_level = level_of(target_folder)
        if target_level is None or target_level > level:
            problems.append(f'{place}: "{target}" lies above {folder}/')
        elif target_folder != folder:
            edges.setdefault((folder, target_folder), place)

    code = NOT_CODE.sub(blank, text)
    for vendor, (home, _, word) in VENDORS.items():
        if word is None or is_below(folder, home):
            continue
        match = re.search(word, code)
        if match:
            problems.append(f"{name}:{line_of(code, match.start())}: "
                            f"{match.group().rstrip('( ')}: {vendor} is named "
                            f"only in {home}/")


def check_folder_circles(edges, problems):
    """Folders of one layer may use each other, but only one way."""
    for (user, used), place in sorted(edges.items()):
        seen, stack = set(), [used]
        while stack:
            folder = stack.pop()
            if folder == user:
                problems.append(f"{place}: {user}/ and {used}/ include each "
                                "other")
                break
            if folder not in seen:
                seen.add(folder)
                stack += [b for a, b in edges if a == folder]


# A function or variable that a file defines for others.
DEFINITION = re.compile(
    r"^(?!static\b|typedef\b|extern\b|#)[A-Za-z_][\w *]*?\b(mm_\w+)"
    r"(?:\([^;{}]*\)\s*\{|(?:\[[^\]]*\])?\s*=)", re.M)


def uses_of(root, files):
    """Which file includes which header, and which source uses what another
    defines: {file: {file: why}}."""
    texts = {path.relative_to(root).as_posix(): path.read_text("utf-8")
             for path in files}
    code = {name: NOT_CODE.sub(blank, text) for name, text in texts.items()}
    defined = {}
    for name, text in code.items():
        for match in DEFINITION.finditer(text):
            defined.setdefault(match.group(1), set()).add(name)
    uses = {name: {} for name in texts}
    for name, text in texts.items():
        for quote, target in INCLUDE.findall(text):
            if quote == '"' and target in texts:
                uses[name].setdefault(target, "includes it")
        if name.endswith((".c", ".cu")):
            for word in sorted(set(re.findall(r"\bmm_\w+", code[name]))):
                homes = defined.get(word, set())
                # What several files define are variants of one thing.
                if len(homes) == 1 and name not in homes:
                    uses[name].setdefault(min(homes), f"uses {word}")
    return uses


def check_circles(uses, problems):
    """No file includes or calls itself by way of others."""
    for start in sorted(uses):
        came_from, queue = {start: None}, [start]
        for name in queue:
            if start in uses[name]:
                circle = [start]
                while name != start:
                    circle.insert(1, name)
                    name = came_from[name]
                if start == min(circle):
                    problems.append("circle: " + ", ".join(
                        f"{a} {uses[a][b]} ({b})" for a, b in
                        zip(circle, circle[1:] + [start])))
                break
            for target in uses[name]:
                if target not in came_from:
                    came_from[target] = name
                    queue.append(target)


def main():
    root = Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    files = sorted(path for top in ("src", "kernels", "comm", "io")
                   for path in (root / top).rglob("*")
                   if path.suffix in (".c", ".h", ".cu", ".cuh"))
    if not files:
        sys.exit(f"layers: no sources below {root}")
    problems, edges = [], {}
    for path in files:
        check_file(root, path, problems, edges)
    check_folder_circles(edges, problems)
    check_circles(uses_of(root, files), problems)
    for problem in problems:
        print(problem)
    print(f"{len(files)} files, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
