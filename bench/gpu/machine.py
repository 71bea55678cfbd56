"""What machine this is, where its tools are, and which libraries the CUDA backend
finds on it.

    machine.py MODULE...     prints a JSON object a library of these modules that
                             is NVIDIA's; fails where one of the first is not
                             found
"""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

# Dense bf16 operations by the data sheets, TFLOP/s; the first name that the
# device's begins with.
SHEET_TFLOPS = (("NVIDIA H100 PCIe", 756), ("NVIDIA H100 NVL", 835),
                ("NVIDIA H100", 989), ("NVIDIA H200 NVL", 835),
                ("NVIDIA H200", 989), ("NVIDIA A100", 312))


def sheet_tflops(device):
    return next((rate for name, rate in SHEET_TFLOPS
                 if (device or "").startswith(name)), None)


def output_of(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True,
                              timeout=20, check=True).stdout.strip()
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
    cpu = re.search(r"model name\s*: (.*)",
                    Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    return {
        "device": "emulated on the CPU" if emulated
                  else fields[0] if fields else None,
        "driver": fields[1] if fields else None,
        "memory": fields[2] if fields else None,
        "compute_capability": fields[3] if fields else None,
        "cpu": cpu.group(1) if cpu else platform.machine(),
        "n_cores": os.cpu_count(),
        "system": platform.platform(),
    }


def vendor_libraries(module):
    """Name and path (None: not found) of each library that is NVIDIA's."""
    listed = subprocess.run(["ldd", module], capture_output=True, text=True,
                            check=False)
    if listed.returncode:
        sys.exit(f"machine: ldd {module}: {listed.stderr.strip()}")
    for line in listed.stdout.splitlines():
        name, _, where = line.strip().partition(" => ")
        if name.startswith(("libcu", "libnccl", "libnv")):
            path = where.rpartition(" (")[0]
            yield name, None if where.startswith("not found") else path


def main():
    if not sys.argv[1:]:
        sys.exit(__doc__)
    for number, module in enumerate(sys.argv[1:]):
        found = dict(vendor_libraries(module))
        missing = [name for name, path in found.items() if not path]
        for name, path in found.items():
            print(json.dumps({"module": Path(module).name, "library": name,
                              "path": path and str(Path(path).resolve())}))
        print(json.dumps({"module": Path(module).name, "missing": missing}))
        if missing and number == 0:
            sys.exit("not found: " + ", ".join(missing))


if __name__ == "__main__":
    main()
