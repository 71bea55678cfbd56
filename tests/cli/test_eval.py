"""magmax_eval and magmax_head as a user runs them, and every program's --help.

ctest: cost=20
"""

import subprocess

import h5py
import magmax_cli as cli
import numpy as np

QUICK = ["--epochs", 1, "--batch-size", 8, "--lr", 1e-3, "--warmup-length", 2]


class Eval(cli.Case):
    def setUp(self):
        super().setUp()
        self.inputs = self.make_inputs(n_domains=2)

    def evaluate(self, *more, n_ranks=2, runner=cli.run_ok):
        return runner("magmax_eval", *self.inputs, *more, n_ranks=n_ranks)

    def test_json_is_the_only_thing_on_stdout(self):
        score = self.evaluate("--json").json()
        self.assertEqual(len(score["task_aware"]), 1)
        self.assertEqual(score["task_aware"], score["task_agnostic"])

    def test_number_of_ranks_and_batch_change_nothing(self):
        more = ["--n-splits", 2, "--split-strategy", "class", "--json"]
        scores = [self.evaluate(*more, n_ranks=n).json()
                  for n in (None, 1, 2, 3, 4, 8)]
        scores.append(self.evaluate(*more, "--batch-size", 5).json())
        for other in scores[1:]:
            self.assertEqual(scores[0], other)

    def test_tasks_of_each_strategy(self):
        by_class = self.evaluate("--n-splits", 2, "--split-strategy", "class",
                                 "--json").json()
        by_domain = self.evaluate("--split-strategy", "domain",
                                  "--json").json()
        by_data = self.evaluate("--n-splits", 3, "--split-strategy", "data",
                                "--json").json()
        self.assertEqual(by_class["n_images"], [16, 16])
        self.assertEqual(by_domain["n_images"], [16, 16])
        self.assertEqual(by_data["n_images"], [32, 32, 32])
        for aware, agnostic in zip(by_class["task_aware"],
                                   by_class["task_agnostic"]):
            self.assertGreaterEqual(aware, agnostic)

    def test_table_for_people(self):
        proc = self.evaluate()
        self.assertIn("task-aware", proc.stdout)
        self.assertIn("mean", proc.stdout)

    def test_saved_features_are_in_the_data_sets_order(self):
        path = self.dir / "features.h5"
        self.evaluate("--save-features", path, n_ranks=3)
        data = np.load(self.dir / "data.npz")
        with h5py.File(path) as file:
            self.assertEqual(file["features"].shape, (32, 8))
            self.assertEqual(file["logits"].shape, (32, 4))
            np.testing.assert_array_equal(file["labels"], data["test_labels"])

    def test_a_model_that_the_file_records_is_not_needed(self):
        cli.run_ok("magmax_train", *self.inputs, *QUICK, "--save",
                   self.dir / "run")
        cli.run_ok("magmax_eval", "--load", self.dir / "run/task_000.h5",
                   "--dataset", self.dir / "data.npz",
                   "--head", self.dir / "head.h5", "--json").json()

    def test_the_file_decides_on_the_activation_with_a_warning(self):
        cli.run_ok("magmax_train", *self.inputs, *QUICK, "--save",
                   self.dir / "run")
        cli.make_model(self.dir / "quick.json", quick_gelu=True)
        common = ["--load", self.dir / "run/task_000.h5", "--json",
                  "--dataset", self.dir / "data.npz",
                  "--head", self.dir / "head.h5"]
        proc = cli.run_ok("magmax_eval", "--model", self.dir / "quick.json",
                          *common)
        self.assertIn("warning", proc.stderr)
        self.assertIn("GELU", proc.stderr)
        self.assertEqual(proc.json(),
                         cli.run_ok("magmax_eval", *common).json())

    def test_no_test_images(self):
        cli.make_npz(self.dir / "data.npz", test_images=None, test_labels=None)
        self.assert_one_line_error(self.evaluate(runner=cli.run), "test")

    def test_features_do_not_replace_what_is_read(self):
        before = (self.dir / "head.h5").read_bytes()
        proc = self.evaluate("--save-features", self.dir / "head.h5",
                             runner=cli.run)
        self.assert_one_line_error(proc, "would overwrite what --head reads")
        self.assertEqual((self.dir / "head.h5").read_bytes(), before)

    def test_a_full_disk_behind_stdout_is_an_error(self):
        for more in ([], ["--json"], ["--help"]):
            proc = cli.run("/bin/sh", "-c", 'exec "$@" > /dev/full', "sh",
                           *cli.command("magmax_eval", *self.inputs, *more))
            self.assertEqual(proc.returncode, 1, str(proc))
            self.assertIn("cannot write to standard output", proc.stderr)

    def test_unwritable_features(self):
        proc = self.evaluate("--save-features", self.dir / "no/where.h5",
                             runner=cli.run)
        self.assert_one_line_error(proc, "no/where.h5")


