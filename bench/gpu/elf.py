"""Programs and shared libraries (ELF, 64 bits): what they load and where they
look for it."""

import re
import struct
import subprocess

PT_LOAD, PT_DYNAMIC = 1, 2
DT_NULL, DT_NEEDED, DT_STRTAB, DT_RPATH, DT_RUNPATH = 0, 1, 5, 15, 29
DT_IGNORED = 0x6000000d
LOADER = "/lib64/ld-linux-x86-64.so.2"
# glibc, which is the machine's: it belongs to its kernel and name services.
OF_THE_MACHINE = re.compile(
    r"(linux-vdso|ld-linux-x86-64|lib(c|m|dl|rt|pthread|resolv|util|anl))\.so")


def is_elf(path):
    if path.is_symlink() or not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(5) == b"\x7fELF\x02"


class Dynamic:
    """The dynamic section of a file: entries as (offset in the file, tag,
    value)."""

    def __init__(self, path):
        self.path = path
        self.data = bytearray(path.read_bytes())
        at, size, n = (struct.unpack_from(f, self.data, o)[0]
                       for f, o in (("<Q", 32), ("<H", 54), ("<H", 56)))
        headers = [struct.unpack_from("<IIQQQQ", self.data, at + i * size)
                   for i in range(n)]
        self.loaded = [(address, offset, n_bytes) for
                       kind, _, offset, address, _, n_bytes in headers
                       if kind == PT_LOAD]
        self.entries = []
        for kind, _, offset, _, _, n_bytes in headers:
            if kind == PT_DYNAMIC:
                for entry in range(offset, offset + n_bytes, 16):
                    tag, value = struct.unpack_from("<QQ", self.data, entry)
                    if tag == DT_NULL:
                        break
                    self.entries.append((entry, tag, value))

    def string_at(self, value):
        """Where a string of the dynamic section lies in the file, and it."""
        table = next(v for _, tag, v in self.entries if tag == DT_STRTAB)
        at = value + next(
            table - address + offset for address, offset, n_bytes
            in self.loaded if address <= table < address + n_bytes)
        return at, self.data[at:self.data.index(0, at)].decode()

    def strings(self, *tags):
        return [self.string_at(v)[1] for _, tag, v in self.entries
                if tag in tags]


def needed(path):
    return Dynamic(path).strings(DT_NEEDED)


def forget_search_path(path):
    """Have the loader ignore a library's own: where there is one, it no longer
    asks for that of the program (DT_RPATH)."""
    dynamic = Dynamic(path)
    for entry, tag, _ in dynamic.entries:
        if tag in (DT_RPATH, DT_RUNPATH):
            struct.pack_into("<Q", dynamic.data, entry, DT_IGNORED)
    path.write_bytes(dynamic.data)


def set_search_path(path, text):
    """Make a program's own, which must be as long at least, this DT_RPATH."""
    dynamic = Dynamic(path)
    for entry, tag, value in dynamic.entries:
        if tag in (DT_RPATH, DT_RUNPATH):
            at, old = dynamic.string_at(value)
            if len(old) >= len(text):
                struct.pack_into("<Q", dynamic.data, entry, DT_RPATH)
                dynamic.data[at:at + len(old)] = text.encode().ljust(len(old),
                                                                     b"\0")
                path.write_bytes(dynamic.data)
                return
    raise ValueError(f"{path} has no search path to put {text} into")


def loaded_libraries(paths):
    """Name and path (None: not found) of every library that the loader takes
    for these files: what ldd prints, without its shell."""
    return parse_ldd("".join(
        subprocess.run([LOADER, "--list", path], capture_output=True, text=True,
                       check=False).stdout for path in paths))


def parse_ldd(text):
    found = {}
    for name, path in re.findall(r"^\s+(\S+) => (not found|/.*?)(?: \(0x|$)",
                                 text, re.M):
        if path != "not found":
            found[name] = path
        else:
            found.setdefault(name, None)
    return found


def newest_glibc(paths):
    """The version of glibc that these files ask for."""
    versions = set()
    for path in paths:
        versions |= set(re.findall(rb"GLIBC_(\d+)\.(\d+)", path.read_bytes()))
    newest = max(((int(a), int(b)) for a, b in versions), default=(2, 0))
    return f"{newest[0]}.{newest[1]}"
