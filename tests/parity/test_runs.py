"""Training, evaluation and resuming against PyTorch's float64 runs: every
step's loss, gradient norm and learning rate, the weights after every task, and
accuracies, with one to four ranks.

ctest: cost=40
"""

import json

import numpy as np

import magmax_cli as cli

TINY = cli.GOLDEN / "tiny"

# Agreed bounds: about four times PyTorch's own float32 deviation.
LOSS, GRAD_NORM, LEARNING_RATE, TASK_VECTOR = 3e-5, 6e-3, 1e-7, 2e-3


def flat(tensors):
    return {name: np.float64(value) for name, value in tensors.items()
            if name.startswith("visual.")}


def deviation(ours, theirs, base):
    """|ours - theirs| / |theirs - base| over all tensors."""
    error = sum(((ours[n] - theirs[n]) ** 2).sum() for n in theirs)
    size = sum(((theirs[n] - base[n]) ** 2).sum() for n in theirs)
    return np.sqrt(error / size)


class Rig(cli.Case):
    """The small model's runs; subclasses may choose another device."""

    device = ()
    env = {}

    @classmethod
    def setUpClass(cls):
        folder = cli.temporary_folder()
        cls.addClassCleanup(folder.cleanup)
        cls.data = cli.Path(folder.name)
        tensors = cli.read_safetensors(TINY / "data.safetensors")
        images = tensors["images"].transpose(0, 2, 3, 1)
        np.savez(cls.data / "data.npz",
                 train_images=images, train_labels=tensors["labels"],
                 test_images=images, test_labels=tensors["labels"])
        cli.write_safetensors(cls.data / "head.safetensors",
                              {"weight": tensors["head_weight"]})
        cls.runs = json.loads((TINY / "runs.json").read_text())
        cls.base = flat(cli.read_safetensors(TINY / "weights.safetensors"))
        cls.common = [
            "--model", TINY / "model.json",
            "--dataset", cls.data / "data.npz",
            "--head", cls.data / "head.safetensors",
            "--n-splits", 3, "--split-strategy", "class"]

    def train_arguments(self, save, *more, lr=None):
        hyper = self.runs["hyperparameters"]
        return [*self.common,
                "--load", TINY / "weights.safetensors", "--epochs", 1,
                "--batch-size", hyper["batch"], "--lr", lr or hyper["lr"],
                "--wd", hyper["wd"], "--clip", hyper["clip"],
                "--warmup-length", hyper["warmup"], "--no-shuffle",
                "--no-augment", "--save", save, *more]

    def train(self, save, *more, n_ranks, lr=None):
        return cli.run_ok(
            "magmax_train", *self.train_arguments(save, *more, lr=lr),
            *self.device, n_ranks=n_ranks, env=self.env)

    def evaluate(self, load, *more, n_ranks=2):
        return cli.run_ok("magmax_eval", *self.common, "--load", load, "--json",
                          *self.device, *more, n_ranks=n_ranks,
                          env=self.env).json()

    def check_run(self, name, n_ranks, *more):
        save = self.dir / name
        self.train(save, *more, n_ranks=n_ranks)
        ours = [json.loads(line) for line in
                (save / "log.jsonl").read_text().splitlines()]
        theirs = self.runs["logs"][name]
        self.assertEqual(len(ours), len(theirs))
        for a, b in zip(ours, theirs):
            where = f"task {b['task']} step {b['step']} on {n_ranks} ranks"
            self.assertEqual((a["task"], a["step"]), (b["task"], b["step"]))
            self.assertAlmostEqual(a["loss"], b["loss"], delta=LOSS, msg=where)
            self.assertAlmostEqual(a["lr"] / b["lr"], 1, delta=LEARNING_RATE,
                                   msg=where)
            self.assertAlmostEqual(a["grad_norm"] / b["grad_norm"], 1,
                                   delta=GRAD_NORM, msg=where)
        for task in range(3):
            mine = flat(cli.read_checkpoint(save / f"task_{task:03}.h5"))
            reference = flat(cli.read_safetensors(
                TINY / name / f"task_{task:03}.safetensors"))
            self.assertEqual(list(sorted(mine)), list(sorted(reference)))
            # A task vector is a change since theta_0.
            self.assertLess(deviation(mine, reference, self.base), TASK_VECTOR,
                            f"task {task} on {n_ranks} ranks")
        return save

    def check_accuracy(self, save, n_ranks):
        score = self.evaluate(save / "task_002.h5", n_ranks=n_ranks)
        for kind, theirs in self.runs["accuracy"]["seq_last"].items():
            np.testing.assert_allclose(score[kind], theirs,
                                       atol=1.001 / 96, err_msg=kind)


