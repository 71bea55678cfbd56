"""tests/stress.py itself: it names what fails, stops everything and nothing for
good, and leaves nothing behind.
"""

import signal
import subprocess
import sys
from pathlib import Path

import magmax_cli as cli

# Starts a program that it stops, and one that leaves it as a daemon does.
FAMILY = """
import os, pathlib, signal, subprocess, time
stopped = subprocess.Popen(["sleep", "3000"])
stopped.send_signal(signal.SIGSTOP)
daemon = subprocess.run(["setsid", "sh", "-c", "sleep 3000 >&- 2>&- & echo $!"],
                        stdout=subprocess.PIPE, text=True).stdout
pathlib.Path("pids.new").write_text(f"{os.getpid()} {stopped.pid} {daemon}")
os.rename("pids.new", "pids")
time.sleep(3000)
"""


def state(pid):
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


class Stress(cli.Case):
    def stress(self, tests, *options):
        (self.dir / "CTestTestfile.cmake").write_text("".join(
            f"add_test({name} {' '.join(map(str, command))})\n"
            for name, command in tests.items()))
        process = subprocess.Popen(
            [sys.executable, cli.SOURCE / "tests/stress.py", "--build",
             self.dir, "--hogs", "1", *options], cwd=self.dir, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.terminate)
        return process

    def test_rounds_say_what_failed(self):
        tests = {"good": ["true"], "bad": ["false"], "worse": ["false"]}
        process = self.stress(tests, "--stop", "0", "--rounds", "2")
        out, _ = process.communicate(timeout=cli.DEADLINE_S)
        self.assertEqual(process.returncode, 1, out)
        for text in ("seed", "round 1: 2 of 3 failed: bad worse (", "round 2:",
                     "0 of 2 rounds passed"):
            self.assertIn(text, out)
        process = self.stress(tests, "--stop", "0", "-R", "good")
        out, _ = process.communicate(timeout=cli.DEADLINE_S)
        self.assertEqual(process.returncode, 0, out)
        self.assertIn("round 1: 1 passed (", out)

    def test_all_is_stopped_and_goes_on_but_for_what_was_stopped_before(self):
        (self.dir / "family.py").write_text(FAMILY)
        for number in (signal.SIGKILL, signal.SIGTERM):
            (self.dir / "pids").unlink(missing_ok=True)
            process = self.stress(
                {"family": [sys.executable, self.dir / "family.py"]},
                "--stop", "0.5", "--every", "0.5")
            cli.wait_until((self.dir / "pids").exists,
                           lambda: "the test ran", process)
            pids = list(map(int, (self.dir / "pids").read_text().split()))
            first, stopped, daemon = pids
            for _ in range(2):
                for pid in (first, daemon):
                    cli.wait_until(lambda pid=pid: state(pid) == "T",
                                   lambda: "it was stopped", process)
                    cli.wait_until(lambda pid=pid: state(pid) == "S",
                                   lambda: "it went on", process)
                self.assertEqual(state(stopped), "T")
            process.send_signal(number)
            process.wait(cli.DEADLINE_S)
            cli.wait_until(lambda: not any(map(cli.runs, pids)),
                           lambda: "all of them were gone")


if __name__ == "__main__":
    cli.main()
