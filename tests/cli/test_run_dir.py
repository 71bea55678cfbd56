"""A run's folder where two runs meet in it, and one that an older version made.
"""

import fcntl
import json
import os
import pathlib
import subprocess
import time

import magmax_cli as cli


class RunDir(cli.Case):
    def setUp(self):
        super().setUp()
        self.save = self.dir / "run"
        self.arguments = [*self.make_inputs(), "--epochs", 1, "--batch-size", 8,
                          "--warmup-length", 2, "--save", self.save]

    def config(self):
        return json.loads((self.save / "config.json").read_text())

    def wait_until_it_asks_for(self, process, path):
        """Until the process has the file open."""
        files = pathlib.Path(f"/proc/{process.pid}/fd")
        while process.poll() is None:
            try:
                if any(os.path.samefile(file, path) for file in files.iterdir()):
                    return
            except OSError:
                pass  # a file that was just closed
            time.sleep(0.01)
        self.fail("it has ended:\n" + process.communicate()[1])

    def test_a_run_looks_at_the_record_once_the_folder_is_its_own(self):
        cli.run_ok("magmax_train", *self.arguments, "--lr", 1e-3)
        first = self.config()
        for path in self.save.iterdir():
            path.unlink()
        log = self.save / "log.jsonl"
        with open(log, "a") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            second = cli.start("magmax_train", *self.arguments, "--lr", 2e-3,
                               stderr=subprocess.PIPE, text=True)
            self.addCleanup(cli.stop, second)
            self.wait_until_it_asks_for(second, log)
            # The run that holds the folder writes its record only now.
            (self.save / "config.json").write_text(json.dumps(first))
        error = second.communicate()[1]
        self.assertEqual(second.returncode, 1, error)
        self.assertIn("--lr was 0.001 and is 0.002 now", error)
        self.assertEqual(self.config(), first)

    def test_a_folder_that_is_refused_gets_no_log(self):
        self.save.mkdir()
        (self.save / "config.json").write_text("{}")
        proc = cli.run("magmax_train", *self.arguments)
        self.assert_one_line_error(proc, "config.json", "--save")
        self.assertEqual([p.name for p in self.save.iterdir()], ["config.json"])

    def test_a_record_that_is_too_large_is_not_read(self):
        self.save.mkdir()
        with open(self.save / "config.json", "wb") as file:
            file.truncate(600 << 20)
        proc = cli.run("magmax_train", *self.arguments)
        self.assert_one_line_error(proc, "config.json")

    def test_an_option_that_was_not_recorded_had_its_default(self):
        cli.run_ok("magmax_train", *self.arguments)
        config = self.config()
        self.assertEqual(config["options"].pop("seed"), 5)
        (self.save / "config.json").write_text(json.dumps(config))
        cli.run_ok("magmax_train", *self.arguments)
        proc = cli.run("magmax_train", *self.arguments, "--seed", 6)
        self.assert_one_line_error(proc, "--seed was 5 and is 6 now")


if __name__ == "__main__":
    cli.main()
