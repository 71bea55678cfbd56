#!/usr/bin/env python3
"""Pack what a machine with a GPU needs to test and time magmax, and nothing to
compile it: bench/gpu/kit.sh calls this behind the build.

    kit.py BUILD [--most-bytes N]

Makes BUILD/magmax-gpu-kit, and of it BUILD/magmax-gpu-kit.tar.xz, which may have N
bytes (default: 40,000,000); it unpacks with "python3 -m tarfile -e". The folder
runs wherever it lies:

    run             starts the harness: vendor.py, then bench/gpu/run.py
    exec            any command in it, with what Open MPI needs
    bin/            magmax_*, mpirun
    bin-test/       programs of tests; the emulated modules
    bin-bench/      programs that measure
    lib/            Debian's libraries; openmpi/ and pmix/, Open MPI's plugins;
                    cuBLASLt and NCCL, too large to be packed, as links that
                    vendor.py makes
    lib/magmax/     the modules for GPUs
    share/          Open MPI's messages
    tests/          Python files of tests
    golden/         golden numbers
    bench/          Python files and scripts
    tests.json      tests of the device cuda: a list of name, command, env,
                    timeout (seconds) and labels, run in the kit's folder;
                    "@KIT@" stands for it
    kit.json        source (digest, as in results), digest (of the files here),
                    commit, date, cuda, architectures, emulated (true: kernels
                    run by the CPU, no GPU code), vendor (libraries that are not
                    packed), glibc (the oldest that it runs with)
"""

import argparse
import datetime
import hashlib
import json
import lzma
import re
import shutil
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

sys.dont_write_bytecode = True

import elf  # noqa: E402
from results import source_digest  # noqa: E402

SOURCE = Path(__file__).resolve().parents[2]
NAME = "magmax-gpu-kit"
MOST_BYTES = 40_000_000
# What may travel in one go: the repository and the archive.
MOST_TOGETHER = 64 << 20
VENDOR = re.compile(r"lib(cublasLt|nccl|cuda)\.so")
# Plugins for networks and schedulers that one machine has no use for, and for
# OpenSHMEM.
NO_PLUGIN = re.compile(r"ucx|ofi|psm|openib|slurm|netlink|flux|jsm|gridengine"
                       r"|scoll|spml|sshmem|memheap")
# For x86 code first; a dictionary for the whole, since programs share much.
FILTERS = [{"id": lzma.FILTER_X86},
           {"id": lzma.FILTER_LZMA2, "preset": 3, "dict_size": 128 << 20}]


def fail(text):
    sys.exit(f"kit: {text}")


# ---- programs and libraries -------------------------------------------------