class Head(cli.Case):
    def setUp(self):
        super().setUp()
        self.inputs = self.make_inputs()
        at = self.inputs.index("--head")
        del self.inputs[at:at + 2]

    def head(self, *more, n_ranks=2, runner=cli.run_ok):
        return runner("magmax_head", *self.inputs, *more, "-o",
                      self.dir / "made.h5", n_ranks=n_ranks)

    def weight(self):
        with h5py.File(self.dir / "made.h5") as file:
            return file["weight"][()]

    def test_orthonormal_rows_times_the_scale(self):
        self.head("--orthonormal", "--scale", 20)
        weight = np.float64(self.weight())
        np.testing.assert_allclose(weight @ weight.T, 400 * np.eye(4),
                                   atol=1e-4)

    def test_prototypes_are_normalised_class_means(self):
        train = np.load(self.dir / "data.npz")
        np.savez(self.dir / "as_test.npz", test_images=train["train_images"],
                 test_labels=train["train_labels"],
                 train_images=train["train_images"],
                 train_labels=train["train_labels"])
        cli.run_ok("magmax_eval", *self.inputs, "--dataset",
                   self.dir / "as_test.npz", "--head", self.dir / "head.h5",
                   "--save-features", self.dir / "f.h5")
        with h5py.File(self.dir / "f.h5") as file:
            features, labels = np.float64(file["features"]), file["labels"][()]
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        means = np.stack([features[labels == c].mean(0) for c in range(4)])
        means *= 100 / np.linalg.norm(means, axis=1, keepdims=True)
        for n_ranks in (1, 3):
            self.head("--prototypes", n_ranks=n_ranks)
            np.testing.assert_allclose(self.weight(), means, atol=1e-3)

    def test_only_one_kind_is_made(self):
        proc = self.head("--prototypes", "--orthonormal", runner=cli.run)
        self.assert_one_line_error(proc, "--prototypes", "--orthonormal")

    def test_more_classes_than_dimensions_cannot_be_orthogonal(self):
        cli.make_npz(self.dir / "data.npz", n_classes=12)
        self.assert_one_line_error(
            self.head("--orthonormal", runner=cli.run), "12 classes")


class Help(cli.Case):
    def test_every_program_explains_itself(self):
        for program in sorted(cli.BIN.glob("magmax_*")):
            with self.subTest(program=program.name):
                proc = cli.run_ok(program, "--help")
                self.assertIn("usage: " + program.name, proc.stdout)
                self.assertIn("--version", proc.stdout)
                self.assertEqual(proc.stderr, "")
                cli.run_ok(program, "--version")

    def test_what_a_full_disk_swallows_is_an_error(self):
        for more in (["--help"], self.make_inputs()):
            with self.subTest(more=more), open("/dev/full", "w") as full:
                proc = subprocess.run(
                    cli.command("magmax_eval", *more), cwd=self.dir,
                    env=cli.environment(), stdin=subprocess.DEVNULL, stdout=full,
                    stderr=subprocess.PIPE, text=True,
                    timeout=cli.DEADLINE_S)
                self.assertEqual(proc.returncode, 1, proc.stderr)
                self.assertIn("cannot write to standard output: No space",
                              proc.stderr)


if __name__ == "__main__":
    cli.main()
