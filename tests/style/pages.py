#!/usr/bin/env python3
"""Do the pages speak of files, functions and headings that are there?

    pages.py SOURCE_DIR      prints what is not; exit 1 where there is something

Pages: README.md, docs/*.md, and README.md in any folder of tests. Checked are

- paths: words in backticks or code blocks that begin with a file or folder of
  the root, and words in backticks that end as sources do; those lie at the
  root, beside the page, or, without a slash, anywhere. A word in capitals
  stands for any name: kernels/cpu/OP.c.
- names: every mm_name, MAGMAX_NAME and --option, and, in backticks, `name()`,
  must be in the sources, which are all files but the pages. mm_name_* is a
  beginning; an option is there where a program has it, or a script uses it.
  `name()` or `mm_name` with (`path`) behind it must be defined in that file.
- links that are not to the web: file and heading.
- docs/README.md links to every page of docs, once; pages that sources name exist.
"""

import re
import sys
from pathlib import Path

SOURCE_SUFFIXES = {".c", ".h", ".cu", ".cuh", ".cpp", ".inc", ".py", ".sh",
                   ".sbatch", ".cmake", ".md"}
TEXT_SUFFIXES = SOURCE_SUFFIXES | {".txt", ".json", ""}
OURSELVES = "tests/style/pages.py"  # names what it looks for
# Options of CMake and others that no script of ours uses.
OTHERS_OPTIONS = {"--workflow"}
# Made by building and running, or not ours.
NOT_OURS = {".git", "build", "demo-out", "__pycache__"}

FENCE = re.compile(r"^( *)```.*?\n(.*?)^\1```[^\n]*$", re.M | re.S)
INDENTED = re.compile(r"(?:^\n)((?:^    [^\n]*\n)+)", re.M)
SPAN = re.compile(r"``(.+?)``|`([^`]+)`", re.S)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.*?) *#*$", re.M)
OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*\w")
OPTION_ROW = re.compile(r'\.name = "([a-z][a-z-]*)"')
NAME = re.compile(r"(?<![\w-])(?:mm|MAGMAX)_\w+\*?")
FUNCTION = re.compile(r"^([A-Za-z_]\w*)\(\)$")
IN_FILE = re.compile(r"`(\w+(?=\(\))|mm_\w+)(?:\(\))?`\s+\(`([^`\s]+)`")
PAGE = re.compile(r"\bdocs/[\w-]+\.md\b")
CAPITALS = re.compile(r"(?<![A-Za-z0-9])[A-Z]+(?![A-Za-z0-9])")
PLACE = re.compile(r":\d+$")


class Tree:
    """The files of the source tree, and every word and option in them."""

    def __init__(self, root):
        self.root = root
        self.names, self.words = set(), set(OTHERS_OPTIONS)
        self.pages = {}  # that sources name, and one that does
        self.tops = {p.name for p in root.iterdir() if p.name not in NOT_OURS}
        for top in sorted(self.tops):
            self.add(root / top)

    def add(self, path):
        if path.is_dir():
            if path.name not in NOT_OURS and not (
                    path / "CMakeCache.txt").exists():
                for entry in sorted(path.iterdir()):
                    self.add(entry)
            return
        self.names.add(path.name)
        if path.suffix == ".md" or path.suffix not in TEXT_SUFFIXES or (
                "corpus" in path.parts or path == self.root / OURSELVES):
            return
        text = path.read_text(encoding="utf-8", errors="replace")
        self.words.update(re.findall(r"\w+", text))
        self.words.update(OPTION.findall(text))
        self.pages.update({page: path for page in PAGE.findall(text)})
        self.words.update("--" + name for name in OPTION_ROW.findall(text))

    def has_path(self, path, folder):
        if not path.strip("/"):
            return True
        for base in {self.root, folder}:
            if (base / path).exists():
                return True
            pattern = CAPITALS.sub("*", path).strip("/")
            if pattern != path.strip("/") and any(base.glob(pattern)):
                return True
            if "*" in path and any(base.glob(path.strip("/"))):
                return True
        return False

    def has_name(self, name):
        if name.endswith("*"):
            return any(word.startswith(name[:-1]) for word in self.words)
        return name in self.words


def slug(heading):
    """The anchor that a heading gets."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
    text = re.sub(r"[^\w\- ]", "", text.lower())
    return text.replace(" ", "-")


def line_of(text, offset):
    return text.count("\n", 0, offset) + 1


def words_of(code):
    """What may be paths in it: without quotes, options' names, and places."""
    for word in re.split(r"[\s,;|&()'\"<>=]+", code):
        word = PLACE.sub("", word.removeprefix("./").rstrip(".:"))
        if word and not word.startswith(("-", "/", "~", "$")):
            yield word


