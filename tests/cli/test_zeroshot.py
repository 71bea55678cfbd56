"""Zero-shot heads: magmax_head without --prototypes or --orthonormal, and what
magmax_eval says about a head's class names.

ctest: cost=20
"""

import json
import struct
import unittest

import h5py
import magmax_cli as cli
import numpy as np
import vocabulary

TINY = cli.GOLDEN / "tiny"


def golden_head():
    """(weight, class names, templates) made by open_clip."""
    path = TINY / "zeroshot.safetensors"
    data = path.read_bytes()
    length, = struct.unpack("<Q", data[:8])
    metadata = json.loads(data[8:8 + length])["__metadata__"]
    return (cli.read_safetensors(path)["weight"],
            json.loads(metadata["classnames"]),
            json.loads(metadata["templates"]))


class Case(cli.Case):
    def setUp(self):
        super().setUp()
        self.weight, self.names, self.templates = golden_head()
        self.write("names.txt", "\n".join(self.names) + "\n")
        self.write("prompts.txt", "\n".join(self.templates))

    def write(self, name, content):
        (self.dir / name).write_text(content)
        return self.dir / name

    def head(self, *more, runner=cli.run_ok, load=None, lists=True, **options):
        args = ["--model", TINY / "model.json",
                "--load", load or TINY / "clip.safetensors"]
        if lists:
            args += ["--classnames", self.dir / "names.txt",
                     "--templates", self.dir / "prompts.txt"]
        return runner("magmax_head", *args, *more, "-o", self.dir / "head.h5",
                      **options)

    def made(self):
        with h5py.File(self.dir / "head.h5") as file:
            return {name: data[()] for name, data in file.items()}

    def refused(self, *fragments, args=(), **options):
        proc = self.head(*args, runner=cli.run, **options)
        self.assert_one_line_error(proc, *fragments)
        self.assertFalse((self.dir / "head.h5").exists())


