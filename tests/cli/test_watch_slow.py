"""A rank that is stopped ends the job within a minute, as it is without any
option.

ctest: slow timeout=200
"""

import os
import re
import signal
import time

import magmax_cli as cli


class WatchSlow(cli.Case):
    def test_a_stopped_rank_ends_the_job_within_a_minute(self):
        cli.make_model(self.dir / "model.json")
        cli.make_npz(self.dir / "data.npz")
        cli.make_head(self.dir / "head.h5")
        save, errors = self.dir / "run", self.dir / "err"
        with open(errors, "w") as err:
            process = cli.start(
                "magmax_train", "--model", self.dir / "model.json",
                "--from-scratch", "--dataset", self.dir / "data.npz",
                "--head", self.dir / "head.h5", "--epochs", 1000000,
                "--no-augment", "--save", save, n_ranks=2, stderr=err)
        self.addCleanup(cli.stop, process)
        log, begin = save / "log.jsonl", time.monotonic()
        while not (log.exists() and log.stat().st_size > 0):
            self.assertLess(time.monotonic() - begin, 100, "no step is logged")
            time.sleep(0.05)
        pid = cli.pids_by_rank(process)[1]
        os.kill(pid, signal.SIGSTOP)
        begin = time.monotonic()
        process.wait(100)
        waited_s = time.monotonic() - begin
        self.assertNotEqual(process.returncode, 0)
        self.assertRegex(errors.read_text(), re.compile(
            rf"^magmax_train: rank 1 \(host \S+, process {pid}\): stuck or "
            r"dead, while others have waited (4[5-9]|5\d) s", re.M))
        self.assertTrue(45 < waited_s < 60, waited_s)


if __name__ == "__main__":
    cli.main()
