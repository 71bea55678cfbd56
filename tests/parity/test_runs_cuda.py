"""The same runs with --device cuda, kernels/cuda being run by the CPU; and
what the programs say of devices.

ctest: timeout=400 processors=2
"""

import os

import magmax_cli as cli
import test_runs

MODULE = os.environ.get("MAGMAX_CUDA_ON_CPU",
                        cli.TEST_BIN / "libmagmax_cuda_on_cpu.so")

NCCL_MODULE = os.environ.get("MAGMAX_NCCL_ON_CPU",
                             cli.TEST_BIN / "libmagmax_nccl_on_cpu.so")


class CudaRuns(test_runs.Rig):
    device = ("--device", "cuda")
    env = {"MAGMAX_CUDA_MODULE": str(MODULE),
           "MAGMAX_NCCL_MODULE": str(NCCL_MODULE), "OMP_NUM_THREADS": "2"}

    def test_sequential_run_follows_pytorch_on_the_cuda_device(self):
        save = self.check_run("seq", None, "--sequential-finetuning")
        self.check_accuracy(save, None)

    def test_batches_in_parts_follow_pytorch_on_the_cuda_device(self):
        self.check_run("seq", None, "--sequential-finetuning",
                       "--accumulate", 3)

    def test_accuracy_is_the_same_for_two_ranks(self):
        weights = test_runs.TINY / "seq/task_002.safetensors"
        alone = self.evaluate(weights, n_ranks=None)
        self.env = dict(self.env, MAGMAX_CUDA_ON_CPU_DEVICES="2")
        self.assertEqual(self.evaluate(weights, n_ranks=2), alone)

    def test_two_ranks_follow_pytorch_each_on_a_gpu_of_its_own(self):
        self.env = dict(self.env, MAGMAX_CUDA_ON_CPU_DEVICES="2")
        self.check_run("seq", 2, "--sequential-finetuning")

    def test_auto_is_the_gpu_where_there_is_one_else_the_cpu_saying_why(self):
        weights = test_runs.TINY / "weights.safetensors"
        arguments = ["magmax_eval", *self.common, "--load", weights]
        auto = [*arguments, "--device", "auto"]
        proc = cli.run_ok(*auto, env=self.env)
        self.assertRegex(proc.stderr, r"cuda:0, CUDA on CPU, .* fp32, 1 rank")
        proc = cli.run_ok(*auto, env=dict(
            self.env, MAGMAX_CUDA_ON_CPU_DEVICES="0"))
        self.assertRegex(proc.stderr,
                         r"cpu, .*\(looking for a GPU: .*no CUDA-capable")
        proc = cli.run(*arguments, "--device", "cuda", env=dict(
            self.env, MAGMAX_CUDA_ON_CPU_DEVICES="-1"))
        self.assert_one_line_error(proc, "driver version is insufficient")
        proc = cli.run(*arguments, "--device", "cuda",
                       env={"MAGMAX_CUDA_MODULE": "/no/such/module.so"})
        self.assert_one_line_error(proc, "/no/such/module.so")


if __name__ == "__main__":
    cli.main()
