#!/usr/bin/env python3
"""What the compiler makes of every CUDA kernel: docs/gpu-registers.md.

    registers.py            compile and write it; needs nvcc, not a GPU
    registers.py --check    does it name every kernel of kernels/cuda? Needs
                                nothing; exit 1 if not

Warnings are errors, as in the build.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REPORT = ROOT / "docs/gpu-registers.md"
ARCHITECTURES = ("sm_80", "sm_90")
KERNEL = re.compile(r"__global__[^;{]*?\b(mm_\w+_kernel)\b", re.S)

HEAD = """# Registers and spills

By `bench/gpu/registers.py` with {version}; `-O3`, no GPU needed. Registers a
thread, bytes of spills (stores + loads), and bytes of static shared memory a
block. T is the number type of the activations. Attention in plain fp32 and
layer norm have dynamic shared memory as well.

| file | kernel | {columns} |
|---|---|{rules}|
"""


def find_nvcc():
    nvcc = os.environ.get("CUDACXX") or shutil.which("nvcc") \
        or "/usr/local/cuda/bin/nvcc"
    if not Path(nvcc).exists():
        sys.exit("registers: no nvcc; set CUDACXX")
    return nvcc


def readable(mangled):
    name = subprocess.run(["c++filt", mangled], capture_output=True, text=True,
                          check=True).stdout.strip()
    name = re.sub(r"\(anonymous namespace\)::|_GLOBAL__N__\w+::", "", name)
    name = re.sub(r"^void ", "", name)
    name = name[:name.index("(mm_")] if "(mm_" in name else \
        re.sub(r"\((?![a-z]+\)\d).*$", "", name)
    name = name.replace("__nv_bfloat16", "bf16")
    return re.sub(r"\((bool|int)\)", "", name)


def exact_ops():
    """Those that the build compiles without contraction."""
    text = (ROOT / "kernels/CMakeLists.txt").read_text()
    return re.search(r"set\(EXACT_OPS ([\w\s]+?)CACHE", text)[1].split()


def compile_file(nvcc, source, architecture, cubin):
    """{kernel: (registers, spilled bytes, shared bytes)}"""
    contract = ["-fmad=false"] if source.stem in exact_ops() else []
    proc = subprocess.run(
        [nvcc, "-std=c++17", "-O3", *contract, f"-arch={architecture}", "-cubin",
         "--Werror=all-warnings", "-Xptxas", "-v", f"-I{ROOT}", "-o", cubin,
         source], capture_output=True, text=True)
    if proc.returncode != 0:
        sys.exit(f"registers: {source}:\n{proc.stderr}")
    found, name, spills = {}, None, 0
    for line in proc.stderr.splitlines():
        if match := re.search(r"Compiling entry function '(\w+)'", line):
            name, spills = readable(match[1]), 0
        elif match := re.search(r"(\d+) bytes spill stores, (\d+) bytes", line):
            spills = int(match[1]) + int(match[2])
        elif match := re.search(r"Used (\d+) registers", line):
            shared = re.search(r"(\d+) bytes smem", line)
            found[name] = (int(match[1]), spills,
                           int(shared[1]) if shared else 0)
    return found


def write_report():
    nvcc = find_nvcc()
    version = subprocess.run([nvcc, "--version"], capture_output=True,
                             text=True, check=True).stdout
    version = "nvcc " + re.search(r"V([\d.]+)", version)[1]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for source in sorted((ROOT / "kernels/cuda").glob("*.cu")):
            results = [compile_file(nvcc, source, a, Path(folder) / "x.cubin")
                       for a in ARCHITECTURES]
            for kernel in sorted(results[0]):
                cells = [f"{r} / {s} / {m}"
                         for r, s, m in (x[kernel] for x in results)]
                rows.append(f"| {source.stem} | `{kernel}` | "
                            + " | ".join(cells) + " |")
            print(source.name, flush=True)
    head = HEAD.format(version=version, columns=" | ".join(ARCHITECTURES),
                       rules="|".join("---" for _ in ARCHITECTURES))
    REPORT.write_text(head + "\n".join(rows) + "\n")


def check_report():
    text = REPORT.read_text() if REPORT.exists() else ""
    names = set()
    for source in sorted((ROOT / "kernels/cuda").glob("*.cu*")):
        names.update(KERNEL.findall(source.read_text()))
    missing = sorted(n for n in names if not re.search(rf"\b{n}\b", text))
    for name in missing:
        print(f"{name} is not in {REPORT.relative_to(ROOT)}: run "
              "bench/gpu/registers.py")
    print(f"{len(names)} kernels, {len(missing)} missing")
    return 1 if missing or not names else 0


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        sys.exit(check_report())
    if len(sys.argv) > 1:
        sys.exit(__doc__)
    write_report()
