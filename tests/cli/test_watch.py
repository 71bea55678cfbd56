"""What becomes of ranks that wait for one that is stopped, or slow, wherever
they wait.

ctest: processors=1
"""

import contextlib
import os
import re
import signal

import numpy as np

import magmax_cli as cli

LIMIT_S = 2


class Watch(cli.Case):
    def setUp(self):
        super().setUp()
        self.env = {}
        rng = np.random.default_rng(7)
        config = cli.make_model(self.dir / "model.json")
        for i in range(3):
            cli.write_safetensors(self.dir / f"task{i}.safetensors",
                                  cli.random_weights(config, seed=i))
        cli.make_head(self.dir / "head.h5", n_classes=2)
        for split, name in enumerate(("train", "test")):
            for i in range(12):
                path = self.dir / f"data/{name}/{'ab'[i % 2]}/{i:02d}.ppm"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"P6 8 8 255\n" + rng.integers(
                    0, 256, (8, 8, 3), np.uint8).tobytes())
        self.common = ["--model", self.dir / "model.json", "--dataset",
                       self.dir / "data", "--head", self.dir / "head.h5",
                       "--load", self.dir / "task0.safetensors"]

    @contextlib.contextmanager
    def held(self, path):
        """Programs that open a file whose path ends so wait until the body is
        left, as for a file system that is slow (held_open.c)."""
        marker = self.dir / "held"
        marker.touch()
        self.env = {
            "LD_PRELOAD": cli.TEST_BIN / "libheld_open.so",
            "HELD_FILE": path, "HELD_WHILE": marker,
            "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "")
            + ":verify_asan_link_order=0"}
        try:
            yield
        finally:
            marker.unlink()
            self.env = {}

    def start(self, program, *args):
        with open(self.dir / "err", "w") as err:
            process = cli.start(program, *args, "--rank-timeout", LIMIT_S,
                                n_ranks=3, env=self.env, stderr=err, stdout=err)
        self.addCleanup(cli.stop, process)
        return process

    def train(self, *args):
        return self.start("magmax_train", *self.common, "--batch-size", 6,
                          "--no-augment", "--save", self.dir / "run", *args)

    def evaluate(self):
        return self.start("magmax_eval", *self.common, "--batch-size", 1,
                          "--workers", 1)

    def merge(self):
        return self.start("magmax_merge", self.dir / "task1.safetensors",
                          self.dir / "task2.safetensors", "--pretrained",
                          self.dir / "task0.safetensors", "-o",
                          self.dir / "merged.h5")

    def err(self):
        return (self.dir / "err").read_text()

    def wait_until(self, process, is_so, what):
        cli.wait_until(is_so, lambda: f"{what}\n{self.err()}", process)

    def wait_for_line(self, process, rank, n_lines=1):
        """The log mentions a wait for a rank that works, n times."""
        pid = cli.pids_by_rank(process).get(rank)
        line = (rf"\d of 3 ranks have waited \d+ s for rank {rank} \(host \S+, "
                r"process (\d+)\), still at work\n")
        self.wait_until(process,
                        lambda: len(re.findall(line, self.err())) >= n_lines,
                        f"there was a line of a wait for rank {rank}")
        pid = pid or cli.pids_by_rank(process)[rank]
        self.assertEqual({int(p) for p in re.findall(line, self.err())}, {pid})

    def assert_goes_on(self, process):
        self.assertEqual(process.wait(cli.DEADLINE_S), 0, self.err())

    def assert_ends_naming(self, process, rank, pids):
        process.wait(cli.DEADLINE_S)
        self.assertNotEqual(process.returncode, 0)
        lines = [line for line in self.err().splitlines()
                 if re.match("magmax_[a-z]+: (?!warning)", line)]
        self.assertEqual(len(lines), 1, self.err())
        self.assertRegex(
            lines[0], rf": rank {rank} \(host \S+, process {pids[rank]}\): "
            r"stuck or dead, .*--rank-timeout")

    def check_stopped(self, process, rank):
        pids = cli.pids_by_rank(process)
        os.kill(pids[rank], signal.SIGSTOP)
        self.assert_ends_naming(process, rank, pids)

    # ---- a rank that is slow -----------------------------------------------

    def test_a_checkpoint_that_is_written_slowly_is_waited_for(self):
        with self.held("run/task_000.h5.tmp"):
            process = self.train("--epochs", 1)
            self.wait_for_line(process, 0, n_lines=2)
        self.assert_goes_on(process)
        self.assertEqual(len(cli.read_checkpoint(
            self.dir / "run/task_000.h5")), 32)

    def test_an_image_that_is_read_slowly_is_waited_for(self):
        # Without shuffling rank 2 has images 4 and 5 of the first six. With
        # and without threads that read ahead, and where batches are agreed on.
        for more in ([], ["--workers", 0], ["--skip-bad-images"]):
            with self.held("data/train/a/08.ppm"):
                process = self.train("--epochs", 1, "--no-shuffle", *more)
                self.wait_for_line(process, 2)
            self.assert_goes_on(process)
            self.assertTrue((self.dir / "run/task_000.h5").exists())
            (self.dir / "run").rename(self.dir / f"run{len(more)}")

    def test_so_it_is_in_evaluations(self):
        with self.held("data/test/b/11.ppm"):
            process = self.evaluate()
            self.wait_for_line(process, 2)
        self.assert_goes_on(process)

    def test_so_is_a_merge_that_is_written_slowly(self):
        with self.held("merged.h5.tmp"):
            process = self.merge()
            self.wait_for_line(process, 0)
        self.assert_goes_on(process)

    # ---- a rank that is stopped --------------------------------------------

    def test_a_rank_stopped_while_another_writes_a_checkpoint_is_named(self):
        with self.held("run/task_000.h5.tmp"):
            process = self.train("--epochs", 1)
            self.wait_for_line(process, 0)
            self.check_stopped(process, 1)

    def test_so_is_the_one_that_writes_it(self):
        with self.held("run/task_000.h5.tmp"):
            process = self.train("--epochs", 1)
            self.wait_for_line(process, 0)
            self.check_stopped(process, 0)

    def test_so_is_one_that_reads_images_in_an_evaluation(self):
        with self.held("data/test/b/11.ppm"):
            process = self.evaluate()
            self.wait_for_line(process, 2)
            self.check_stopped(process, 2)

    def test_so_is_one_that_has_done_its_share_of_a_merge(self):
        with self.held("merged.h5.tmp"):
            process = self.merge()
            self.wait_for_line(process, 0)
            self.check_stopped(process, 2)

    def test_so_is_one_where_batches_are_agreed_on(self):
        process = self.train("--epochs", 1000000, "--skip-bad-images")
        log = self.dir / "run/log.jsonl"
        self.wait_until(process,
                        lambda: log.exists() and log.stat().st_size > 0,
                        "a step was logged")
        self.check_stopped(process, 1)

    def test_one_that_computes_for_ever_is_named(self):
        proc = cli.run("mpi_test_watch", "stuck", n_ranks=3)
        self.assertNotEqual(proc.returncode, 0)
        self.assertRegex(proc.stdout, r"rank 2 \(host \S+, process \d+\): "
                         "stuck or dead")


if __name__ == "__main__":
    cli.main()
