#!/usr/bin/env python3
"""Unpack Debian packages into a folder from which they work, on any x86-64
Linux whose C library is no older, without dpkg, root or a network.

    prefix.py PACKAGES PREFIX [--check]

PACKAGES holds .deb files and SHA256SUMS (bench/gpu/packages.sh makes it).
PREFIX is made anew, or left alone where it holds these very packages. In it are
usr/ as the packages have it, links kept inside; bin/ with mpirun and pkg-config
as programs that find their libraries and files there. bench/gpu/prefix.cmake
tells CMake about it.

--check: also require that every library named by the programs and libraries in
it is there, but for those that come with a compiler.
"""

import hashlib
import io
import lzma
import os
import re
import shutil
import struct
import subprocess
import sys
import tarfile
from pathlib import Path

# ELF: the dynamic section, and its entries for search paths.
PT_DYNAMIC, DT_RPATH, DT_RUNPATH, DT_IGNORED = 2, 15, 29, 0x6000000d

LIB = "usr/lib/x86_64-linux-gnu"
# Open MPI starts by these names; they need LD_LIBRARY_PATH, which must not
# reach anything but Open MPI: a Python of the machine would load our OpenSSL.
MPI_PROGRAMS = ("orterun", "orted")
# What comes with glibc and gcc.
OF_THE_MACHINE = re.compile(
    r"(ld-linux-x86-64|lib(c|m|dl|rt|pthread|resolv|gcc_s|gomp|stdc\+\+"
    r"|atomic))\.so")
# Plug-ins for networks and schedulers that one machine has no use for.
NOT_NEEDED = re.compile(r"ucx|ofi|psm|openib|usnic|verbs|slurm|netlink")


def fail(text):
    sys.exit(f"prefix: {text}")


def archive_members(path):
    """Names and bytes in an ar archive, which a .deb is."""
    data = path.read_bytes()
    if data[:8] != b"!<arch>\n":
        fail(f"{path}: not a Debian package")
    at = 8
    while at + 60 <= len(data):
        name = data[at:at + 16].decode().strip().rstrip("/")
        size = int(data[at + 48:at + 58])
        yield name, data[at + 60:at + 60 + size]
        at += 60 + size + size % 2


def files_of(path):
    """The package's file tree as an open tar archive."""
    for name, data in archive_members(path):
        if name == "data.tar.xz":
            return tarfile.open(fileobj=io.BytesIO(lzma.decompress(data)))
        if name.startswith("data.tar"):
            fail(f"{path}: {name} is not compressed as Debian 12 does it (xz)")
    fail(f"{path}: holds no files")


def unpack(package, prefix):
    with files_of(package) as tree:
        for member in tree:
            member.name = os.path.normpath(member.name)
            if member.name.startswith((".", "/", "usr/share/doc", "usr/share/man",
                                       "usr/share/locale")):
                continue
            # /lib is /usr/lib on every Debian since 12.
            if member.name == "lib" or member.name.startswith("lib/"):
                member.name = "usr/" + member.name
            if member.issym() and member.linkname.startswith("/"):
                target = member.linkname.removeprefix("/")
                if target.startswith("lib/"):
                    target = "usr/" + target
                member.linkname = os.path.relpath(
                    target, os.path.dirname(member.name))
            if member.name.endswith(".a") or member.isdir():
                continue
            tree.extract(member, prefix, set_attrs=True, numeric_owner=False,
                         **({"filter": "tar"} if sys.version_info >= (3, 12)
                            else {}))


def write_program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + text, encoding="utf-8")
    path.chmod(0o755)


def add_programs(prefix):
    """Programs that know where they lie."""
    lib = prefix / LIB
    for name in MPI_PROGRAMS:
        program = prefix / "usr/bin" / name
        program.rename(program.with_name(name + ".bin"))
        # Programs that it starts may have the driver from there.
        write_program(program, f"LD_LIBRARY_PATH='{lib}'"
                      "${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} "
                      f"exec '{program}.bin' \"$@\"\n")
    write_program(
        prefix / "bin/mpirun",
        f". '{prefix}/environment'\nexec '{prefix}/usr/bin/orterun' \"$@\"\n")
    write_program(
        prefix / "bin/pkg-config",
        f"export PKG_CONFIG_SYSROOT_DIR='{prefix}' "
        f"PKG_CONFIG_LIBDIR='{lib}/pkgconfig:{prefix}/usr/lib/pkgconfig:"
        f"{prefix}/usr/share/pkgconfig'\n"
        f"LD_LIBRARY_PATH='{lib}' exec '{prefix}/usr/bin/pkgconf' \"$@\"\n")


