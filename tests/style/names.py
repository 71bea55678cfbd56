#!/usr/bin/env python3
"""Do names follow docs/CONTRIBUTING.md? Prints what does not; exits 1 then.

    tests/style/names.py [ROOT]

Checked: public functions come in fixed pairs of verbs; public names begin with
mm_ or MM_; file names are unique; quotients are called _per_; sources do not
use words that docs/CONTRIBUTING.md replaces.
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else
                    pathlib.Path(__file__).parents[2])
PUBLIC = ("src", "io", "comm", "kernels")
FOLDERS = PUBLIC + ("bench", "tests")
C_FILES = (".c", ".h", ".cu", ".cuh", ".cpp")

# Objects are created and destroyed; files, devices and libraries are opened and
# closed; memory is allocated and freed; spans begin and end, outputs begin and
# are committed; values, which lie in the caller's memory, are filled in and
# become empty again by clear.
FILL = {"init", "read", "parse", "find", "choose", "set", "add", "of"}
ENDS = {"destroy": {"create", "read", "parse"}, "close": {"open", "create"},
        "free": {"alloc", "create"}, "end": {"begin"}, "commit": {"begin"},
        "clear": FILL}
BEGINS = {"create": {"destroy", "close"}, "open": {"close"}, "alloc": {"free"},
          "begin": {"end", "commit"}}
FOREIGN = {"new", "make", "delete", "release", "prepare", "finalize", "dispose",
           "setup", "teardown", "stop"}

# Functions whose partner has another noun, or that have none.
ELSEWHERE = {
    "mm_byte_pairs_work_clear": "grown by its user",
    "mm_checkpoint_begin": "mm_weights_writer_commit",
    "mm_config_from_open_clip": "open_clip is the name of a project",
    "mm_file_commit": "commits what the caller wrote to PATH.tmp",
    "mm_file_create_folder": "folders stay",
    "mm_module_open": "a module stays until the process ends",
    "mm_module_open_cuda": "as mm_module_open",
    "mm_mpi_transport_create": "the transport's table has destroy",
    "mm_nccl_open": "as mm_module_open",
    "mm_nccl_transport_create": "as mm_mpi_transport_create",
    "mm_pickle_push_new": "pushes a value that is new",
    "mm_safetensors_begin": "mm_weights_writer_commit",
    "mm_watch_destroy": "mm_comm_watch",
}

QUOTIENT = re.compile(r"\b\w*[a-z]_an?_[a-z]\w*|\b[A-Z]\w*_AN?_[A-Z]\w*")
# Where the article, or the letter A, stands for no quotient.
NO_QUOTIENT = re.compile(r"mm_a_of_c|mm_load_a_columns|CUBLAS")

PHRASES = re.compile(
    r"cannot be meant|is no (regular|longer a|folder|number|text|image)|surplus"
    r"|\(needed\)|its own way|come to be|there and no"
    r"|(rank|thread|program|process|test)s? who\b|GPU a rank")


def sources(folders):
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in C_FILES:
                yield path


def code_of(path):
    """Without comments and texts."""
    text = re.sub(r"/\*.*?\*/|//[^\n]*", " ", path.read_text(), flags=re.S)
    return re.sub(r'"(\\.|[^"\\\n])*"', '""', text)


def public_functions():
    """Names that headers declare, with their file."""
    found = {}
    for path in sources(PUBLIC):
        if path.suffix == ".h":
            code = re.sub(r"^\s*#(\\\n|.)*", "", code_of(path), flags=re.M)
            for name in re.findall(r"^[a-z][\w \*]*?\b(\w+)\(", code, re.M):
                if not name.startswith(("__", "MM_")):
                    found.setdefault(name, path)
    return found


def split_name(name):
    """mm_comm_begin_compute: ("mm_comm", "begin"); None without a verb."""
    words = name.split("_")
    for i in range(len(words) - 1, 1, -1):
        if words[i] in set(ENDS) | set(BEGINS) | FILL | FOREIGN:
            return "_".join(words[:i]), words[i]
    return None


def check_verbs(functions):
    parts = {name: split_name(name) for name in functions}
    verbs = {}
    for noun, verb in filter(None, parts.values()):
        verbs.setdefault(noun, set()).add(verb)
    for name, path in sorted(functions.items()):
        if not name.startswith("mm_"):
            yield f"{path}: {name} does not begin with mm_"
        if name in ELSEWHERE or not parts[name]:
            continue
        noun, verb = parts[name]
        if verb in FOREIGN and name == f"{noun}_{verb}":
            yield f"{path}: {name}: {verb} is not one of the verbs"
        for table in BEGINS, ENDS:
            if verb in table and not table[verb] & verbs[noun]:
                wanted = " or ".join(sorted(table[verb]))
                yield f"{path}: {name} has no partner {noun}_{wanted}"
    for name in sorted(set(ELSEWHERE) - set(functions)):
        yield f"{name}: not a public function, but in ELSEWHERE"


def check_file_names():
    seen = {}
    for path in sources(FOLDERS):
        if path.suffix in (".c", ".cu"):
            # An operation has the same name on both kinds of device.
            pair = re.sub(r"^kernels/(cpu|cuda)/", "kernels/",
                          str(path.relative_to(ROOT)))
            first = seen.setdefault(path.stem, pair)
            if pathlib.Path(first).parent != pathlib.Path(pair).parent:
                yield f"{path}: {first} has the same name"


def check_words(path):
    is_test = path.is_relative_to(ROOT / "tests")  # cases are sentences
    for name in [] if is_test else set(QUOTIENT.findall(code_of(path))):
        if not NO_QUOTIENT.match(name):
            yield f"{path}: {name}: quotients are called _per_"
    for number, line in enumerate(path.read_text().splitlines(), 1):
        for phrase in PHRASES.finditer(line):
            yield f"{path}:{number}: '{phrase.group()}'"


def main():
    wrong = list(check_verbs(public_functions())) + list(check_file_names())
    for path in sources(FOLDERS):
        wrong += check_words(path)
    for line in wrong:
        print(line.replace(f"{ROOT}/", ""))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