def is_rooted(tree, word):
    """Whether it begins with something of the root."""
    top, slash, _ = word.partition("/")
    return top in tree.tops and (slash != "" or (tree.root / top).is_file())


class Page:
    def __init__(self, tree, path, problems):
        self.tree, self.path, self.problems = tree, path, problems
        self.text = path.read_text(encoding="utf-8")
        self.name = path.relative_to(tree.root).as_posix()

    def complain(self, offset, what):
        self.problems.append(f"{self.name}:{line_of(self.text, offset)}: {what}")

    def check_block(self, offset, code):
        for word in words_of(code):
            if is_rooted(self.tree, word) and not self.tree.has_path(
                    word, self.path.parent):
                self.complain(offset + code.find(word),
                              f"{word}: no such file")

    def check_span(self, offset, code):
        function = FUNCTION.match(code)
        if function and not NAME.match(code) and (
                not self.tree.has_name(function.group(1))):
            self.complain(offset, f"{code}: not in the sources")
        for word in words_of(code):
            if is_rooted(self.tree, word):
                found = self.tree.has_path(word, self.path.parent)
            elif Path(word).suffix not in SOURCE_SUFFIXES or "$" in word:
                continue
            elif "/" in word:
                found = word.startswith("build/") or self.tree.has_path(
                    word, self.path.parent)
            else:
                found = word in self.tree.names or CAPITALS.search(word) or (
                    "*" in word)
            if not found:
                self.complain(offset, f"{word}: no such file")

    def check_in_file(self, offset, name, path):
        """Calls are indented; what a file defines or declares is not."""
        path = self.tree.root / path
        if path.is_file() and not re.search(
                rf"^(?! )[^\n]*\b{name}\b|\bdef {name}\b",
                path.read_text(encoding="utf-8"), re.M):
            self.complain(offset, f"{name}: not of {path.name}")

    def check_link(self, offset, target):
        if re.match(r"[a-z]+:", target):
            return
        file, _, anchor = target.partition("#")
        path = self.path.parent / file if file else self.path
        if not path.exists():
            self.complain(offset, f"link to {target}: no such file")
        elif anchor and path.suffix == ".md":
            text = FENCE.sub("", path.read_text(encoding="utf-8"))
            if anchor not in map(slug, HEADING.findall(text)):
                self.complain(offset, f"link to {target}: no such heading")

    def check(self):
        prose = self.text
        for pattern in (FENCE, INDENTED):
            group = pattern.groups
            for match in pattern.finditer(prose):
                self.check_block(match.start(group), match.group(group))
            # Spaces keep what follows at its place.
            prose = pattern.sub(
                lambda m: re.sub(r"[^\n]", " ", m.group()), prose)
        for match in SPAN.finditer(prose):
            self.check_span(match.start(), match.group(1) or match.group(2))
        for match in IN_FILE.finditer(prose):
            self.check_in_file(match.start(), *match.groups())
        for match in LINK.finditer(prose):
            self.check_link(match.start(), match.group(1))
        for pattern in (NAME, OPTION):
            for match in pattern.finditer(self.text):
                if not self.tree.has_name(match.group()):
                    self.complain(match.start(),
                                  f"{match.group()}: not in the sources")


def check_index(root, problems):
    """Does docs/README.md link to every page, once?"""
    index = root / "docs/README.md"
    if not index.is_file():
        problems.append("docs/README.md: there is none")
        return
    links = [link.partition("#")[0]
             for link in LINK.findall(index.read_text(encoding="utf-8"))]
    for page in sorted((root / "docs").glob("*.md")):
        if page != index and links.count(page.name) != 1:
            problems.append(f"docs/README.md: {links.count(page.name)} links "
                            f"to {page.name}")


def place_of(problem):
    page, line, _ = (problem + "::").split(":", 2)
    return page, int(line) if line.isdigit() else 0


def main():
    root = Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    pages = [root / "README.md", *sorted((root / "docs").glob("*.md")),
             *sorted((root / "tests").rglob("README.md"))]
    tree, problems = Tree(root), []
    for path in pages:
        Page(tree, path, problems).check()
    check_index(root, problems)
    for page, path in tree.pages.items():
        if not (root / page).is_file():
            problems.append(f"{path.relative_to(root)}: {page}: no such file")
    for problem in sorted(problems, key=place_of):
        print(problem)
    print(f"{len(pages)} pages, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
