"""A rank that is stopped ends the job without any option.

ctest: slow
"""

import os
import re
import signal

import magmax_cli as cli


class WatchSlow(cli.Case):
    def test_a_stopped_rank_ends_the_job_after_45_seconds_of_waiting(self):
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
        log = save / "log.jsonl"
        cli.wait_until(lambda: log.exists() and log.stat().st_size > 0,
                       lambda: "a step was logged", process)
        pid = cli.pids_by_rank(process)[1]
        os.kill(pid, signal.SIGSTOP)
        process.wait(cli.DEADLINE_S)
        self.assertNotEqual(process.returncode, 0)
        self.assertRegex(errors.read_text(), re.compile(
            rf"^magmax_train: rank 1 \(host \S+, process {pid}\): stuck or "
            r"dead, while others have waited 45 s", re.M))


if __name__ == "__main__":
    cli.main()