class Runs(Rig):
    def test_sequential_run_follows_pytorch_with_one_to_four_ranks(self):
        for n_ranks in (1, 2, 3, 4):
            with self.subTest(n_ranks=n_ranks):
                save = self.check_run("seq", n_ranks,
                                      "--sequential-finetuning")
                self.check_accuracy(save, n_ranks)
                save.rename(self.dir / f"seq{n_ranks}")

    def test_recomputed_activations_give_the_same_bits(self):
        for n_ranks, more in (1, ()), (2, ("--accumulate", 2)):
            runs = [self.dir / f"kept{n_ranks}", self.dir / f"again{n_ranks}"]
            self.train(runs[0], *more, n_ranks=n_ranks)
            self.train(runs[1], *more, "--grad-checkpoint", n_ranks=n_ranks)
            for task in range(3):
                kept, again = (cli.read_checkpoint(run / f"task_{task:03}.h5")
                               for run in runs)
                self.assert_same_weights(kept, again)

    def test_batches_in_parts_follow_pytorch_as_whole_ones_do(self):
        # Parts of 4; of 3, 3 and 2; of one image; on three ranks, which have 3,
        # 3 and 2 images, of 2 and 1, or of 2.
        for n_ranks, n_parts in (1, 2), (1, 3), (1, 8), (2, 3), (3, 2):
            with self.subTest(n_ranks=n_ranks, n_parts=n_parts):
                save = self.check_run("seq", n_ranks, "--sequential-finetuning",
                                      "--accumulate", n_parts)
                save.rename(self.dir / f"seq{n_ranks}{n_parts}")

    def test_independent_run_follows_pytorch_with_one_to_four_ranks(self):
        for n_ranks in (1, 2, 3, 4):
            with self.subTest(n_ranks=n_ranks):
                save = self.check_run("ind", n_ranks)
                save.rename(self.dir / f"ind{n_ranks}")

    def test_stored_checkpoints_have_exactly_pytorchs_accuracy(self):
        files = {"pretrained": "weights", "seq_last": "seq/task_002",
                 "magmax_0.5": "merge/magmax_0.5", "average": "merge/average"}
        for name, file in files.items():
            for n_ranks in (None, 1, 2, 3, 4):
                with self.subTest(name=name, n_ranks=n_ranks):
                    score = self.evaluate(TINY / f"{file}.safetensors",
                                          n_ranks=n_ranks)
                    for kind, theirs in self.runs["accuracy"][name].items():
                        np.testing.assert_allclose(score[kind], theirs,
                                                   rtol=1e-12, err_msg=kind)

    def test_run_without_a_launcher_gives_the_bits_of_one_rank(self):
        self.train(self.dir / "a", "--sequential-finetuning", n_ranks=None)
        self.train(self.dir / "b", "--sequential-finetuning", n_ranks=1)
        for task in range(3):
            self.assert_same_weights(
                cli.read_checkpoint(self.dir / f"a/task_{task:03}.h5"),
                cli.read_checkpoint(self.dir / f"b/task_{task:03}.h5"))

    def test_an_interrupted_run_goes_on_to_the_same_bits(self):
        whole, cut = self.dir / "whole", self.dir / "cut"
        self.train(whole, "--sequential-finetuning", n_ranks=2)
        self.train(cut, "--sequential-finetuning", n_ranks=2)
        (cut / "task_001.h5").unlink()
        (cut / "task_002.h5").unlink()
        self.train(cut, "--sequential-finetuning", n_ranks=2)
        for task in range(3):
            self.assert_same_weights(
                cli.read_checkpoint(whole / f"task_{task:03}.h5"),
                cli.read_checkpoint(cut / f"task_{task:03}.h5"))
        lines = [json.loads(line) for line in
                 (cut / "log.jsonl").read_text().splitlines()]
        self.assertEqual([(l["task"], l["step"]) for l in lines],
                         [(t, s) for t in range(3) for s in range(12)])

    def test_saved_features_give_the_same_logits_for_any_number_of_ranks(self):
        import h5py
        weights = TINY / "seq/task_002.safetensors"
        seen = []
        for n_ranks in (1, 3):
            path = self.dir / f"features{n_ranks}.h5"
            self.evaluate(weights, "--save-features", path, n_ranks=n_ranks)
            with h5py.File(path) as file:
                seen.append({name: file[name][()]
                             for name in ("features", "logits", "labels")})
        for name in seen[0]:
            np.testing.assert_allclose(
                seen[0][name], seen[1][name], rtol=0,
                atol=1e-5 * np.abs(seen[0][name]).max())
        tensors = cli.read_safetensors(TINY / "data.safetensors")
        np.testing.assert_array_equal(seen[0]["labels"], tensors["labels"])
        features = np.float64(seen[0]["features"])
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        logits = features @ np.float64(tensors["head_weight"]).T
        np.testing.assert_allclose(seen[0]["logits"], logits,
                                   atol=2e-6 * np.abs(logits).max())


if __name__ == "__main__":
    cli.main()
