"""The same runs with --device cuda, kernels/cuda being run by the CPU, in every
precision; and what the programs say of devices.

ctest: cuda cost=60 processors=2
"""

import json
import unittest

import h5py
import magmax_cli as cli
import numpy as np
import test_runs

# Minutes under sanitizers, which see the kernels in every precision by the op
# tests, and the programs by the other runs here.
unsanitized = unittest.skipIf(cli.SANITIZED, "takes minutes")

# What a rounding costs, relative to the number.
UNIT = {"tf32": 2.0 ** -10, "bf16": 2.0 ** -8}


def to_bf16(x):
    """Rounded to nearest, ties to even, as float64."""
    bits = np.atleast_1d(np.float32(x)).view(np.uint32)
    bits = bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))
    rounded = (bits & np.uint32(0xFFFF0000)).view(np.float32)
    return np.float64(rounded).reshape(np.shape(x))


class CudaRuns(test_runs.Rig):
    device = ("--device", "cuda", "--precision", "fp32")
    env = {"MAGMAX_CUDA_MODULE": cli.CUDA_ON_CPU,
           "MAGMAX_NCCL_MODULE": cli.NCCL_ON_CPU, "OMP_NUM_THREADS": "2"}

    def test_sequential_run_follows_pytorch_on_the_cuda_device(self):
        save = self.check_run("seq", None, "--sequential-finetuning")
        self.check_accuracy(save, None)

    @unsanitized
    def test_losses_in_tf32_and_bf16_follow_pytorchs_in_float64(self):
        theirs = self.runs["logs"]["seq"]
        for precision, unit in UNIT.items():
            self.device = ("--device", "cuda", "--precision", precision)
            save = self.dir / precision
            self.train(save, "--sequential-finetuning", n_ranks=None)
            ours = [json.loads(line) for line in
                    (save / "log.jsonl").read_text().splitlines()]
            self.assertEqual(len(ours), len(theirs))
            # A logit, at most 6.1 in size, has gone through about 48 roundings
            # (tests/parity/vit_rig.h); a loss is the mean over 8 images.
            bound = unit * np.sqrt(48) * 6.1 / np.sqrt(8)
            for a, b in zip(ours, theirs):
                self.assertAlmostEqual(
                    a["loss"], b["loss"], delta=bound,
                    msg=f"{precision} task {b['task']} step {b['step']}")
            score = self.evaluate(save / "task_002.h5", n_ranks=None)
            np.testing.assert_allclose(
                score["task_aware"],
                self.runs["accuracy"]["seq_last"]["task_aware"],
                atol=1.001 / 96, err_msg=precision)

    @unsanitized
    def test_master_weights_keep_what_bf16_weights_would_lose(self):
        # Twelve steps of 1e-5 at most, where half a unit in the last place of a
        # bf16 weight of 0.1 is 2e-4.
        small = ["--sequential-finetuning", "--samples-per-class", 16]
        self.device = ("--device", "cpu")
        self.train(self.dir / "fp32", *small, lr=1e-5, n_ranks=None)
        self.device = ("--device", "cuda")  # bf16 is a GPU's default
        self.train(self.dir / "bf16", *small, lr=1e-5, n_ranks=None)
        exact, ours = (
            test_runs.flat(cli.read_checkpoint(self.dir / name / "task_002.h5"))
            for name in ("fp32", "bf16"))
        rounded = {name: to_bf16(value) for name, value in exact.items()}
        self.assertGreater(test_runs.deviation(rounded, exact, self.base), 2)
        self.assertLess(test_runs.deviation(ours, exact, self.base), 0.2)

    def test_the_precision_is_said_recorded_and_kept(self):
        save = self.dir / "run"
        few = ["--sequential-finetuning", "--samples-per-class", 4]
        self.device = ("--device", "cuda")
        proc = self.train(save, *few, n_ranks=None)
        self.assertRegex(proc.stderr.splitlines()[0],
                         r"cuda:0, CUDA on CPU, .*, bf16, 1 rank")
        config = json.loads((save / "config.json").read_text())
        self.assertEqual(config["options"]["precision"], "bf16")
        with h5py.File(save / "task_000.h5") as file:
            provenance = json.loads(file["provenance"][()])
        self.assertEqual(provenance["options"]["precision"], "bf16")
        for device, said in ((("--device", "cpu"), '"fp32"'),
                             (("--device", "cuda", "--precision", "tf32"),
                              '"tf32"')):
            proc = cli.run("magmax_train", *self.train_arguments(save, *few),
                           *device, env=self.env)
            self.assert_one_line_error(proc, "--precision", '"bf16"', said,
                                       "--save")

    def test_the_cpu_has_no_other_precision(self):
        arguments = ["magmax_eval", *self.common, "--load",
                     test_runs.TINY / "weights.safetensors"]
        proc = cli.run(*arguments, "--device", "cpu", "--precision", "bf16")
        self.assert_one_line_error(proc, "fp32", "--precision bf16", "GPU")
        proc = cli.run(*arguments, "--precision", "tf32", env=dict(
            self.env, MAGMAX_CUDA_ON_CPU_DEVICES="0"))
        self.assert_one_line_error(proc, "--precision tf32",
                                   "no GPU is visible")
        proc = cli.run(*arguments, "--precision", "fp16")
        self.assert_one_line_error(proc, "--precision", "fp32, tf32, bf16")
        proc = cli.run_ok(*arguments, "--precision", "fp32",
                          "--device", "cpu")
        self.assertRegex(proc.stderr.splitlines()[0], r"cpu, .*, fp32, 1 rank")

    @unsanitized
    def test_batches_in_parts_follow_pytorch_on_the_cuda_device(self):
        self.check_run("seq", None, "--sequential-finetuning",
                       "--accumulate", 3)

    def test_accuracy_is_the_same_for_two_ranks(self):
        weights = test_runs.TINY / "seq/task_002.safetensors"
        alone = self.evaluate(weights, n_ranks=None)
        for n_gpus in ("1", "2"):
            self.env = dict(self.env, MAGMAX_CUDA_ON_CPU_DEVICES=n_gpus)
            self.assertEqual(self.evaluate(weights, n_ranks=2), alone)

    def test_ranks_that_share_a_gpu_are_told_so(self):
        arguments = ["magmax_eval", *self.common, "--load",
                     test_runs.TINY / "weights.safetensors"]
        shared = "warning: ranks 0, 2 and 3 share GPU 0000:02:00.0 of host "
        proc = cli.run_ok(*arguments, n_ranks=4, env=dict(
            self.env, MAGMAX_CUDA_ON_CPU_VISIBLE="1/0/0,2,1/1,0,2,1"))
        self.assertIn(shared, proc.stderr)
        self.assertNotIn("others", proc.stderr)
        proc = cli.run_ok(*arguments, n_ranks=4, env=dict(
            self.env, MAGMAX_CUDA_ON_CPU_DEVICES="4"))
        self.assertNotIn("share", proc.stderr)

    def test_ranks_with_and_without_a_gpu_do_not_mix(self):
        proc = cli.run("magmax_eval", *self.common, "--load",
                       test_runs.TINY / "weights.safetensors", n_ranks=2,
                       env=dict(self.env, MAGMAX_CUDA_ON_CPU_VISIBLE="0/"))
        self.assert_one_line_error(proc, "1 of 2 ranks", "--device cpu")

    def test_several_ranks_follow_pytorch_each_on_a_gpu_of_its_own(self):
        for n_ranks in (2,) if cli.SANITIZED else (2, 3, 4):
            with self.subTest(n_ranks=n_ranks):
                self.env = dict(self.env,
                                MAGMAX_CUDA_ON_CPU_DEVICES=str(n_ranks))
                save = self.check_run("seq", n_ranks,
                                      "--sequential-finetuning")
                save.rename(self.dir / f"seq{n_ranks}")

    def test_auto_is_the_gpu_where_there_is_one_else_the_cpu_saying_why(self):
        weights = test_runs.TINY / "weights.safetensors"
        arguments = ["magmax_eval", *self.common, "--load", weights]
        proc = cli.run_ok(*arguments, env=self.env)  # auto is the default
        self.assertRegex(proc.stderr, r"cuda:0, CUDA on CPU, .* bf16, 1 rank")
        proc = cli.run_ok(*arguments, "--device", "auto", env=dict(
            self.env, MAGMAX_CUDA_ON_CPU_DEVICES="0"))
        self.assertRegex(proc.stderr,
                         r"cpu, .* \(no GPU is visible\), fp32, 1 rank")
        proc = cli.run(*arguments, "--device", "cuda", env=dict(
            self.env, MAGMAX_CUDA_ON_CPU_DEVICES="-1"))
        self.assert_one_line_error(proc, "driver is too old")
        proc = cli.run(*arguments, "--device", "cuda",
                       env={"MAGMAX_CUDA_MODULE": "/no/such/module.so"})
        self.assert_one_line_error(proc, "/no/such/module.so")


if __name__ == "__main__":
    cli.main()