@unittest.skipIf(vocabulary.PATH is None, vocabulary.WHY_NOT)
class ZeroShot(Case):
    def test_equals_open_clips(self):
        for n_ranks in (None, 1, 2, 3):
            with self.subTest(n_ranks=n_ranks):
                self.head("--vocab", vocabulary.PATH, n_ranks=n_ranks)
                made = self.made()
                error = np.abs(made["weight"] - self.weight).max()
                self.assertLessEqual(error, 1e-5 * np.abs(self.weight).max())

    def test_more_ranks_than_classes(self):
        self.write("names.txt", "\n".join(self.names[:2]))
        self.head("--vocab", vocabulary.PATH, n_ranks=3)
        error = np.abs(self.made()["weight"] - self.weight[:2]).max()
        self.assertLessEqual(error, 1e-5 * np.abs(self.weight).max())

    def test_names_prompts_and_origin_are_kept(self):
        self.head("--vocab", vocabulary.PATH)
        made = self.made()
        self.assertEqual([n.decode() for n in made["class_names"]], self.names)
        self.assertEqual([p.decode() for p in made["prompts"]], self.templates)
        origin = json.loads(made["provenance"])
        self.assertEqual(origin["program"], "magmax_head")
        self.assertIn("clip.safetensors", origin["options"]["load"])

    def test_json_lists_and_foreign_line_ends(self):
        self.head("--vocab", vocabulary.PATH)
        weight = self.made()["weight"]
        self.write("names.txt", json.dumps(self.names))
        self.write("prompts.txt", "\r\n".join(self.templates) + "\r\n")
        self.head("--vocab", vocabulary.PATH)
        self.assertEqual(self.made()["weight"].tobytes(), weight.tobytes())

    def test_nothing_that_is_read_is_overwritten(self):
        (self.dir / "clip.safetensors").write_bytes(
            (TINY / "clip.safetensors").read_bytes())
        for name in ("clip.safetensors", "names.txt", "prompts.txt"):
            before = (self.dir / name).read_bytes()
            proc = cli.run("magmax_head", "--load",
                           self.dir / "clip.safetensors", "--classnames",
                           self.dir / "names.txt", "--templates",
                           self.dir / "prompts.txt", "-o", self.dir / name)
            self.assert_one_line_error(proc, f"{name} would overwrite what")
            self.assertEqual((self.dir / name).read_bytes(), before)

    def test_scale_replaces_the_weights_own(self):
        self.head("--vocab", vocabulary.PATH, "--scale", 7)
        norms = np.linalg.norm(np.float64(self.made()["weight"]), axis=1)
        np.testing.assert_allclose(norms, 7, rtol=1e-6)

    def test_the_name_goes_wherever_the_braces_are(self):
        self.write("names.txt", "cat")
        self.write("prompts.txt", "{} and {}")
        self.head("--vocab", vocabulary.PATH)
        twice = self.made()["weight"]
        self.write("names.txt", "cat and cat")
        self.write("prompts.txt", "{}")
        self.head("--vocab", vocabulary.PATH)
        self.assertEqual(self.made()["weight"].tobytes(), twice.tobytes())

    def test_classes_and_prompts_of_a_benchmark(self):
        proc = self.head("--vocab", vocabulary.PATH, "--dataset", "CIFAR10",
                         lists=False)
        self.assertIn("10 classes, 18 prompts", proc.stderr)
        made = self.made()
        self.assertIn(b"airplane", made["class_names"])
        self.assertEqual(made["prompts"][0], b"a photo of a {}.")
        self.assertEqual(made["weight"].shape, (10, 32))

    def test_class_names_of_a_file(self):
        cli.make_npz(self.dir / "data.npz")
        cli.run_ok("magmax_pack", "--dataset", self.dir / "data.npz", "-o",
                   self.dir / "data.h5")
        self.refused("data.h5", "--classnames", lists=False,
                     args=["--vocab", vocabulary.PATH,
                           "--dataset", self.dir / "data.h5"])
        with h5py.File(self.dir / "data.h5", "a") as file:
            file.create_dataset("class_names", (4,), h5py.string_dtype(),
                                data=["cat", "dog", "Ente", "Maus"])
        self.head("--vocab", vocabulary.PATH, "--dataset",
                  self.dir / "data.h5", lists=False)
        made = self.made()
        self.assertEqual(made["class_names"].tolist(),
                         [b"cat", b"dog", b"Ente", b"Maus"])
        self.assertEqual(made["prompts"].tolist(), [b"a photo of a {}."])

    def test_twins_are_warned_of(self):
        self.write("names.txt", "cat\ndog\ncat\n")
        proc = self.head("--vocab", vocabulary.PATH)
        self.assertIn("warning: classes 1 and 3 are both 'cat'", proc.stderr)

    def test_text_that_is_not_utf8(self):
        (self.dir / "names.txt").write_bytes(b"cat\nd\xffg\n")
        self.refused("class 2", "UTF-8", args=["--vocab", vocabulary.PATH])

    def test_a_vocabulary_is_needed(self):
        self.refused("cannot open", "none",
                     args=["--vocab", self.dir / "none"])


