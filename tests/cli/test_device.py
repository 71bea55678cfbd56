"""--device cuda where training is not concerned: merging, evaluation and heads
do on GPUs, those of kernels/cuda run by the CPU, what they do on the CPU.

ctest: cost=20 processors=2
"""

import ctypes
import shutil
import unittest

import h5py
import magmax_cli as cli
import numpy as np
import test_zeroshot
import vocabulary

CPU = ["--device", "cpu"]
CUDA = ["--device", "cuda"]
FP32 = [*CUDA, "--precision", "fp32"]


def gpus(n):
    """A machine with as many."""
    return {"MAGMAX_CUDA_MODULE": cli.CUDA_ON_CPU, "OMP_NUM_THREADS": "1",
            "MAGMAX_CUDA_ON_CPU_DEVICES": str(n)}


class Merge(cli.Case):
    """Files of three blocks per rank and more, one tensor being copied."""

    def setUp(self):
        super().setUp()
        rng = np.random.default_rng(1)
        self.args = []
        for i in range(4):
            tensors = {"visual.a": rng.standard_normal((700, 1000)),
                       "visual.b": rng.standard_normal(70_001)}
            # Few different numbers, so that magnitudes are often the same.
            tensors = {name: (np.round(4 * value) / 4).astype(np.float32)
                       for name, value in tensors.items()}
            if i == 0:
                tensors["token_embedding.weight"] = np.ones(5, np.float32)
            cli.write_safetensors(self.dir / f"{i}.safetensors", tensors)
        self.args = ["--pretrained", self.dir / "0.safetensors", "--json",
                     *(self.dir / f"{i}.safetensors" for i in (1, 2, 3))]

    def merge(self, name, *more, **options):
        path = self.dir / name
        proc = cli.run_ok("magmax_merge", *self.args, "-o", path, *more,
                          **options)
        result = proc.json()
        del result["output"]
        return cli.read_checkpoint(path), result, proc.stderr

    def test_every_method_gives_the_same_bits_on_one_to_four_ranks(self):
        ranks = {"magmax": (None, 2, 3, 4), "average": (1, 4),
                 "random": (None, 3), "task-arithmetic": (None, 2)}
        for method, numbers in ranks.items():
            more = ["--method", method, "--scaling-coef", 0.3]
            on_cpu, expected, _ = self.merge("cpu.h5", *more)
            for n in numbers:
                with self.subTest(method=method, n_ranks=n):
                    merged, result, stderr = self.merge(
                        "cuda.h5", *more, *CUDA, n_ranks=n, env=gpus(2))
                    self.assert_same_weights(merged, on_cpu)
                    self.assertEqual(result, expected)
                    self.assertIn("cuda:0, CUDA on CPU", stderr)

    def test_auto_is_the_cpu(self):
        *_, stderr = self.merge("auto.h5", "--device", "auto", env=gpus(1))
        self.assertRegex(stderr, r"(?m)^cpu, 1 thread, .*1 rank$")

    def test_no_gpu_is_one_line_and_no_output(self):
        proc = cli.run("magmax_merge", *self.args, "-o", self.dir / "m.h5",
                       *CUDA, n_ranks=2, env=gpus(0))
        self.assert_one_line_error(proc, "no GPU is visible")
        self.assertFalse((self.dir / "m.h5").exists())

    def test_what_is_no_number_is_found_on_the_way_to_the_gpu(self):
        tensors = dict(cli.read_safetensors(self.dir / "2.safetensors"))
        tensors["visual.a"] = tensors["visual.a"].copy()
        tensors["visual.a"][699, 5] = np.nan
        cli.write_safetensors(self.dir / "2.safetensors", tensors)
        proc = cli.run("magmax_merge", *self.args, "-o", self.dir / "m.h5",
                       *CUDA, n_ranks=2, env=gpus(1))
        self.assert_one_line_error(proc, "visual.a", "2.safetensors")
        self.assertFalse((self.dir / "m.h5").exists())


