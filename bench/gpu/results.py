"""The results file of bench/gpu/all.sh, and what runs its steps.

One JSON object a line. The first of a session says what machine it is
({"machine": {...}}); every other one is a step:

    {"stage": "test", "step": "op.fill.cuda", "status": "passed", "seconds": 1.2,
     "source": "3f...", "device": "NVIDIA ...", "emulated": false, "date": "...",
     "command": "...", "data": [...], "reason": "..."}

status: passed, failed (reason has the end of the output), not run (reason says
why). A step is done when there is such a line for the same source, device and
mode; one that the end of the stage cut off has none and runs again.
"""

import concurrent.futures
import ctypes
import datetime
import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

# What the results depend on.
SOURCES = ("CMakeLists.txt", "kernels", "comm", "io", "src", "tests", "bench")
REASON_CHARS = 1500
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)
RUNNING = set()  # process groups


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


class Step:
    """A command whose result is a line. `parse` makes data out of its standard
    output; without it only the exit code counts. `refusals` are texts in its
    output that make a failure a "not run"."""

    def __init__(self, name, command, env=None, timeout=120, parse=None,
                 refusals=(), skip_code=77, wanted_code=0, cwd=None):
        self.name = name
        self.command = [str(word) for word in command]
        self.env = env or {}
        self.timeout = timeout
        self.parse = parse
        self.refusals = refusals
        self.skip_code = skip_code
        self.wanted_code = wanted_code
        self.cwd = cwd


class Results:
    """The file, and the deadline of the stage that is running."""

    def __init__(self, path, machine, source, emulated, out=None):
        self.path = Path(path)
        self.machine = machine
        self.source = source
        self.emulated = emulated
        self.out = out
        self.deadline = None
        self.lock = threading.Lock()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.replace(self.records())  # without a line that was cut off
        self.write({"machine": machine, "source": source, "emulated": emulated,
                    "date": self.now()})

    @staticmethod
    def now():
        return datetime.datetime.now(datetime.timezone.utc).strftime(
            "%Y-%m-%d %H:%M")

    def write(self, record):
        with self.lock:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
            if self.out:
                Path(self.out).mkdir(parents=True, exist_ok=True)
                copy = Path(self.out) / "results.jsonl"
                shutil.copy(self.path, f"{copy}.new")
                os.replace(f"{copy}.new", copy)

    def replace(self, records):
        """The whole file, so that there is one whenever this is cut off."""
        text = "".join(json.dumps(r) + "\n" for r in records)
        new = self.path.with_suffix(".new")
        new.write_text(text, encoding="utf-8")
        os.replace(new, self.path)

    def records(self):
        return read_records(self.path)

    def done(self, stage):
        """What has a result, by name, for this source, device and mode."""
        return {r["step"]: r for r in self.records()
                if r.get("stage") == stage and r["source"] == self.source
                and r["emulated"] == self.emulated
                and r["device"] == self.machine["device"]}

    def forget(self, stage):
        self.replace(r for r in self.records() if r.get("stage") != stage)

    def begin_stage(self, limit_s):
        self.deadline = time.monotonic() + limit_s

    def left_s(self):
        return self.deadline - time.monotonic()

    def add(self, stage, name, status, seconds=0.0, command="", **more):
        record = {"stage": stage, "step": name, "status": status,
                  "seconds": round(seconds, 2), "source": self.source,
                  "device": self.machine["device"], "emulated": self.emulated,
                  "date": self.now(), "command": command,
                  **{k: v for k, v in more.items() if v is not None}}
        self.write(record)
        reason = more.get("reason")
        print(f"{stage:9} {status:7} {seconds:7.1f} s  {name}" +
              (": " + reason.strip().splitlines()[-1][:100] if reason else ""),
              flush=True)
        return record

    def run(self, stage, step):
        """Run one step; None where the stage's time ends it first."""
        left = self.left_s()
        if left < 1:
            return None
        begin = time.monotonic()
        try:
            code, output = call(step, min(step.timeout, left))
        except FileNotFoundError as error:
            code, output = 127, f"there is no {error.filename}"
        seconds = time.monotonic() - begin
        shown = shlex.join(step.command)
        if code is None:
            if seconds < step.timeout - 0.5:
                return None
            return self.add(stage, step.name, "failed", seconds, shown,
                            reason=output[-REASON_CHARS:] +
                            f"\nended after {step.timeout} s")
        if code == step.skip_code:
            return self.add(stage, step.name, "not run", seconds, shown,
                            reason=output[-REASON_CHARS:])
        data, reason = None, output[-REASON_CHARS:]
        try:
            if code == step.wanted_code:
                data = step.parse(output) if step.parse else None
                return self.add(stage, step.name, "passed", seconds, shown,
                                data=data)
        except (ValueError, KeyError) as error:
            reason += f"\n{error!r}"
        # A tool that refuses may end well, without what it was to give.
        refused = [line for line in output.splitlines()
                   if any(text in line for text in step.refusals)]
        return self.add(stage, step.name, "not run" if refused else "failed",
                        seconds, shown, reason=refused[0] if refused
                        else reason.strip() or f"exit code {code}")

    def run_all(self, stage, steps, jobs):
        """Run what has no result yet; how many steps are left over."""
        done = self.done(stage)
        waiting = [s for s in steps if s.name not in done]
        with concurrent.futures.ThreadPoolExecutor(max(1, jobs)) as pool:
            ended = list(pool.map(lambda s: self.run(stage, s), waiting))
        return sum(1 for record in ended if record is None)


def read_records(path):
    """All whole lines of a results file."""
    records = []
    if Path(path).exists():
        for line in Path(path).read_text(encoding="utf-8").splitlines():
            try:
                records.append(json.loads(line))
            except ValueError:
                continue  # a line that was cut off
    return records


def in_own_group():
    """In a new process: a group to end as a whole, but no session of its own,
    which would outlive whoever started us; and an end with us."""
    os.setpgid(0, 0)
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def end_group(group, with_signal):
    try:
        os.killpg(group, with_signal)
    except ProcessLookupError:
        pass


def end_all(number, _frame):
    """A handler of signals: leave nothing running."""
    for group in list(RUNNING):
        end_group(group, signal.SIGKILL)
    os._exit(128 + number)


def call(step, timeout_s):
    """Exit code (None: time is up) and output. The whole process group ends."""
    with subprocess.Popen(step.command, env={**os.environ, **step.env},
                          cwd=step.cwd, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                          text=True, errors="replace",
                          preexec_fn=in_own_group) as process:
        RUNNING.add(process.pid)
        try:
            output, _ = process.communicate(timeout=timeout_s)
            return process.returncode, output
        except subprocess.TimeoutExpired:
            end_group(process.pid, signal.SIGTERM)
            try:
                output, _ = process.communicate(timeout=5)
            except subprocess.TimeoutExpired:
                end_group(process.pid, signal.SIGKILL)
                output, _ = process.communicate()
            return None, output
        finally:
            end_group(process.pid, signal.SIGKILL)
            RUNNING.discard(process.pid)


def json_lines(output):
    """The JSON objects among a program's lines; at least one."""
    rows = [json.loads(line) for line in output.splitlines()
            if line.startswith("{")]
    if not rows:
        raise ValueError("no JSON line in the output")
    return rows