class Kit:
    """The folder that is made, and where its programs, modules and plugins came
    from: there the loader finds what they need."""

    def __init__(self, folder):
        self.folder = folder
        self.originals = []

    def add(self, path, folder, name=None):
        """A file; where it lies in the kit."""
        target = self.folder / folder / (name or path.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
        if elf.is_elf(target):
            self.originals.append(path)
        return target

    def elf_files(self):
        return [p for p in sorted(self.folder.rglob("*")) if elf.is_elf(p)]


def add_programs(kit, build):
    """Without symbols."""
    for name, pattern in (("bin", "magmax_*"), ("bin-test", "*"),
                          ("bin-bench", "*"), ("lib/magmax", "*.so")):
        for path in sorted((build / name).glob(pattern)):
            if path.is_file() and elf.is_elf(kit.add(path, name)):
                subprocess.run(["strip", "--strip-unneeded",
                                kit.folder / name / path.name], check=True)
    if not list(kit.folder.glob("bin/magmax_*")):
        fail(f"{build}/bin holds no programs: build the target gpu_kit")


def add_open_mpi(kit):
    """mpirun, plugins and messages of Open MPI and of PMIx, which it loads."""
    text = subprocess.run(["ompi_info", "--path", "all", "--parsable"],
                          capture_output=True, text=True, check=True).stdout
    at = {line.split(":")[1]: Path(line.split(":")[2])
          for line in text.splitlines() if line.startswith("path:")}
    plugins = [p for p in at["pkglibdir"].glob("mca_*.so")
               if not NO_PLUGIN.search(p.name)]
    for plugin in plugins:
        elf.forget_search_path(kit.add(plugin, "lib/openmpi"))
    for name, program in (("mpirun", "orterun"), ("orted", "orted")):
        target = kit.add(at["bindir"] / program, "lib/openmpi", name)
        elf.set_search_path(target, "$ORIGIN/..")
        kit.add(SOURCE / "bench/gpu/in_kit/launch", "bin", name)
    pmix = elf.loaded_libraries(plugins).get("libpmix.so.2")
    if not pmix:
        fail("Open MPI's plugins load no PMIx")
    pmix = Path(pmix).resolve().parent
    for plugin in pmix.glob("pmix/*.so"):
        if not NO_PLUGIN.search(plugin.name):
            elf.forget_search_path(kit.add(plugin, "lib/pmix"))
    for folder in (at["pkgdatadir"], pmix.parent / "share/pmix"):
        for path in folder.glob("*.txt"):
            kit.add(path, f"share/{folder.name}")


def add_libraries(kit):
    """What all these load, but for glibc and NVIDIA's, whose names are
    returned."""
    vendor = set()
    for name, path in elf.loaded_libraries(kit.originals).items():
        if VENDOR.match(name):
            vendor.add(name)
        elif path is None:
            fail(f"{name}, which a program loads, is not on this machine")
        elif not (elf.OF_THE_MACHINE.match(name) or
                  list(kit.folder.glob(f"*/{name}"))):
            target = kit.folder / "lib" / name
            shutil.copy(path, target)
            target.chmod(0o755)
            elf.forget_search_path(target)
    missing = missing_libraries(kit)
    if missing:
        fail("libraries are missing:\n  " + "\n  ".join(missing))
    return sorted(vendor)


def missing_libraries(kit):
    """What files of the kit load that is neither in it nor of the machine."""
    files = kit.elf_files()
    there = {p.name for p in files}
    return [f"{path.relative_to(kit.folder)} loads {name}"
            for path in files for name in elf.needed(path)
            if name not in there and not elf.OF_THE_MACHINE.match(name)
            and not VENDOR.match(name)]


# ---- tests and scripts ------------------------------------------------------

def add_scripts(folder, build):
    for name in ("run", "exec"):
        shutil.copy(SOURCE / "bench/gpu/in_kit" / name, folder / name)
    for name in ("bench", "bench/gpu", "tests/cli", "tests/parity"):
        (folder / name).mkdir(parents=True)
        for path in (SOURCE / name).iterdir():
            if path.suffix in (".py", ".sh", ".json"):
                shutil.copy(path, folder / name)
    for name in ("tiny", "clip"):
        shutil.copytree(build / "golden" / name, folder / "golden" / name)


def in_kit(word, build):
    """A word of a test's command or environment as it is in the kit."""
    word = word.replace(str(build), "@KIT@").replace(str(SOURCE), "@KIT@")
    if not word.startswith("/"):
        return word
    name = Path(word).name
    if name.startswith(("mpirun", "mpiexec")):
        return "@KIT@/bin/mpirun"
    return "python3" if name.startswith("python3") else name


def tests_of(text, build, folder):
    """tests.json, from what ctest --show-only=json-v1 prints."""
    tests = []
    for test in json.loads(text)["tests"]:
        properties = {p["name"]: p["value"] for p in test["properties"]}
        labels = properties.get("LABELS", [])
        if "cuda" not in labels:
            continue
        # ctest leaves the command out where the program is not built.
        if "command" not in test:
            fail(f"the program of test {test['name']} is not built")
        command = [in_kit(word, build) for word in test["command"]]
        for word in command:
            path = folder / word.removeprefix("@KIT@/")
            if word.startswith("@KIT@/") and not path.exists():
                fail(f"test {test['name']}: {word} is not in the kit")
        env = dict(e.split("=", 1) for e in properties.get("ENVIRONMENT", []))
        tests.append({
            "name": test["name"], "command": command,
            "env": {k: in_kit(v, build) for k, v in env.items()},
            "timeout": properties.get("TIMEOUT", 120), "labels": labels})
    if not tests:
        fail(f"{build} has no tests of the device cuda")
    return tests


# ---- the archive ------------------------------------------------------------

def cache_entry(build, name):
    text = (build / "CMakeCache.txt").read_text(encoding="utf-8")
    found = re.search(rf"^{name}:\w+=(.*)$", text, re.M)
    return found.group(1) if found else ""


def output_of(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True,
                              check=True, cwd=SOURCE).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def files_digest(folder):
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def describe(build, kit, vendor):
    nvcc = cache_entry(build, "CMAKE_CUDA_COMPILER")
    commands = (build / "compile_commands.json").read_text(encoding="utf-8")
    release = re.search(r"release ([\d.]+)",
                        output_of(nvcc, "--version") if nvcc else "")
    return {
        "source": source_digest(SOURCE), "digest": files_digest(kit.folder),
        "commit": output_of("git", "describe", "--always", "--dirty"),
        "date": datetime.datetime.now(datetime.timezone.utc)
                .strftime("%Y-%m-%d %H:%M"),
        "cuda": release.group(1) if release else None,
        "architectures": sorted({code for codes in re.findall(
            r"code=\[(.*?)\]", commands) for code in codes.split(",")}),
        "emulated": cache_entry(build, "MAGMAX_TEST_CUDA") != "gpu",
        "vendor": vendor, "glibc": elf.newest_glibc(kit.elf_files()),
    }


def archive(folder, target, most_bytes):
    """One file, which is the same whenever the folder is."""
    def plain(member):
        member.uid = member.gid = member.mtime = 0
        member.uname = member.gname = ""
        member.mode = 0o755 if member.mode & stat.S_IXUSR else 0o644
        return member

    temporary = target.with_name(target.name + ".new")
    with lzma.open(temporary, "wb", filters=FILTERS) as compressed:
        with tarfile.open(fileobj=compressed, mode="w") as tar:
            tar.add(folder, arcname=folder.name, filter=plain)
    n_bytes = temporary.stat().st_size
    if n_bytes > most_bytes:
        temporary.unlink()
        fail(f"the archive has {n_bytes} bytes, more than {most_bytes}")
    temporary.replace(target)
    return n_bytes


def check_sizes(n_bytes):
    """Repository, where this is one, and archive: they travel together."""
    try:
        listed = subprocess.run(["git", "archive", "HEAD"], check=True,
                                capture_output=True, cwd=SOURCE).stdout
    except (OSError, subprocess.SubprocessError):
        return
    together = len(listed) + n_bytes
    print(f"repository {len(listed)} bytes; together {together} of "
          f"{MOST_TOGETHER}")
    if together > MOST_TOGETHER:
        fail("too large to travel")


def write_json(path, value):
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(prog="kit.py")
    parser.add_argument("build", type=Path)
    parser.add_argument("--most-bytes", type=int, default=MOST_BYTES)
    args = parser.parse_args()
    build = args.build.resolve()
    folder = build / NAME
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "lib").mkdir(parents=True)
    kit = Kit(folder)
    add_programs(kit, build)
    add_open_mpi(kit)
    vendor = add_libraries(kit)
    add_scripts(folder, build)
    text = output_of("ctest", "--test-dir", build, "--show-only=json-v1")
    tests = tests_of(text, build, folder)
    write_json(folder / "tests.json", tests)
    about = describe(build, kit, vendor)
    write_json(folder / "kit.json", about)
    n_unpacked = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    target = build / f"{NAME}.tar.xz"
    n_bytes = archive(folder, target, args.most_bytes)
    print(json.dumps(about))
    print(f"{target}: {n_bytes} bytes, {n_unpacked} unpacked, "
          f"{len(tests)} tests")
    check_sizes(n_bytes)


if __name__ == "__main__":
    main()