def write_environment(prefix):
    """What every program that calls MPI runs with."""
    lib = prefix / LIB
    variables = {
        "OPAL_PREFIX": f"{prefix}/usr",
        "OPAL_LIBDIR": f"{lib}/openmpi/lib",
        "OPAL_DATADIR": f"{prefix}/usr/share",
        "OPAL_SYSCONFDIR": f"{prefix}/etc",
        "PMIX_INSTALL_PREFIX": f"{lib}/pmix2",
        "PMIX_MCA_mca_base_component_path": f"{lib}/pmix2/lib/pmix",
        "OMPI_MCA_mca_base_component_path": f"{lib}/openmpi/lib/openmpi3",
        "OMPI_MCA_mca_base_component_show_load_errors": "0",
        "OMPI_MCA_btl": "self,vader,tcp",
        "OMPI_MCA_pml": "ob1",
        "OMPI_MCA_plm": "isolated",
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }
    (prefix / "environment").write_text(
        "".join(f"export {k}='{v}'\n" for k, v in variables.items()),
        encoding="utf-8")


def elf_files(prefix):
    for path in sorted(prefix.rglob("*")):
        if path.is_file() and not path.is_symlink():
            with open(path, "rb") as file:
                if file.read(4) == b"\x7fELF":
                    yield path


def forget_own_paths(path):
    """Have the loader ignore a library's own search path, /usr/lib/...: where
    there is one, it no longer asks for that of the program (DT_RPATH)."""
    data = bytearray(path.read_bytes())
    if data[4] != 2:  # 64 bits
        return
    at, size, n = (struct.unpack_from(f, data, o)[0] for f, o in
                   (("<Q", 32), ("<H", 54), ("<H", 56)))
    changed = False
    for header in range(at, at + size * n, size):
        kind, _, offset, _, _, n_bytes = struct.unpack_from("<IIQQQQ", data,
                                                            header)
        if kind != PT_DYNAMIC:
            continue
        for entry in range(offset, offset + n_bytes, 16):
            if struct.unpack_from("<Q", data, entry)[0] in (DT_RPATH,
                                                            DT_RUNPATH):
                struct.pack_into("<Q", data, entry, DT_IGNORED)
                changed = True
    if changed:
        path.write_bytes(data)


def missing_libraries(prefix):
    there = {path.name for path in prefix.rglob("*.so*")}
    for path in elf_files(prefix):
        if NOT_NEEDED.search(path.name) or (
                path.parent.name == "bin" and
                path.name.removesuffix(".bin") not in MPI_PROGRAMS + ("pkgconf",)):
            continue
        text = subprocess.run(["readelf", "-d", path], check=True, text=True,
                              capture_output=True).stdout
        for name in re.findall(r"\(NEEDED\).*\[(.*)\]", text):
            if name not in there and not OF_THE_MACHINE.match(name):
                yield f"{path.relative_to(prefix)} needs {name}"


def checked_packages(folder):
    """The packages, each with the checksum that it was collected with."""
    sums = folder / "SHA256SUMS"
    if not sums.is_file():
        fail(f"{folder} holds no SHA256SUMS: make it with bench/gpu/packages.sh")
    packages = []
    for line in sums.read_text(encoding="utf-8").splitlines():
        digest, name = line.split(maxsplit=1)
        path = folder / name.lstrip("*")
        if not path.is_file():
            fail(f"{path} is missing: run bench/gpu/packages.sh again")
        if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            fail(f"{path} is damaged: run bench/gpu/packages.sh again")
        packages.append(path)
    return packages, sums.read_text(encoding="utf-8")


def main():
    if len(sys.argv) < 3 or sys.argv[3:] not in ([], ["--check"]):
        sys.exit(__doc__)
    folder, prefix = Path(sys.argv[1]), Path(sys.argv[2]).absolute()
    packages, contents = checked_packages(folder)
    mark = prefix / "contents"
    if mark.is_file() and mark.read_text(encoding="utf-8") == contents:
        return
    shutil.rmtree(prefix, ignore_errors=True)
    prefix.mkdir(parents=True)
    for package in packages:
        unpack(package, prefix)
    for path in elf_files(prefix):
        forget_own_paths(path)
    add_programs(prefix)
    write_environment(prefix)
    if "--check" in sys.argv:
        missing = list(missing_libraries(prefix))
        if missing:
            fail("libraries are missing:\n  " + "\n  ".join(missing))
    mark.write_text(contents, encoding="utf-8")


main()
