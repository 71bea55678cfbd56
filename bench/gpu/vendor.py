#!/usr/bin/env python3
"""Find NVIDIA's libraries that the kit's modules load and that are too large to
be packed, and link them into the kit's lib folder, where the modules look.

    vendor.py KIT

KIT/kit.json names them. They come from a toolkit (CUDA_HOME, /usr/local/cuda*,
the loader's own folders) or else from Python packages (nvidia/*/lib in
sys.path, as PyTorch brings them). Prints what was found, one per line; the loader
looks for the others by itself.
"""

import glob
import json
import os
import subprocess
import sys
from pathlib import Path

# cuBLASLt opens the compiler by name, for a kernel that it makes.
OPENER, OPENED = "libcublasLt", "libnvrtc*.so*"


def folders(python_path=None):
    """Where to look, in order."""
    homes = [os.environ.get("CUDA_HOME"), "/usr/local/cuda",
             *sorted(glob.glob("/usr/local/cuda-*"), reverse=True)]
    for home in filter(None, homes):
        yield from (Path(home, "lib64"), Path(home, "lib"),
                    Path(home, "targets/x86_64-linux/lib"))
    for entry in sys.path if python_path is None else python_path:
        yield from sorted(Path(entry, "nvidia").glob("*/lib"), reverse=True)


def of_the_loader():
    """Libraries by name, as ldconfig lists them."""
    for program in ("ldconfig", "/sbin/ldconfig"):
        try:
            text = subprocess.run([program, "-p"], capture_output=True,
                                  text=True, check=True).stdout
        except (OSError, subprocess.SubprocessError):
            continue
        return {line.split()[0]: Path(line.split()[-1])
                for line in text.splitlines() if " => " in line}
    return {}


def find(name, places, known):
    """A library's path, or None."""
    for folder in places:
        if (folder / name).is_file():
            return folder / name
    return known.get(name)


def link(lib, path):
    target = lib / path.name
    target.unlink(missing_ok=True)
    target.symlink_to(path.absolute())


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    kit = Path(sys.argv[1])
    names = json.loads((kit / "kit.json").read_text(encoding="utf-8"))["vendor"]
    places = [f for f in folders() if f.is_dir()]
    known = of_the_loader()
    for name in names:
        path = find(name, places, known)
        print(f"{name}: {path.resolve() if path else 'not found'}", flush=True)
        if path is None:
            continue
        link(kit / "lib", path)
        if name.startswith(OPENER):
            for opened in path.parent.glob(OPENED):
                link(kit / "lib", opened)


if __name__ == "__main__":
    main()
