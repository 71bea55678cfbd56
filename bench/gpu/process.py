"""Runs a step: a command with a time limit, whose processes all end with it, and
what its ending means."""

import ctypes
import json
import os
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

# A step ends as one of these; what was cut off or left over may run later.
PASSED, FAILED, NOT_RUN = "passed", "failed", "not run"
CUT_OFF, LEFT_OVER = "cut off", "left over"

REASON_LINES = 40
LINE_CHARS = 300
SKIPPED = 77  # exit code of a test that cannot run here
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)
RUNNING = set()  # process groups


@dataclass
class Step:
    """A command whose result is a record. `parse` makes data out of its output;
    without it only the exit code counts. `refusals` are texts in its output that
    make a failure a "not run". It starts only where `least` seconds are left,
    and where the step named by `needs` has passed."""
    name: str
    command: list
    env: dict = field(default_factory=dict)
    timeout: float = 60
    least: float = 3
    parse: object = None
    refusals: tuple = ()
    wanted_code: int = 0
    needs: str = None
    not_run: str = None  # a reason that is known beforehand
    broken: str = None   # likewise, why it has failed
    cwd: object = None

    def __post_init__(self):
        self.command = [str(word) for word in self.command]


@dataclass
class Ending:
    status: str
    seconds: float = 0.0
    output: str = ""
    data: object = None
    reason: str = None


def in_own_group():
    """In the new process: a process group of its own, which is ended as a whole,
    but the same session, and a signal when this process ends."""
    os.setpgid(0, 0)
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def descendants(pid):
    """A process's children and theirs, whatever groups they are in."""
    children = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue  # it has ended
        parent = int(text.rsplit(")", 1)[1].split()[1])
        children.setdefault(parent, []).append(int(stat.parent.name))
    found, waiting = [], [pid]
    while waiting:
        of_one = children.get(waiting.pop(), [])
        found += of_one
        waiting += of_one
    return found


def send(kill, pid, number):
    try:
        kill(pid, number)
    except ProcessLookupError:
        pass


def end_process(process, patience_s):
    """End it and all that it has started, but for processes that the kernel does
    not let end."""
    others = descendants(process.pid)
    send(os.killpg, process.pid, signal.SIGTERM)
    for number in (signal.SIGKILL, signal.SIGKILL):
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            pass
        send(os.killpg, process.pid, number)
        for pid in others:
            send(os.kill, pid, number)


def end_all():
    """Leave nothing running."""
    for group in list(RUNNING):
        for pid in descendants(group):
            send(os.kill, pid, signal.SIGKILL)
        send(os.killpg, group, signal.SIGKILL)


def call(step, timeout_s):
    """Exit code (None: time is up) and output, which goes through a file: a
    process that outlives the step could keep a pipe open without end."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            step.command, env={**os.environ, **step.env}, cwd=step.cwd,
            stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            preexec_fn=in_own_group)
        RUNNING.add(process.pid)
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            code = None
            end_process(process, 2)
        finally:
            send(os.killpg, process.pid, signal.SIGKILL)
            RUNNING.discard(process.pid)
        output.seek(0)
        return code, output.read().decode(errors="replace")


def tail(output):
    lines = [line[:LINE_CHARS] for line in output.rstrip().splitlines()]
    return "\n".join(lines[-REASON_LINES:])


def run_step(step, left_s):
    """Run one step in its own time limit, or what is left of its group's."""
    if step.broken:
        return Ending(FAILED, reason=step.broken)
    if step.not_run:
        return Ending(NOT_RUN, reason=step.not_run)
    if left_s < step.least:
        return Ending(LEFT_OVER, reason=f"{max(left_s, 0):.0f} s were left")
    limit_s = min(step.timeout, left_s)
    begin = time.monotonic()
    try:
        code, output = call(step, limit_s)
    except OSError as error:
        # What is called by its name alone is the machine's; the rest is ours.
        status = FAILED if os.sep in step.command[0] else NOT_RUN
        return Ending(status, reason=f"{error.filename}: {error.strerror}")
    ending = ending_of(step, code, output)
    ending.seconds, ending.output = time.monotonic() - begin, output
    if code is None:
        ending.status = FAILED if limit_s == step.timeout else CUT_OFF
        ending.reason = f"{ending.reason}\nended after {limit_s:.0f} s".strip()
    return ending


def ending_of(step, code, output):
    """What an exit code and an output mean. The data of a failed step are kept
    too: what it printed before it failed was measured."""
    data, problem = None, None
    try:
        data = step.parse(output) if step.parse else None
    except Exception as error:  # an output may be anything
        problem = f"{type(error).__name__}: {error}"
    if code == step.wanted_code and problem is None:
        return Ending(PASSED, data=data)
    # A tool that refuses may end well, without what it was to give.
    refused = [line for line in output.splitlines()
               if any(text in line for text in step.refusals)]
    if refused:
        return Ending(NOT_RUN, reason=refused[0][:LINE_CHARS])
    if code == SKIPPED:
        return Ending(NOT_RUN, reason=tail(output))
    reason = tail(output)
    if code == step.wanted_code:
        reason += f"\n{problem}"
    elif code is not None:
        reason += f"\nended with {code}" if code >= 0 else \
            f"\nended by {signal.Signals(-code).name}"
    return Ending(FAILED, data=data, reason=reason.strip())


def json_lines(output):
    """The JSON objects among a program's lines; at least one."""
    rows = []
    for line in output.splitlines():
        if line.startswith("{"):
            try:
                rows.append(json.loads(line))
            except ValueError:
                continue  # a line that was cut off
    if not rows:
        raise ValueError("no JSON line in the output")
    return rows
