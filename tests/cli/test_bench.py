"""bench/vit_step.c, on the CPU and on a GPU: that is how runs are compared.

ctest: cost=15
"""

import math
import unittest

import magmax_cli as cli

MODEL = cli.GOLDEN / "tiny/model.json"


class VitStep(cli.Case):
    def steps(self, n, device="cpu", n_ranks=None, what="train", batch=2,
              **env):
        """Behind one that does not count, or as many on a GPU."""
        row = cli.run_ok(
            cli.TEST_BIN / "vit_step", MODEL, batch, n, what, device,
            n_ranks=n_ranks,
            env={"MAGMAX_CUDA_MODULE": cli.CUDA_ON_CPU, "OMP_NUM_THREADS": "1",
                 **env}).json()
        self.assertRegex(row["weights_fnv"], "^[0-9a-f]{16}$")
        self.assertGreater(row["train_images_per_s"], 0)
        self.assertTrue(math.isfinite(row["loss"]))
        return row

    def test_a_run_done_again_leaves_the_same_weights(self):
        first, again, longer = self.steps(1), self.steps(1), self.steps(2)
        self.assertEqual(first["weights_fnv"], again["weights_fnv"])
        self.assertEqual(first["loss"], again["loss"])
        self.assertNotEqual(first["weights_fnv"], longer["weights_fnv"])
        self.assertNotEqual(first["loss"], longer["loss"])
        self.assertGreater(first["train_of_peak"], 0)

    def test_so_does_one_on_a_gpu_whatever_its_streams_run_first(self):
        first, again = (self.steps(2, "cuda:bf16",
                                   MAGMAX_CUDA_ON_CPU_SEED=str(seed))
                        for seed in (1, 2))
        self.assertEqual(first["weights_fnv"], again["weights_fnv"])
        self.assertEqual(first["loss"], again["loss"])
        self.assertEqual(first["train_of_peak"], 0)

    def test_a_gpu_has_the_losses_of_the_cpu(self):
        # Two steps each: one, and the one before.
        cpu, gpu = self.steps(1, what="both"), self.steps(1, "cuda", what="both")
        self.assertAlmostEqual(cpu["loss"] / gpu["loss"], 1, delta=1e-5)
        for row in cpu, gpu:
            self.assertGreater(row["forward_images_per_s"], 0)

    def test_ranks_share_the_batch(self):
        # One image each, the same one: as if it were the whole batch.
        one, two = self.steps(1, batch=1), self.steps(1, n_ranks=2)
        self.assertEqual(two["n_ranks"], 2)
        self.assertAlmostEqual(one["loss"] / two["loss"], 1, delta=1e-5)

    def test_wrong_usage_says_what_is_right(self):
        for args in ((MODEL, 2), (MODEL, 2, 0)):
            proc = cli.run(cli.TEST_BIN / "vit_step", *args)
            self.assertEqual(proc.returncode, 2, proc)
            self.assertIn("usage: vit_step MODEL", proc.stderr)


if __name__ == "__main__":
    cli.main()
