"""What a run does when one of its ranks stops, dies, or has no GPU of its
own; and that several GPUs give what several CPUs give.

ctest: cost=50 processors=3
"""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np

import magmax_cli as cli

CUDA = {
    "MAGMAX_CUDA_MODULE": cli.CUDA_ON_CPU,
    "MAGMAX_NCCL_MODULE": cli.NCCL_ON_CPU,
    "MAGMAX_CUDA_ON_CPU_DEVICES": "4",
}

# The bounds of tests/parity/test_runs.py.
LOSS, GRAD_NORM, TASK_VECTOR = 3e-5, 6e-3, 2e-3


def learned(tensors):
    """Weights but for a bias of all keys, which cancels in the softmax: its
    gradient is rounding alone, which AdamW makes into whole steps."""
    return np.concatenate([
        (np.delete(t.reshape(3, -1), 1, axis=0)
         if name.endswith("in_proj_bias") else t).ravel().astype(np.float64)
        for name, t in sorted(tensors.items())])


def deviation(ours, theirs, start):
    """|ours - theirs| / |theirs - start| over all tensors."""
    ours, theirs, start = map(learned, (ours, theirs, start))
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs - start)


class Ranks(cli.Case):
    @classmethod
    def setUpClass(cls):
        folder = cli.temporary_folder()
        cls.addClassCleanup(folder.cleanup)
        data = Path(folder.name)
        rng = np.random.default_rng(7)
        cli.make_model(data / "model.json")
        np.savez(data / "data.npz",
                 train_images=rng.integers(0, 256, (48, 8, 8, 3), np.uint8),
                 train_labels=np.arange(48) % 4)
        cli.write_safetensors(
            data / "head.safetensors",
            {"weight": rng.standard_normal((4, 8)).astype(np.float32)})
        cls.common = [
            "--model", data / "model.json", "--dataset", data / "data.npz",
            "--head", data / "head.safetensors", "--from-scratch",
            "--no-augment", "--batch-size", 12, "--warmup-length", 2]

    def train(self, save, *more, lr=1e-3, **options):
        cli.run_ok("magmax_train", *self.common, "--epochs", 2,
                   "--lr", lr, "--save", self.dir / save, *more, **options)
        return cli.read_checkpoint(self.dir / save / "task_000.h5")

    def steps(self, save):
        text = (self.dir / save / "log.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]

    def long_run(self, n_ranks, *more, env=None):
        """A run that is under way, and its ranks' processes."""
        save = self.dir / "run"
        process = cli.start(
            "magmax_train", *self.common, "--epochs", 1000000,
            "--save", save, *more, n_ranks=n_ranks, env=env,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(cli.stop, process)
        log = save / "log.jsonl"
        cli.wait_until(lambda: log.exists() and log.stat().st_size > 0,
                       lambda: "a step was logged", process)
        return process, cli.pids_by_rank(process)

    def assert_ends_naming(self, process, rank, pids, why):
        _, err = process.communicate(timeout=cli.DEADLINE_S)
        self.assertNotEqual(process.returncode, 0)
        lines = [line for line in err.splitlines()
                 if line.startswith("magmax_train: ")]
        self.assertEqual(len(lines), 1, err)
        self.assertRegex(
            lines[0], rf"rank {rank} \(host \S+, process {pids[rank]}\): "
            rf"{why}, .*--rank-timeout")
        self.assertNotIn(f"process {pids[(rank + 1) % len(pids)]})", lines[0])
        return err

    def check_stopped_rank(self, n_ranks, rank, *more, env=None):
        process, pids = self.long_run(n_ranks, "--rank-timeout", 3, *more,
                                      env=env)
        os.kill(pids[rank], signal.SIGSTOP)
        return self.assert_ends_naming(process, rank, pids, "stuck or dead")

    def test_a_single_process_leaves_no_files_of_mpi(self):
        # Open MPI's directory would be the same for all that run at once.
        self.train("run", env={"TMPDIR": str(self.dir / "mpi")})
        self.assertFalse((self.dir / "mpi").exists())

    def test_a_stopped_rank_is_named_and_ends_the_job(self):
        self.check_stopped_rank(3, 1)

    def test_so_does_a_stopped_first_rank(self):
        self.check_stopped_rank(3, 0)

    def test_so_does_a_stopped_rank_on_gpus(self):
        err = self.check_stopped_rank(3, 2, "--device", "cuda",
                                      env={**CUDA, "NCCL_DEBUG": "INFO"})
        self.assertIn("communicator given up", err)

    def test_a_gpu_that_does_not_finish_is_named(self):
        hold = self.dir / "hold"
        process, pids = self.long_run(
            3, "--rank-timeout", 3, "--device", "cuda", env={
                **CUDA, "MAGMAX_CUDA_ON_CPU_STUCK": f"embed_tokens 1 {hold}"})
        hold.touch()
        self.assert_ends_naming(process, 1, pids, "its device does not finish")

    def test_a_killed_rank_ends_the_job(self):
        for more, env in ([], None), (["--device", "cuda"], CUDA):
            process, pids = self.long_run(2, *more, env=env)
            os.kill(pids[1], signal.SIGKILL)
            _, err = process.communicate(timeout=cli.DEADLINE_S)
            self.assertNotEqual(process.returncode, 0)
            self.assertRegex(err, r"rank 1 .*(\n.*)*signal 9")
            self.assertNotIn("--rank-timeout", err)  # the launcher is sooner
            shutil.rmtree(self.dir / "run")

    def test_two_runs_do_not_write_to_one_folder(self):
        process, pids = self.long_run(2)
        proc = cli.run("magmax_train", *self.common, "--epochs", 1000000,
                       "--save", self.dir / "run", n_ranks=2)
        self.assert_one_line_error(proc, "run/log.jsonl", "another run",
                                   "--save")
        self.assertIsNone(process.poll())
        # However the first one ends, its folder is free again.
        os.kill(pids[0], signal.SIGKILL)
        process.communicate(timeout=cli.DEADLINE_S)
        log = self.dir / "run/log.jsonl"
        old = log.stat().st_ino
        process, _ = self.long_run(2)

        def is_another():
            try:
                return log.stat().st_ino != old
            except FileNotFoundError:
                return False

        cli.wait_until(is_another, lambda: "the folder was free", process)

    def test_a_suspended_job_goes_on(self):
        process, pids = self.long_run(2, "--rank-timeout", 2)
        for pid in pids.values():
            os.kill(pid, signal.SIGSTOP)
        time.sleep(6)
        for pid in pids.values():
            os.kill(pid, signal.SIGCONT)
        log = self.dir / "run/log.jsonl"
        size = log.stat().st_size
        cli.wait_until(lambda: log.stat().st_size != size,
                       lambda: "another step was logged", process)

    def test_gpus_give_what_cpus_give_and_the_same_bits_again(self):
        start = self.train("start", lr=0)
        for n_ranks in (2, 3, 4):
            on_cpus = self.train(f"cpu{n_ranks}", n_ranks=n_ranks)
            gpu = {"n_ranks": n_ranks, "env": CUDA}
            fp32 = ["--device", "cuda", "--precision", "fp32"]
            on_gpus = self.train(f"gpu{n_ranks}", *fp32, **gpu)
            again = self.train(f"again{n_ranks}", *fp32, **gpu)
            self.assert_same_weights(on_gpus, again)
            self.assertLess(deviation(on_gpus, on_cpus, start), TASK_VECTOR)
            np.testing.assert_allclose(learned(on_gpus), learned(on_cpus),
                                       rtol=0, atol=2e-5)
            steps = [self.steps(f"{kind}{n_ranks}") for kind in ("gpu", "cpu")]
            for ours, theirs in zip(*steps, strict=True):
                self.assertAlmostEqual(ours["loss"], theirs["loss"], delta=LOSS)
                self.assertAlmostEqual(ours["grad_norm"] / theirs["grad_norm"],
                                       1, delta=GRAD_NORM)

    def test_every_rank_needs_a_gpu_of_its_own(self):
        arguments = ["magmax_train", *self.common, "--device", "cuda",
                     "--save", self.dir / "run"]
        # What ranks see; who shares what then.
        for visible, sharing in (
                ("1/1", "ranks 0 and 1 share GPU 0000:02:00.0 of host "),
                ("0,1/1,0/0/2", "ranks 0, 1 and 2 share GPU 0000:01:00.0 of"),
                ("2/1/2/1", "ranks 0 and 2 share GPU 0000:03:00.0 of host "
                 f"{os.uname().nodename}, others 1 more GPU, but training")):
            with self.subTest(visible=visible):
                proc = cli.run(*arguments, n_ranks=visible.count("/") + 1,
                               env=dict(CUDA,
                                        MAGMAX_CUDA_ON_CPU_VISIBLE=visible))
                cli.assert_one_line_error(proc, sharing, "--device cpu")
        proc = cli.run(*arguments, n_ranks=3,
                       env=dict(CUDA, MAGMAX_CUDA_ON_CPU_DEVICES="2"))
        cli.assert_one_line_error(proc, "ranks 0 and 2 share GPU")
        self.assertFalse((self.dir / "run").exists())

    def test_ranks_that_see_one_gpu_each_take_those(self):
        """As a batch system may show them: each its own, always number 0."""
        together = {"n_ranks": 2, "env": CUDA}
        apart = {"n_ranks": 2,
                 "env": dict(CUDA, MAGMAX_CUDA_ON_CPU_VISIBLE="3/1")}
        self.assert_same_weights(
            self.train("together", "--device", "cuda", **together),
            self.train("apart", "--device", "cuda", **apart))

    def test_several_gpus_need_nccl_and_say_so(self):
        proc = cli.run("magmax_train", *self.common, "--device", "cuda",
                       "--save", self.dir / "run", n_ranks=2,
                       env=dict(CUDA, MAGMAX_NCCL_MODULE="/no/nccl.so"))
        cli.assert_one_line_error(proc, "needs NCCL", "/no/nccl.so")

    def test_gradients_travel_as_bf16_between_gpus_only(self):
        bf16 = ["--reduce-dtype", "bf16"]
        proc = cli.run("magmax_train", *self.common, *bf16, "--save",
                       self.dir / "run", n_ranks=2)
        cli.assert_one_line_error(proc, "--reduce-dtype", "bf16")
        gpu = {"n_ranks": 3, "env": CUDA}
        rounded = self.train("a", "--device", "cuda", *bf16, **gpu)
        again = self.train("b", "--device", "cuda", *bf16, **gpu)
        exact = self.train("c", "--device", "cuda", **gpu)
        self.assert_same_weights(rounded, again)
        self.assertTrue(any((rounded[n] != exact[n]).any() for n in exact))
        first = [self.steps(save)[0] for save in "ac"]
        self.assertEqual(first[0]["loss"], first[1]["loss"])
        # Each of the sum's two additions, and its terms, round by 2^-9.
        self.assertAlmostEqual(first[0]["grad_norm"] / first[1]["grad_norm"], 1,
                               delta=3 * 2**-9)


if __name__ == "__main__":
    cli.main()