class Evaluation(cli.Case):
    def setUp(self):
        super().setUp()
        self.inputs = self.make_inputs(n_train=32, n_test=42)

    def evaluate(self, *more, **options):
        path = self.dir / "features.h5"
        scores = cli.run_ok(
            "magmax_eval", *self.inputs, "--n-splits", 2, "--split-strategy",
            "class", "--batch-size", 8, "--json", "--save-features", path,
            *more, **options).json()
        with h5py.File(path) as file:
            return scores, {name: data[()] for name, data in file.items()}

    def test_accuracies_and_features_are_the_cpus_on_one_to_four_gpus(self):
        scores, arrays = self.evaluate(*CPU)
        for n in (1, 2, 3, 4):
            with self.subTest(n_ranks=n):
                got, features = self.evaluate(*FP32, n_ranks=n, env=gpus(n))
                self.assertEqual(got, scores)
                np.testing.assert_array_equal(features["labels"],
                                              arrays["labels"])
                for name in ("features", "logits"):
                    np.testing.assert_allclose(
                        features[name], arrays[name], rtol=0,
                        atol=1e-5 * np.abs(arrays[name]).max(), err_msg=name)

    def test_prototypes_are_the_cpus(self):
        at = self.inputs.index("--head")
        args = self.inputs[:at] + self.inputs[at + 2:]

        def prototypes(*more, **options):
            path = self.dir / "made.h5"
            cli.run_ok("magmax_head", *args, "--prototypes", "-o", path, *more,
                       **options)
            with h5py.File(path) as file:
                return file["weight"][()]

        on_cpu = prototypes(*CPU)
        for n in (1, 3):
            np.testing.assert_allclose(
                prototypes(*FP32, n_ranks=n, env=gpus(n)), on_cpu, rtol=0,
                atol=1e-5 * np.abs(on_cpu).max())


class Driver(cli.Case):
    def test_a_machine_without_one_says_so_in_three_words(self):
        try:
            ctypes.CDLL("libcuda.so.1")
            self.skipTest("there is a driver")
        except OSError:
            pass
        # An installation whose backend is there, but never gets loaded.
        for folder in ("bin", "lib/magmax"):
            (self.dir / folder).mkdir(parents=True)
        (self.dir / "lib/magmax/libmagmax_cuda.so").touch()
        program = shutil.copy(cli.BIN / "magmax_eval", self.dir / "bin")
        inputs = self.make_inputs(n_train=8, n_test=8)
        env = {"MAGMAX_CUDA_MODULE": None}
        proc = cli.run_ok(program, *inputs, env=env)
        self.assertRegex(proc.stderr,
                         r"^cpu, .* \(no NVIDIA driver\), fp32, 1 rank\n")
        proc = cli.run(program, *inputs, *CUDA, env=env)
        self.assert_one_line_error(proc, "no NVIDIA driver")


class Variants(cli.Case):
    """Of kernels/cuda, by MAGMAX_CUDA_VARIANTS."""

    def evaluate(self, variants):
        return cli.run("magmax_eval", *self.make_inputs(n_train=8, n_test=8),
                       *CUDA, env={**gpus(1), "MAGMAX_CUDA_VARIANTS": variants})

    def test_one_that_is_not_known_is_one_line_that_lists_those_that_are(self):
        for variants in ("nonsense", "bias_sums", "bias_sums=",
                         "bias_sums=nonsense", "bias_sums=fusedly",
                         "bias_sums=separate,,nonsense=1"):
            with self.subTest(variants=variants):
                self.assert_one_line_error(
                    self.evaluate(variants), "MAGMAX_CUDA_VARIANTS",
                    "bias_sums=fused|separate|library",
                    "algorithms=first|table")

    def test_the_first_line_names_those_that_are_set(self):
        for variants in ("bias_sums=separate", "algorithms=table,workspace=64"):
            proc = self.evaluate(variants)
            self.assertEqual(proc.returncode, 0, proc.stderr)
            self.assertIn(f", variants {variants}, bf16, 1 rank\n",
                          proc.stderr)
        proc = self.evaluate("")
        self.assertEqual(proc.returncode, 0, proc.stderr)
        self.assertNotIn("variants", proc.stderr)


@unittest.skipIf(vocabulary.PATH is None, vocabulary.WHY_NOT)
class ZeroShot(test_zeroshot.Case):
    def test_a_head_of_class_names_equals_open_clips(self):
        for n in (1, 2):
            self.head("--vocab", vocabulary.PATH, *FP32, n_ranks=n,
                      env=gpus(n))
            np.testing.assert_allclose(
                self.made()["weight"], self.weight, rtol=0,
                atol=1e-5 * np.abs(self.weight).max())


if __name__ == "__main__":
    cli.main()
