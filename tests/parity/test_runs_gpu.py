"""The small model's runs on a GPU: training and evaluation against PyTorch's
float64 runs, alone and with two ranks on one card.

ctest: gpu timeout=400
"""

import os

import magmax_cli as cli
import test_runs

# What NCCL says where two ranks have the same card, which it may not support.
SAME_GPU = ("Duplicate GPU", "uplicate", "invalid usage")


class GpuRuns(test_runs.Rig):
    device = ("--device", "cuda:0", "--precision", "fp32")
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
            self.device = ("--device", "cuda:0", "--precision", precision)
            for kind, score in self.evaluate(weights, n_ranks=None).items():
                if kind in theirs:
                    cli.np.testing.assert_allclose(
                        score, theirs[kind], atol=(images + 0.001) / 96,
                        err_msg=f"{kind}, {precision}")

    def test_accuracy_is_the_same_for_two_ranks_on_one_card(self):
        weights = test_runs.TINY / "seq/task_002.safetensors"
        self.assertEqual(self.evaluate(weights, n_ranks=2),
                         self.evaluate(weights, n_ranks=None))

    def test_two_ranks_on_one_card_follow_pytorch_where_nccl_allows_it(self):
        try:
            self.check_run("seq", 2, "--sequential-finetuning")
        except AssertionError as error:
            if any(text in str(error) for text in SAME_GPU):
                self.skipTest("NCCL refuses two ranks on one card")
            raise


if __name__ == "__main__":
    cli.main()
