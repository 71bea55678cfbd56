#!/usr/bin/python3
"""Whether tests pass on a machine that is busy, and that stands still at times.

Runs ctest several times while hogs keep all cores busy, and stops everything that
runs below ctest for a while at random moments, as a suspended machine does. One
line a round says what failed; the exit code is 1 where anything did. Output of
ctest is kept in BUILD/stress/SEED/.

    tests/stress.py                                   once, everything
    tests/stress.py --rounds 10 -R '^cli.watch'       ten times, these tests

Arguments that are not listed below go to ctest; without -j it gets what test.sh
gives it. Whoever ends this program, by SIGKILL too, leaves nothing running.
"""

import argparse
import ctypes
import os
import random
import signal
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
LIBC = ctypes.CDLL(None)


# ---- processes ----------------------------------------------------------------

def processes():
    """{process: (its parent, its state)} of the machine."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                text = Path(f"/proc/{name}/stat").read_text()
            except OSError:
                continue
            state, parent = text.rsplit(")", 1)[1].split()[:2]
            found[int(name)] = (int(parent), state)
    return found


def generations(apart=()):
    """Processes below this one as lists: its children, theirs, and so on.
    Without zombies, and without those `apart` and what is below them."""
    alive = processes()
    parents, result = {os.getpid()}, []
    while parents:
        parents = {pid for pid, (parent, state) in alive.items()
                   if parent in parents and state not in "ZX"
                   and pid not in apart}
        result.append(sorted(parents))
    return result


def send(pids, number):
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def is_stopped(pid):
    """Whether a process is stopped, or about to be by a signal on its way."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    fields = dict(line.split(":\t", 1) for line in text.splitlines()
                  if ":\t" in line)
    pending = int(fields["SigPnd"], 16) | int(fields["ShdPnd"], 16)
    return fields["State"][0] in "Tt" or bool(
        pending >> (signal.SIGSTOP - 1) & 1)


def is_there(pid):
    return Path(f"/proc/{pid}").exists()


def wait_until_stopped(pids, limit_s=2):
    """Wait, up to the limit: some are in a system call that has to end first."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end and not all(
            is_stopped(pid) or not is_there(pid) for pid in pids):
        time.sleep(0.001)


def stop_everything(apart):
    """Stop what runs below this process, parents first, since they start new
    ones. Gives those that were not stopped already: tests stop some themselves,
    which have to stay so."""
    stopped, seen = [], set()
    while True:
        for generation in generations(apart):
            new = [pid for pid in generation if pid not in seen]
            if new:
                break
        else:
            return stopped
        time.sleep(0.02)  # what a parent has just sent arrives
        seen.update(new)
        new = [pid for pid in new if not is_stopped(pid)]
        send(new, signal.SIGSTOP)
        wait_until_stopped(new)
        stopped += new


def end_everything():
    while True:
        below = [pid for pids in generations() for pid in pids]
        if not below:
            return
        send(below, signal.SIGKILL)
        time.sleep(0.01)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass


def dies_with_parent():
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def start_hogs(n):
    return [subprocess.Popen([sys.executable, "-c", "while True: pass"],
                             preexec_fn=dies_with_parent) for _ in range(n)]


# ---- rounds -------------------------------------------------------------------

def ctest_command(options, results):
    command = ["ctest", "--test-dir", options.build, "--output-on-failure",
               "--no-tests=error", "--output-junit", results, *options.ctest]
    if not any(word.startswith(("-j", "--parallel")) for word in options.ctest):
        command += ["--parallel", str(3 * os.cpu_count())]
    return list(map(str, command))


def disturb(ctest, options, rng, hogs):
    """Until ctest has ended; how often all was stopped."""
    n_stops = 0
    while True:
        pause = rng.uniform(0.2, 1.8) * options.every
        try:
            ctest.wait(pause if options.stop > 0 else None)
            return n_stops
        except subprocess.TimeoutExpired:
            pass
        if options.group:
            os.killpg(ctest.pid, signal.SIGSTOP)
            time.sleep(options.stop)
            os.killpg(ctest.pid, signal.SIGCONT)
        else:
            stopped = stop_everything({hog.pid for hog in hogs})
            time.sleep(options.stop)
            send(reversed(stopped), signal.SIGCONT)
        n_stops += 1


def failures(results):
    """How many tests ran, and the names of those that failed."""
    suite = xml.etree.ElementTree.parse(results).getroot()
    return len(suite), [case.get("name") for case in suite
                        if case.find("failure") is not None]


def run_round(number, options, hogs):
    folder = options.build.resolve() / f"stress/{options.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    results = folder / f"round_{number:03d}.xml"
    results.unlink(missing_ok=True)
    begin = time.monotonic()
    with open(results.with_suffix(".log"), "wb") as log:
        ctest = subprocess.Popen(ctest_command(options, results), stdout=log,
                                 stderr=log, stdin=subprocess.DEVNULL,
                                 start_new_session=True,
                                 preexec_fn=dies_with_parent)
        rng = random.Random(options.seed + number)
        n_stops = disturb(ctest, options, rng, hogs)
    if not results.exists():
        print(f"round {number}: ctest failed: {log.name}", flush=True)
        return False
    n_tests, failed = failures(results)
    verdict = (f"{len(failed)} of {n_tests} failed: {' '.join(failed)}"
               if failed else f"{n_tests} passed")
    print(f"round {number}: {verdict} ({time.monotonic() - begin:.0f} s, stopped "
          f"{n_stops} times)", flush=True)
    return not failed and ctest.returncode == 0


def run_rounds(options, pipe):
    """In a session of its own; ends what it started when `pipe` ends."""
    def watch():
        os.read(pipe, 1)
        end_everything()
        os._exit(1)

    os.setsid()
    LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1)  # daemons' parent, too
    threading.Thread(target=watch, daemon=True).start()
    hogs = start_hogs(options.hogs)
    print(f"seed {options.seed}, {options.hogs} hogs, stops of "
          f"{options.stop:g} s about every {options.every:g} s", flush=True)
    try:
        good = [run_round(number + 1, options, hogs)
                for number in range(options.rounds)]
    finally:
        end_everything()
    print(f"{sum(good)} of {len(good)} rounds passed", flush=True)
    return all(good)


def parse(arguments):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter,
        usage="tests/stress.py [options] [arguments of ctest]")
    add = parser.add_argument
    add("--rounds", type=int, default=1, metavar="N", help="how often")
    add("--build", type=Path, default=ROOT / "build/release", metavar="DIR",
        help="the build whose tests run (build/release)")
    add("--hogs", type=int, default=os.cpu_count(), metavar="N",
        help="processes that do nothing but run (one a core)")
    add("--stop", type=float, default=20, metavar="S",
        help="stop everything for so many seconds at a time (20; 0: never)")
    add("--every", type=float, default=30, metavar="S",
        help="let it run for so many seconds on average in between (30)")
    add("--group", action="store_true",
        help="stop only the process group of ctest, and not what\n"
        "has left it, such as ranks and daemons")
    add("--seed", type=int, default=random.randrange(10**6), metavar="N",
        help="of the random moments (another one each time)")
    options, options.ctest = parser.parse_known_args(arguments)
    return options


def main():
    options = parse(sys.argv[1:])
    lives, held = os.pipe()  # `held` closes when this process ends, however
    worker = os.fork()
    if worker == 0:
        os.close(held)
        os._exit(0 if run_rounds(options, lives) else 1)

    def end(number, _frame):
        os.close(held)
        os.waitpid(worker, 0)
        os._exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    return os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])


if __name__ == "__main__":
    sys.exit(main())
