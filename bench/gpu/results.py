"""The results file of bench/gpu/run.py: one JSON object per line.

The first of a session says what ran where ({"machine": {...}, ...}); every other
one is a step:

    {"group": "tests", "step": "op.fill.cuda", "status": "passed", "seconds": 1.2,
     "source": "3f...", "kit": "9a...", "device": "NVIDIA ...", "emulated": false,
     "date": "...", "command": "...", "data": [...], "reason": "..."}

status: passed, failed, not run (it cannot run here), cut off (by the limit of its
group or of all; data until then count), left over (no time to start it). reason
has the end of the output. The last line of a step counts.
"""

import datetime
import hashlib
import json
import os
import threading
from collections import Counter
from pathlib import Path

# What the results depend on.
SOURCES = ("CMakeLists.txt", "kernels", "comm", "io", "src", "tests", "bench")
# Results count together where all of these are the same.
IDENTITY = ("source", "kit", "device", "emulated")


def source_digest(root):
    digest = hashlib.sha256()
    for top in SOURCES:
        path = Path(root) / top
        files = [path] if path.is_file() else sorted(path.rglob("*"))
        for file in files:
            if file.suffix in (".c", ".h", ".cu", ".cuh", ".cpp", ".py", ".sh",
                               ".txt", ".cmake") and "golden" not in file.parts:
                digest.update(file.relative_to(root).as_posix().encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def now():
    return datetime.datetime.now(datetime.timezone.utc).strftime(
        "%Y-%m-%d %H:%M")


def identity_of(record):
    return tuple(record.get(key) for key in IDENTITY)


def read_records(path):
    """All whole lines of a results file."""
    records = []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            continue  # a line that was cut off
    return records


def write_whole(path, text):
    """There is a whole file, the old one or the new, whenever this ends."""
    new = Path(f"{path}.new")
    new.write_text(text, encoding="utf-8")
    os.replace(new, path)


class Results:
    """Records in memory, written as a whole file after every one."""

    def __init__(self, path, identity, machine, before=(), changed=None):
        self.path = Path(path)
        self.identity = identity
        self.records = list(before)
        self.changed = changed or (lambda results: None)
        self.lock = threading.Lock()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.write({"machine": machine, **identity, "date": now()})

    def write(self, record):
        with self.lock:
            self.records.append(record)
            write_whole(self.path, "".join(json.dumps(r) + "\n"
                                           for r in self.records))
            self.changed(self)

    def add(self, group, step, ending):
        record = {"group": group, "step": step.name, "status": ending.status,
                  "seconds": round(ending.seconds, 2), **self.identity,
                  "date": now(), "command": " ".join(step.command)}
        for key in ("data", "reason"):
            if getattr(ending, key) is not None:
                record[key] = getattr(ending, key)
        self.write(record)
        return record

    def of_steps(self):
        """The last record of every step, of this session's identity."""
        return View(self.records, identity_of(self.identity)).steps


class View:
    """What a results file says of one identity: by default the one that most of
    its steps have, so that a short call on another card hides nothing."""

    def __init__(self, records, identity=None):
        counted = Counter(identity_of(r) for r in records if r.get("step"))
        if identity is None and counted:
            identity = counted.most_common(1)[0][0]
        mine = [r for r in records if identity_of(r) == identity]
        self.identity = dict(zip(IDENTITY, identity or [None] * len(IDENTITY)))
        self.n_others = sum(counted.values()) - counted.get(identity, 0)
        self.machine = next((r["machine"] for r in reversed(mine)
                             if "machine" in r), None)
        self.steps = {r["step"]: r for r in mine if r.get("step")}

    def data(self, step):
        return self.steps.get(step, {}).get("data") or []

    def of_group(self, group):
        return [r for r in self.steps.values() if r["group"] == group]

    def groups(self):
        return list(dict.fromkeys(r["group"] for r in self.steps.values()))