class Refusals(Case):
    def test_weights_without_the_text_tower(self):
        self.refused("does not contain the tensor positional_embedding", "text tower",
                     load=TINY / "seq/task_000.safetensors", n_ranks=2)

    def test_a_model_without_the_text_tower(self):
        cli.make_model(self.dir / "model.json")
        proc = cli.run("magmax_head", "--model", self.dir / "model.json",
                       "--load", TINY / "clip.safetensors", "--classnames",
                       self.dir / "names.txt", "-o", self.dir / "head.h5")
        self.assert_one_line_error(proc, "text_cfg")

    def test_no_classes(self):
        self.refused("--dataset or --classnames", lists=False)

    def test_an_unknown_benchmark(self):
        self.refused("CIFAR11", "CIFAR10", lists=False,
                     args=["--dataset", "CIFAR11"])

    def test_what_is_missing_is_named(self):
        for drop, name in (("--load", "--load"), ("-o", "--output")):
            args = ["--load", TINY / "clip.safetensors", "-o",
                    self.dir / "head.h5", "--classnames",
                    self.dir / "names.txt"]
            at = args.index(drop)
            proc = cli.run("magmax_head", *args[:at], *args[at + 2:])
            self.assert_one_line_error(proc, name)

    def test_options_of_other_heads(self):
        self.refused("--seed", args=["--seed", 3])
        self.refused("--classnames", args=["--orthonormal", "--dataset", "x"])

    def test_bad_lists(self):
        for name, content, fragments in (
                ("prompts.txt", "a {}.\na photo\n", (":2", "a photo", "{}")),
                ("prompts.txt", "", ("prompts.txt", "no prompt")),
                ("names.txt", "cat\n\ndog\n", (":2", "empty class name")),
                ("names.txt", "cat\n \n", (":2", "empty class name")),
                ("names.txt", "", ("names.txt", "no class name")),
                ("names.txt", '["cat", 3]', ("element 2",)),
                ("names.txt", '["cat", ""]', (":2", "empty")),
                ("names.txt", "[cat", ("names.txt:1",))):
            with self.subTest(name=name, content=content):
                kept = (self.dir / name).read_text()
                self.write(name, content)
                self.refused(*fragments, n_ranks=2)
                self.write(name, kept)
        (self.dir / "names.txt").unlink()
        self.refused("names.txt")


class NamesOfRows(cli.Case):
    """What is said where a head and a data set name their classes."""

    def setUp(self):
        super().setUp()
        self.inputs = self.make_inputs()
        cli.run_ok("magmax_pack", "--dataset", self.dir / "data.npz", "-o",
                   self.dir / "data.h5")
        self.inputs[-1] = self.dir / "data.h5"
        self.name(self.dir / "data.h5", ["great cat", "dog", "duck", "mouse"])

    def name(self, path, names):
        with h5py.File(path, "a") as file:
            if "class_names" in file:
                del file["class_names"]
            file.create_dataset("class_names", (len(names),),
                                h5py.string_dtype(), data=names)

    def evaluate(self, runner=cli.run_ok):
        return runner("magmax_eval", *self.inputs, "--json", n_ranks=2)

    def test_the_same_names_are_nothing_to_speak_of(self):
        without = self.evaluate()
        self.name(self.dir / "head.h5", ["Great_cat", "dog", "duck", "mouse"])
        proc = self.evaluate()
        self.assertNotIn("warning", proc.stderr)
        self.assertEqual(proc.json(), without.json())

    def test_other_names_are_warned_of_once(self):
        self.name(self.dir / "head.h5", ["great cat", "duck", "dog", "mouse"])
        proc = self.evaluate()
        self.assertEqual(proc.stderr.count("warning"), 1)
        self.assertIn("class 1 is 'duck'", proc.stderr)
        self.assertIn("'dog'", proc.stderr)

    def test_as_many_names_as_rows(self):
        self.name(self.dir / "head.h5", ["great cat", "duck"])
        self.assert_one_line_error(self.evaluate(cli.run), "4 rows",
                                   "2 class_names")

    def test_names_that_are_no_list_of_strings(self):
        with h5py.File(self.dir / "head.h5", "a") as file:
            file["class_names"] = np.arange(4)
        self.assert_one_line_error(self.evaluate(cli.run), "head.h5",
                                   "class_names")

    def test_prototypes_take_the_data_sets_names(self):
        at = self.inputs.index("--head")
        cli.run_ok("magmax_head", *self.inputs[:at], *self.inputs[at + 2:],
                   "--prototypes", "-o", self.dir / "made.h5")
        with h5py.File(self.dir / "made.h5") as file:
            self.assertEqual(file["class_names"][0], b"great cat")
            self.assertNotIn("prompts", file)


if __name__ == "__main__":
    cli.main()
