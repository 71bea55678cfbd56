"""The small model's runs on a GPU: training and evaluation against PyTorch's
float64 runs, alone and, where there are two GPUs, with two ranks.

ctest: gpu
"""

import os

import magmax_cli as cli
import test_runs


class GpuRuns(test_runs.Rig):
    device = ("--device", "cuda", "--precision", "fp32")
    env = {"MAGMAX_CUDA_MODULE": os.environ["MAGMAX_TEST_GPU"],
           "MAGMAX_NCCL_MODULE": None, "OMP_NUM_THREADS": "2"}

    def test_sequential_run_follows_pytorch(self):
        save = self.check_run("seq", None, "--sequential-finetuning")
        self.check_accuracy(save, None)

    def test_independent_run_follows_pytorch(self):
        self.check_run("ind", None)

    def test_stored_checkpoints_have_pytorchs_accuracy_in_every_precision(self):
        weights = test_runs.TINY / "seq/task_002.safetensors"
        theirs = self.runs["accuracy"]["seq_last"]
        for precision, images in (("fp32", 1), ("tf32", 1), ("bf16", 3)):
            self.device = ("--device", "cuda", "--precision", precision)
            for kind, score in self.evaluate(weights, n_ranks=None).items():
                if kind in theirs:
                    cli.np.testing.assert_allclose(
                        score, theirs[kind], atol=(images + 0.001) / 96,
                        err_msg=f"{kind}, {precision}")

    def with_two_ranks(self, run):
        """Training needs one GPU per rank."""
        try:
            return run()
        except AssertionError as error:
            if "ranks 0 and 1 share GPU" in str(error):
                self.skipTest("there is one GPU")
            raise

    def test_accuracy_is_the_same_for_two_ranks(self):
        weights = test_runs.TINY / "seq/task_002.safetensors"
        alone = self.evaluate(weights, n_ranks=None)
        self.assertEqual(alone, self.evaluate(weights, n_ranks=2))

    def test_two_ranks_follow_pytorch(self):
        self.with_two_ranks(
            lambda: self.check_run("seq", 2, "--sequential-finetuning"))


if __name__ == "__main__":
    cli.main()
