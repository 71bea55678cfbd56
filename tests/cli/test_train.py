"""magmax_train as a user runs it: folders, continuing, uneven batches, and bad
input, each of which is one line and a non-zero exit.

ctest: cost=70
"""

import json
import os
import shutil
import subprocess
import unittest

import h5py
import magmax_cli as cli
import numpy as np

QUICK = ["--epochs", 1, "--batch-size", 8, "--lr", 1e-3, "--warmup-length", 2]


class Train(cli.Case):
    def setUp(self):
        super().setUp()
        self.inputs = self.make_inputs()
        self.save = self.dir / "run"

    def train(self, *more, inputs=None, n_ranks=2, runner=cli.run_ok, **options):
        return runner("magmax_train", *(inputs or self.inputs), *QUICK,
                      "--save", self.save, *more, n_ranks=n_ranks, **options)

    def fails(self, *fragments, more=(), inputs=None, n_ranks=2, **options):
        """Training fails in one line, and leaves no folder."""
        proc = self.train(*more, inputs=inputs, n_ranks=n_ranks,
                          runner=cli.run, **options)
        self.assert_one_line_error(proc, *fragments)
        self.assertFalse(list(self.dir.glob("run/task_*")), str(proc))
        return proc

    def replace(self, option, value):
        changed = list(self.inputs)
        changed[changed.index(option) + 1] = value
        return changed

    def log(self):
        return [json.loads(line) for line in
                (self.save / "log.jsonl").read_text().splitlines()]

    # ---- what a run leaves ----------------------------------------------------

    def test_a_run_leaves_config_log_and_a_checkpoint_a_task(self):
        self.train("--n-splits", 2, "--split-strategy", "class",
                   "--sequential-finetuning")
        self.assertEqual(sorted(p.name for p in self.save.iterdir()),
                         ["config.json", "log.jsonl", "task_000.h5",
                          "task_001.h5"])
        config = json.loads((self.save / "config.json").read_text())
        self.assertEqual(config["program"], "magmax_train")
        self.assertEqual(config["options"]["batch-size"], 8)
        self.assertEqual(config["options"]["sequential-finetuning"], True)
        for line in self.log():
            self.assertLessEqual({"task", "epoch", "step", "loss", "lr",
                                  "grad_norm", "images_per_s"}, line.keys())

    def test_config_repeats_the_run_bit_for_bit(self):
        self.train("--n-splits", 2, "--split-strategy", "class")
        options = json.loads((self.save / "config.json").read_text())["options"]
        again = []
        for name, value in options.items():
            if name == "save" or value is False:
                continue
            again += [f"--{name}"] if value is True else [f"--{name}", value]
        if "--warmup-ratio" in again:
            self.fail("an option that was not set is recorded")
        cli.run_ok("magmax_train", *again, "--save", self.dir / "again",
                   n_ranks=2)
        for task in ("task_000.h5", "task_001.h5"):
            self.assert_same_weights(
                cli.read_checkpoint(self.save / task),
                cli.read_checkpoint(self.dir / "again" / task))

    def test_checkpoint_has_open_clips_names_and_shapes(self):
        self.train()
        config = json.loads((self.dir / "model.json").read_text())
        ours = cli.read_checkpoint(self.save / "task_000.h5")
        self.assertEqual({n: a.shape for n, a in ours.items()},
                         cli.model_shapes(config))
        with h5py.File(self.save / "task_000.h5") as file:
            self.assertEqual(json.loads(file.attrs["model"]), config)
            record = json.loads(file["provenance"][()])
            self.assertEqual(record["options"]["lr"], 1e-3)

    def test_same_command_again_finds_everything_finished(self):
        self.train("--n-splits", 2, "--split-strategy", "class")
        with cli.unchanged(self.save):
            proc = self.train("--n-splits", 2, "--split-strategy", "class")
        self.assertIn("all 2 tasks are finished", proc.stderr)

    def test_another_number_of_ranks_may_go_on(self):
        more = ["--n-splits", 2, "--split-strategy", "class",
                "--sequential-finetuning"]
        self.train(*more, n_ranks=1)
        first = (self.save / "task_000.h5").read_bytes()
        (self.save / "task_001.h5").unlink()
        self.train(*more, n_ranks=3)
        self.assertEqual(first, (self.save / "task_000.h5").read_bytes())
        self.assertTrue((self.save / "task_001.h5").exists())
        self.assertEqual({l["task"] for l in self.log()}, {0, 1})

    def test_a_task_that_went_missing_is_trained_with_what_follows_it(self):
        more = ["--n-splits", 4, "--split-strategy", "class",
                "--sequential-finetuning"]
        self.train(*more)
        whole = [cli.read_checkpoint(p)
                 for p in sorted(self.save.glob("task_*"))]
        (self.save / "task_001.h5").unlink()
        self.train(*more)
        for before, path in zip(whole, sorted(self.save.glob("task_*"))):
            self.assert_same_weights(before, cli.read_checkpoint(path))

    def test_killed_run_leaves_no_half_checkpoint_and_goes_on(self):
        more = ["--n-splits", 4, "--split-strategy", "class", "--epochs", 40,
                "--sequential-finetuning"]
        process = cli.start("magmax_train", *self.inputs, *QUICK, *more,
                            "--save", self.save, n_ranks=2,
                            stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL)
        self.addCleanup(cli.stop, process)
        cli.wait_until((self.save / "task_000.h5").exists,
                       lambda: "the first checkpoint was there", process)
        cli.kill(process)
        for path in self.save.glob("task_*.h5"):
            cli.read_checkpoint(path)
        self.train(*more)
        self.assertEqual(len(list(self.save.glob("task_*.h5"))), 4)
        self.assertFalse(list(self.save.glob("*.tmp")))
        steps = [(l["task"], l["step"]) for l in self.log()]
        self.assertEqual(steps, sorted(set(steps)), "every step once, in order")

    # ---- what a step sees -----------------------------------------------------

    def test_ranks_do_not_change_what_is_seen(self):
        losses = []
        for n_ranks in (1, 2, 3, 5):
            self.save = self.dir / f"run{n_ranks}"
            self.train("--epochs", 2, n_ranks=n_ranks)
            losses.append([l["loss"] for l in self.log()])
        for other in losses[1:]:
            np.testing.assert_allclose(losses[0], other, rtol=2e-4)

    def test_a_short_last_batch_may_leave_ranks_without_images(self):
        cli.make_npz(self.dir / "data.npz", n_train=17)
        losses = []
        for n_ranks in (1, 4):
            self.save = self.dir / f"run{n_ranks}"
            self.train("--no-shuffle", n_ranks=n_ranks)
            self.assertEqual([l["n_images"] for l in self.log()], [8, 8, 1])
            losses.append([l["loss"] for l in self.log()])
        np.testing.assert_allclose(*losses, rtol=2e-4)

    def test_a_short_last_batch_may_have_fewer_parts(self):
        cli.make_npz(self.dir / "data.npz", n_train=17)
        losses = []
        for n_ranks, n_parts in (1, 1), (1, 3), (2, 4), (3, 3):
            self.save = self.dir / f"run{n_ranks}{n_parts}"
            self.train("--no-shuffle", "--epochs", 2, "--accumulate", n_parts,
                       n_ranks=n_ranks)
            self.assertEqual([l["n_images"] for l in self.log()],
                             [8, 8, 1] * 2)
            losses.append([l["loss"] for l in self.log()])
        for other in losses[1:]:
            np.testing.assert_allclose(losses[0], other, rtol=2e-4)

    def test_parts_and_recomputing_may_change_when_a_run_goes_on(self):
        more = ["--n-splits", 2, "--split-strategy", "class"]
        self.train(*more)
        (self.save / "task_001.h5").unlink()
        self.train(*more, "--accumulate", 2, "--grad-checkpoint")
        self.assertTrue((self.save / "task_001.h5").exists())

    def test_number_of_parts(self):
        for n_parts in 0, -1, "two":
            self.fails("--accumulate", more=["--accumulate", n_parts])
        self.fails("--accumulate 5", "4 images", more=["--accumulate", 5])
        self.fails("--accumulate 4", "3 images", more=["--accumulate", 4],
                   n_ranks=3)

    def test_a_batch_larger_than_the_task_works(self):
        self.train("--batch-size", 1000, n_ranks=3)
        self.assertEqual([l["n_images"] for l in self.log()], [64])

    def test_learning_lowers_the_loss_and_lifts_accuracy(self):
        self.train("--epochs", 12, "--lr", 3e-3)
        log = self.log()
        self.assertLess(log[-1]["loss"], 0.5 * log[0]["loss"])
        score = cli.run_ok("magmax_eval", "--dataset", self.dir / "data.npz",
                           "--head", self.dir / "head.h5", "--load",
                           self.save / "task_000.h5", "--json").json()
        self.assertGreater(score["task_agnostic"][0], 0.8)

    def test_seed_changes_the_order_and_crops_change_the_images(self):
        runs = {}
        for name, more in {"a": [], "b": ["--seed", 6], "c": ["--no-augment"],
                           "d": ["--no-shuffle"], "a2": []}.items():
            self.save = self.dir / name
            self.train(*more)
            runs[name] = [l["loss"] for l in self.log()]
        self.assertEqual(runs["a"], runs["a2"])
        self.assertEqual(len({tuple(v) for v in runs.values()}), 4)

    def test_label_smoothing_and_clipping_change_the_run(self):
        runs = set()
        for i, more in enumerate(([], ["--ls", 0.2], ["--clip", 1e-3],
                                  ["--clip", 0])):
            self.save = self.dir / str(i)
            self.train(*more)
            runs.add(tuple(l["loss"] for l in self.log()))
        self.assertEqual(len(runs), 4)

    def test_underscores_and_equals_signs_are_taken(self):
        self.train("--split_strategy=data", "--n_splits=2")
        self.assertEqual({l["task"] for l in self.log()}, {0, 1})

    def test_from_scratch_needs_no_weights(self):
        inputs = list(self.inputs)
        at = inputs.index("--load")
        del inputs[at:at + 2]
        self.train("--from-scratch", inputs=inputs)
        self.assertTrue((self.save / "task_000.h5").exists())

    # ---- bad input --------------------------------------------------------------

    def test_other_options_in_the_same_folder_are_named(self):
        self.train()
        with cli.unchanged(self.save):
            proc = self.train("--lr", 2e-3, runner=cli.run)
            self.assert_one_line_error(proc, "--lr", "0.001", "0.002")

    def test_missing_checkpoint(self):
        self.fails("nowhere.h5", "no such file",
                   inputs=self.replace("--load", self.dir / "nowhere.h5"))

    def test_truncated_checkpoint(self):
        path = self.dir / "theta0.safetensors"
        path.write_bytes(path.read_bytes()[:-100])
        self.fails("theta0.safetensors", "truncated")

    def test_flipped_bit_in_a_checkpoint(self):
        self.train()
        good = self.save / "task_000.h5"
        with h5py.File(good) as file:
            at = file["model/visual.proj"].id.get_offset()
        data = bytearray(good.read_bytes())
        data[at + 5] ^= 4
        bad = self.dir / "bad.h5"
        bad.write_bytes(data)
        shutil.rmtree(self.save)
        self.fails("bad.h5", "visual.proj",
                   inputs=self.replace("--load", bad))

    def test_damaged_finished_task_says_how_to_go_on(self):
        more = ["--n-splits", 2, "--split-strategy", "class",
                "--sequential-finetuning"]
        self.train(*more)
        (self.save / "task_001.h5").unlink()
        path = self.save / "task_000.h5"
        path.write_bytes(path.read_bytes()[:2000])
        proc = self.train(*more, runner=cli.run)
        self.assert_one_line_error(proc, "task_000.h5", "delete the file")

    def test_checkpoint_of_another_architecture(self):
        cli.make_model(self.dir / "model.json", width=32)
        self.fails("theta0.safetensors", "visual.class_embedding", "[16]",
                   "[32]")

    def test_checkpoint_with_another_number_of_blocks(self):
        cli.make_model(self.dir / "model.json", layers=1)
        self.fails("theta0.safetensors", "visual.transformer.resblocks.1")

    def test_head_of_another_embed_dim(self):
        cli.make_head(self.dir / "head.h5", embed_dim=16)
        self.fails("head.h5", "[4, 16]", "embed_dim", "8")

    def test_file_that_is_no_head(self):
        self.fails("weight",
                   inputs=self.replace("--head",
                                       self.dir / "theta0.safetensors"))

    def test_label_beyond_the_heads_rows(self):
        cli.make_head(self.dir / "head.h5", n_classes=3)
        self.fails("label 3", "3")

    def test_negative_label(self):
        labels = np.zeros(64, np.int64)
        labels[7] = -1
        cli.make_npz(self.dir / "data.npz", train_labels=labels)
        self.fails("data.npz", "7")

    def test_unknown_dataset_names_the_nearest(self):
        self.fails("FashionMINST", "FashionMNIST",
                   inputs=self.replace("--dataset", "FashionMINST"))

    def test_missing_dataset_file(self):
        self.fails("none.npz", inputs=self.replace("--dataset",
                                                   self.dir / "none.npz"))

    def test_unknown_option_names_the_nearest(self):
        self.fails("--epoch", "--epochs", more=["--epoch", 3])

    def test_unknown_model_names_the_nearest(self):
        self.fails("ViT-B16", "ViT-B-16",
                   inputs=self.replace("--model", "ViT-B16"))

    def test_unknown_model_key_names_the_nearest(self):
        cli.make_model(self.dir / "model.json", patchsize=4)
        self.fails("model.json", "patchsize", "patch_size")

    def test_unknown_split_strategy_names_the_known(self):
        self.fails("classes", "class, data, domain",
                   more=["--split-strategy", "classes", "--n-splits", 2])

    def test_malformed_number(self):
        self.fails("--epochs", "ten", more=["--epochs", "ten"])

    def test_number_out_of_range(self):
        self.fails("--batch-size", more=["--batch-size", 0])

    def test_more_ranks_than_images_in_a_batch(self):
        self.fails("3 ranks", "--batch-size", more=["--batch-size", 2],
                   n_ranks=3)

    def test_more_tasks_than_classes(self):
        self.fails("task", more=["--n-splits", 5, "--split-strategy", "class"])

    def test_task_without_images(self):
        labels = np.arange(64) % 3
        cli.make_npz(self.dir / "data.npz", train_labels=labels)
        self.fails("task 3",
                   more=["--n-splits", 4, "--split-strategy", "class"])

    def test_domain_split_without_domains(self):
        self.fails("domain", more=["--split-strategy", "domain"])

    def test_nan_in_the_weights(self):
        config = json.loads((self.dir / "model.json").read_text())
        weights = cli.random_weights(config)
        weights["visual.proj"][3, 2] = np.nan
        cli.write_safetensors(self.dir / "theta0.safetensors", weights)
        self.fails("theta0.safetensors", "visual.proj", "finite")

    def test_loss_that_is_no_number(self):
        # A rate of 1e6 makes the weights overflow within a few steps.
        self.fails("task 0", "epoch", "step", "loss",
                   more=["--lr", 1e6, "--wd", 1e6, "--warmup-length", 0,
                         "--epochs", 5])

    def test_unwritable_folder(self):
        (self.dir / "file").write_text("not a folder")
        self.save = self.dir / "file/run"
        self.fails("file/run")

    @unittest.skipIf(os.geteuid() != 0, "mounting needs root")
    def test_full_disk(self):
        disk = self.dir / "disk"
        disk.mkdir()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k",
                                  "tmpfs", disk], capture_output=True)
        if mounted.returncode:
            self.skipTest("cannot mount a tmpfs here")
        try:
            self.save = disk / "run"
            proc = self.train(runner=cli.run)
            self.assert_one_line_error(proc, "no space left")
            self.assertEqual(list(self.save.glob("task_*")), [])
        finally:
            subprocess.run(["umount", "-l", disk], check=True)

    def test_input_missing_on_one_rank_only(self):
        for option, name in (("--load", "theta0.safetensors"),
                             ("--dataset", "data.npz"), ("--head", "head.h5")):
            with self.subTest(name=name):
                alone = self.dir / ("there-" + name)
                shutil.copy(self.dir / name, alone)
                # Each rank has its own name for the file; rank 1's is missing.
                script = self.dir / "one_rank.sh"
                script.write_text(
                    '#!/bin/bash\n'
                    'if [ "$OMPI_COMM_WORLD_RANK" = 1 ]; then\n'
                    '  cd /; fi\n'
                    'exec "$@"\n')
                script.chmod(0o755)
                inputs = self.replace(option, alone.name)
                proc = cli.run(script, str(cli.BIN / "magmax_train"), *inputs,
                               *QUICK, "--save", self.save, n_ranks=3,
                               cwd=self.dir)
                self.assert_one_line_error(proc, "rank 1", alone.name)
                self.assertFalse(list(self.save.glob("task_*")))


if __name__ == "__main__":
    cli.main()
