"""What bench/gpu/stages.py finds on the machine, and what its tools say."""

import csv
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

# ---- the machine ------------------------------------------------------------

def output_of(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True,
                              timeout=60, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def find_program(name):
    """In PATH, or where the vendor's installers leave it."""
    cuda = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda"))
    folders = [cuda / "bin", cuda / "compute-sanitizer",
               *sorted(cuda.glob("nsight-compute*"), reverse=True),
               *sorted(Path("/opt/nvidia/nsight-compute").glob("*"),
                       reverse=True), "/usr/local/nvidia/bin"]
    return shutil.which(name, path=os.pathsep.join(
        map(str, [os.environ.get("PATH", ""), *folders])))


def describe_machine(emulated):
    gpu = output_of(find_program("nvidia-smi") or "nvidia-smi",
                    "--query-gpu=name,driver_version,memory.total,compute_cap",
                    "--format=csv,noheader")
    fields = [f.strip() for f in gpu.splitlines()[0].split(",")] if gpu else []
    nvcc = find_program("nvcc")
    release = re.search(r"release ([\d.]+)",
                        output_of(nvcc, "--version") if nvcc else "")
    cpu = re.search(r"model name\s*: (.*)",
                    Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    return {
        "device": "emulated on the CPU" if emulated
                  else fields[0] if fields else None,
        "driver": fields[1] if fields else None,
        "memory": fields[2] if fields else None,
        "compute_capability": fields[3] if fields else None,
        "cuda": release.group(1) if release else None,
        "cpu": cpu.group(1) if cpu else platform.machine(),
        "n_cores": os.cpu_count(),
        "system": platform.platform(),
        "compiler": output_of("gcc", "-dumpfullversion"),
    }


def python_package(pattern, header):
    """Folders of headers and libraries in Python packages, as PyTorch brings
    them: the library that the pattern names, and its header's folder."""
    for folder in sys.path:
        for library in sorted(Path(folder, "nvidia").glob(f"*/lib/{pattern}")):
            include = library.parents[1] / "include"
            if (include / header).is_file():
                return library, include
    return None, None


def toolkit_hints():
    """Settings for CMake, and an environment, where the toolkit is incomplete
    and PyTorch has brought the rest."""
    nvcc = find_program("nvcc")
    toolkit = Path(nvcc).resolve().parents[1] if nvcc else Path("/none")
    settings, env = [], {}

    def lacks(header):
        return not any((toolkit / folder / header).is_file() for folder in
                       ("include", "targets/x86_64-linux/include"))

    library, include = python_package("libnccl.so*", "nccl.h")
    if library and lacks("nccl.h"):
        settings = [f"-DNCCL_INCLUDE_DIR={include}", f"-DNCCL_LIBRARY={library}"]
    library, include = python_package("libcublasLt.so*", "cublasLt.h")
    if library and lacks("cublasLt.h"):
        settings.append(f"-DCUDA_cublasLt_LIBRARY={library}")
        env = {name: os.pathsep.join(filter(None, [str(include),
                                                   os.environ.get(name)]))
               for name in ("C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH")}
    return settings, env


# ---- Nsight Compute -----------------------------------------------------------

def kernel_name(text):
    """Without what the kernel returns and takes; template arguments stay."""
    text = text.replace("(anonymous namespace)::", "").removeprefix("void ")
    depth = 0
    for at, c in enumerate(text):
        depth += (c == "<") - (c == ">")
        if c == "(" and depth == 0 and at > 0:
            text = text[:at]
            break
    return text[:100]


# Units of ncu, by the start of their names: of "ns", "nsecond", "Mbyte", ...
SCALES = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "K": 1e3, "M": 1e6, "G": 1e9}


def ncu_value(number, unit):
    """In seconds or bytes; ncu writes 1,234.5."""
    value = float(number.replace(",", ""))
    prefixed = len(unit) > 1 and unit not in ("second", "byte", "sec")
    return value * (SCALES.get(unit[0], 1.0) if prefixed else 1.0)


def parse_ncu(output):
    """Calls, seconds and bytes by kernel, from ncu's raw page: a row a call with
    a column a metric, behind a row of units."""
    lines = [line for line in output.splitlines() if line.startswith('"')]
    kernels, units = {}, {}
    for row in csv.DictReader(lines):
        if not row["ID"]:
            units = row
            continue
        kernel = kernels.setdefault(kernel_name(row["Kernel Name"]),
                                    {"calls": 0, "seconds": 0.0, "bytes": 0.0})
        kernel["calls"] += 1
        for name, metric in (("seconds", "gpu__time_duration.sum"),
                             ("bytes", "dram__bytes.sum")):
            kernel[name] += ncu_value(row[metric], units[metric])
    if not kernels:
        raise ValueError("ncu named no kernel")
    return [{"kernel": name, **sums} for name, sums in sorted(
        kernels.items(), key=lambda item: -item[1]["seconds"])]
