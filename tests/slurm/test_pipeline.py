# ctest: slow cost=40 processors=2
"""The batch scripts of slurm/ on a real Slurm: two nodes on this machine.

Exit code 77 where Slurm cannot be started (not root, or not installed).
"""

import os
import re
import subprocess
import time
import unittest
from pathlib import Path

import magmax_cli as cli

SCRIPTS = cli.SOURCE / "slurm"
CLUSTER = cli.SOURCE / "tests/slurm/cluster.sh"

ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL",
         "OUT_OF_MEMORY", "DEADLINE", "BOOT_FAIL"}


class Cluster:
    """A Slurm of its own, in a folder."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.env = {name: value for name, value in os.environ.items()
                    if not name.startswith(("SLURM", "SBATCH", "SRUN"))}
        self.env.update(cli.MPI_ENV, OMP_NUM_THREADS="1",
                        MAGMAX_BIN=str(cli.BIN),
                        SLURM_CONF=str(self.folder / "slurm.conf"))

    def up(self):
        proc = subprocess.run([CLUSTER, "up", self.folder],
                              stdin=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, text=True, timeout=cli.DEADLINE_S)
        if proc.returncode == 77:
            raise unittest.SkipTest(proc.stderr.strip())
        assert proc.returncode == 0, proc.stderr

    def down(self):
        subprocess.run([CLUSTER, "down", self.folder], timeout=cli.DEADLINE_S,
                       stdin=subprocess.DEVNULL)

    def tool(self, *args, cwd=None):
        """Run a Slurm command; returns its stdout."""
        proc = subprocess.run([str(a) for a in args], env=self.env, cwd=cwd,
                              stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=cli.DEADLINE_S)
        assert proc.returncode == 0, f"{args}: {proc.stderr}"
        return proc.stdout

    def submit(self, *args, cwd):
        return int(self.tool("sbatch", "--parsable", *args, cwd=cwd))

    def job(self, job):
        """What Slurm reports about a job, as {field: text}."""
        text = self.tool("scontrol", "show", "job", "--oneliner", job)
        return dict(re.findall(r"(\S+?)=(\S*)", text))

    def wait_until(self, job, is_so, what):
        """What Slurm reports about the job once is_so(that)."""
        limit = time.monotonic() + cli.DEADLINE_S
        while True:
            known = self.job(job)
            if is_so(known):
                return known
            assert time.monotonic() < limit, f"job {job}: not {what}: {known}"
            time.sleep(0.5)

    def wait(self, job):
        """Until the job has ended; its state."""
        return self.wait_until(job, lambda known: known["JobState"] in ENDED,
                               "ended")["JobState"]

    def wait_for_restart(self, job):
        """Until the job has been queued again. Slurm would not start it until the
        credentials of its first start have expired, which takes minutes."""
        known = self.wait_until(
            job, lambda known: known["Restarts"] == "1" and (
                known["JobState"], known["Reason"]) in (
                    ("PENDING", "BeginTime"), ("RUNNING", "None"),
                    ("COMPLETED", "None")), "queued again")
        if known["JobState"] == "PENDING":
            self.tool("scontrol", "update", f"JobId={job}", "StartTime=now+5")


class Pipeline(cli.Case):
    @classmethod
    def setUpClass(cls):
        folder = cli.temporary_folder()
        cls.addClassCleanup(folder.cleanup)
        cls.cluster = Cluster(folder.name)
        cls.addClassCleanup(cls.cluster.down)
        cls.cluster.up()

    def submit(self, script, *args):
        return self.cluster.submit(*args[:args.index("--")], SCRIPTS / script,
                                   *args[args.index("--") + 1:], cwd=self.dir)

    def logs(self):
        """Everything that jobs wrote, for the message of a failure."""
        return "\n".join(f"=== {path.name}\n{path.read_text()}"
                         for path in sorted(self.dir.glob("magmax-*-*.*")))

    def hold_second_checkpoint(self):
        """An option with which a job does not get further than that until
        release() (tests/cli/held_open.c)."""
        (self.dir / "held").touch()
        return (f"--export=ALL,LD_PRELOAD={cli.TEST_BIN}/libheld_open.so,"
                f"HELD_FILE=task_001.h5.tmp,HELD_WHILE={self.dir}/held")

    def release(self):
        (self.dir / "held").unlink()

    def assert_ended(self, job, expected):
        state = self.cluster.wait(job)
        self.assertEqual(state, expected, f"job {job}\n{self.logs()}")

    def train_options(self, *more):
        return [*self.make_inputs(n_classes=6, n_train=96, n_test=48),
                "--n-splits", 3, "--split-strategy", "class",
                "--sequential-finetuning", "--batch-size", 16,
                "--lr", "1e-3", "--warmup-length", 2, *more]

    def test_train_merge_and_eval_run_after_each_other_on_two_nodes(self):
        options = self.train_options("--epochs", 2)
        train = self.submit(
            "train.sbatch", "--nodes=2", "--ntasks-per-node=2", "--",
            *options, "--save", "runs/x")
        merge = self.submit(
            "merge.sbatch", "--nodes=2", "--ntasks-per-node=1",
            f"--dependency=afterok:{train}", "--kill-on-invalid-dep=yes", "--",
            "--pretrained", "theta0.safetensors", "--method", "magmax",
            "--scaling-coef", "0.5", "-o", "merged.h5", "runs/x/task_*.h5")
        evaluate = ["--model", "model.json", "--load", "merged.h5",
                    "--dataset", "data.npz", "--head", "head.h5",
                    "--n-splits", 3, "--split-strategy", "class", "--json"]
        evaluation = self.submit(
            "eval.sbatch", "--nodes=2", "--ntasks-per-node=1",
            f"--dependency=afterok:{merge}", "--kill-on-invalid-dep=yes", "--",
            *evaluate)
        for job in (train, merge, evaluation):
            self.assert_ended(job, "COMPLETED")

        tasks = sorted((self.dir / "runs/x").glob("task_*.h5"))
        self.assertEqual([path.name for path in tasks],
                         ["task_000.h5", "task_001.h5", "task_002.h5"])

        cli.run_ok("magmax_merge", "--pretrained", "theta0.safetensors",
                   "--method", "magmax", "--scaling-coef", "0.5",
                   "-o", "by_mpirun.h5", *tasks, n_ranks=3, cwd=self.dir)
        self.assert_same_weights(
            cli.read_checkpoint(self.dir / "merged.h5"),
            cli.read_checkpoint(self.dir / "by_mpirun.h5"))

        by_mpirun = cli.run_ok("magmax_eval", *evaluate, n_ranks=2,
                               cwd=self.dir).json()
        by_slurm = cli.Finished(
            ["eval.sbatch"], 0,
            (self.dir / f"magmax-eval-{evaluation}.out").read_text(),
            self.logs(), 0).json()
        for kind in ("task_aware", "task_agnostic"):
            self.assertEqual(len(by_slurm[kind]), 3)
            self.assertEqual(by_slurm[kind], by_mpirun[kind])

    def test_training_that_is_requeued_or_out_of_time_ends_the_same(self):
        options = self.train_options("--epochs", 100)
        cli.run_ok("magmax_train", *options, "--save", "runs/whole", n_ranks=2,
                   cwd=self.dir)

        def requeue(job):
            self.cluster.tool("scontrol", "requeue", job)

        def say_that_time_is_up(job):
            self.cluster.tool("scancel", "--signal=USR1", "--batch", job)

        jobs, hold = {}, self.hold_second_checkpoint()
        for name, interrupt in (("requeued", requeue),
                                ("out_of_time", say_that_time_is_up)):
            folder = self.dir / "runs" / name
            job = self.submit("train.sbatch", "--nodes=2",
                              "--ntasks-per-node=1", hold, "--",
                              *options, "--save", f"runs/{name}")
            cli.wait_until((folder / "task_000.h5").exists, lambda job=job:
                           f"the first checkpoint of job {job}\n{self.logs()}")
            interrupt(job)
            jobs[name] = job
        for job in jobs.values():
            self.cluster.wait_for_restart(job)
        self.release()

        for name, job in jobs.items():
            self.assert_ended(job, "COMPLETED")
            log = (self.dir / f"magmax-train-{job}.log").read_text()
            for start in (1, 2):
                self.assertIn(f"job {job} start {start}:", log)
            for task in range(3):
                file = f"task_{task:03d}.h5"
                self.assert_same_weights(
                    cli.read_checkpoint(self.dir / "runs/whole" / file),
                    cli.read_checkpoint(self.dir / "runs" / name / file),
                    f"{name}/{file}")

    def test_of_an_array_only_the_job_whose_time_is_up_is_queued_again(self):
        options = self.train_options("--epochs", 100)
        array = self.submit("train.sbatch", "--array=1-2",
                            "--ntasks-per-node=1",
                            self.hold_second_checkpoint(), "--", *options,
                            "--seed", "%a", "--save", "runs/seed-%a")
        first, last = f"{array}_1", f"{array}_2"
        for seed in (1, 2):
            cli.wait_until(
                (self.dir / f"runs/seed-{seed}/task_000.h5").exists,
                lambda seed=seed: f"the first checkpoint of job "
                f"{array}_{seed}\n{self.logs()}")
        self.cluster.tool("scancel", "--signal=USR1", "--batch", last)
        self.cluster.wait_for_restart(last)
        self.release()
        for job in (first, last):
            self.assert_ended(job, "COMPLETED")
        self.assertEqual(self.cluster.job(first)["Restarts"], "0")
        weights = [cli.read_checkpoint(self.dir / f"runs/seed-{seed}" /
                                       "task_002.h5") for seed in (1, 2)]
        self.assertFalse(all((weights[0][name] == weights[1][name]).all()
                             for name in weights[0]))

    def test_ranks_take_gpus_whichever_way_slurm_shows_them(self):
        options = self.train_options("--epochs", 1, "--device", "cuda")
        emulated = (f"--export=ALL,MAGMAX_CUDA_MODULE={cli.CUDA_ON_CPU},"
                    f"MAGMAX_NCCL_MODULE={cli.NCCL_ON_CPU},"
                    "MAGMAX_CUDA_ON_CPU_DEVICES=2")
        ways = {"all": "--gpus-per-node=2", "own": "--gpus-per-task=1",
                "one": "--gpus-per-node=1"}
        jobs = {name: self.submit("train.sbatch", "--ntasks-per-node=2", way,
                                  emulated, "--", *options,
                                  "--save", f"runs/{name}")
                for name, way in ways.items()}
        self.assert_ended(jobs["all"], "COMPLETED")
        self.assert_ended(jobs["own"], "COMPLETED")
        for task in range(3):
            self.assert_same_weights(*(
                cli.read_checkpoint(self.dir / f"runs/{n}/task_{task:03d}.h5")
                for n in ("all", "own")))
        self.assert_ended(jobs["one"], "FAILED")
        self.assertIn("ranks 0 and 1 share GPU 0000:01:00.0 of host",
                      self.logs())

    def test_a_failing_program_fails_its_job_and_cancels_the_next(self):
        train = self.submit("train.sbatch", "--nodes=2", "--ntasks-per-node=1",
                            "--", "--batch-sise", 16)
        merge = self.submit("merge.sbatch", f"--dependency=afterok:{train}",
                            "--kill-on-invalid-dep=yes", "--", "-o",
                            "merged.h5")
        self.assert_ended(train, "FAILED")
        self.assert_ended(merge, "CANCELLED")
        self.assertIn("batch-size", self.logs())

    def test_merging_files_that_are_not_there_fails_and_names_them(self):
        merge = self.submit("merge.sbatch", "--", "-o", "merged.h5",
                            "runs/none/task_*.h5")
        self.assert_ended(merge, "FAILED")
        self.assertIn("no file matches runs/none/task_*.h5", self.logs())
        self.assertFalse((self.dir / "merged.h5").exists())


if __name__ == "__main__":
    cli.main()
