"""Paths and names of any bytes through every program: all work, and what they
record is UTF-8 that tells the bytes (src/base/utf8.h).

ctest: cost=15
"""

import json
import os
import shutil
import struct
import unittest

import h5py
import magmax_cli as cli
import numpy as np
from PIL import Image
import vocabulary

# Latin-1, as old disks have it; what is stored; and a name that looks like that.
NAME = os.fsdecode(b"caf\xe9")
STORED = r"caf\xE9"
QUICK = ["--epochs", 1, "--batch-size", 8, "--warmup-length", 2]


def stored(path):
    """The stored form of a path, for those that this test makes."""
    return str(path).replace("\udce9", r"\xE9")


def as_bytes(value):
    """Texts that h5py gives, as they are in the file."""
    if isinstance(value, str):
        return [value.encode("utf-8", "surrogateescape")]
    if isinstance(value, bytes):
        return [bytes(value)]
    return [text for item in np.ravel(value) for text in as_bytes(item)]


def texts(path):
    """{name: [text]} of all strings in an HDF5 file; each must be UTF-8 where
    the file says so."""
    found = {}

    def add(name, item):
        info = h5py.check_string_dtype(item.dtype)
        if info is None:
            return
        raw = as_bytes(item[()] if isinstance(item, h5py.Dataset)
                       else item.value)
        found[name] = [text.decode(info.encoding) for text in raw]

    class Attribute:
        def __init__(self, owner, name):
            self.dtype = owner.attrs.get_id(name).dtype
            self.value = owner.attrs[name]

    def visit(name, item):
        if isinstance(item, h5py.Dataset):
            add(name, item)
        for key in item.attrs:
            add(f"{name}@{key}", Attribute(item, key))

    with h5py.File(path) as file:
        visit("", file)
        file.visititems(visit)
    return found


def provenance(path):
    found = texts(path)
    text, = found.get("provenance") or found["@provenance"]
    return json.loads(text)


class AnyBytes(cli.Case):
    def setUp(self):
        super().setUp()
        self.make_inputs()
        self.folder = self.dir / NAME
        self.folder.mkdir()
        for file in ("model.json", "theta0.safetensors", "head.h5", "data.npz"):
            (self.dir / file).rename(self.folder / file)
        self.model = ["--model", self.folder / "model.json",
                      "--load", self.folder / "theta0.safetensors"]
        self.data = ["--dataset", self.folder / "data.npz"]
        self.head = ["--head", self.folder / "head.h5"]

    def make_photos(self, *names):
        """Folders of two images each, in a folder of the name; gives it."""
        root = self.folder / "photos"
        for c, name in enumerate(names):
            (root / name).mkdir(parents=True)
            for i, file in enumerate(("a.png", NAME + ".png")):
                pixels = np.full((9, 8, 3), 40 * c + 20 * i, np.uint8)
                Image.fromarray(pixels).save(root / name / "image.png")
                (root / name / "image.png").rename(root / name / file)
        return root

    def assert_recorded(self, options, **expected):
        for name, path in expected.items():
            self.assertEqual(options[name], stored(path))

    def test_train(self):
        save = self.folder / "run"
        args = [*self.model, *self.head, *self.data, "--save", save, *QUICK]
        cli.run_ok("magmax_train", *args)
        config = json.loads((save / "config.json").read_text())
        made = provenance(save / "task_000.h5")
        for options in (config["options"], made["options"]):
            self.assert_recorded(
                options, load=self.folder / "theta0.safetensors",
                model=self.folder / "model.json", save=save,
                head=self.folder / "head.h5", dataset=self.folder / "data.npz")
        for line in (save / "log.jsonl").read_text().splitlines():
            json.loads(line)
        proc = cli.run_ok("magmax_train", *args)
        self.assertIn("finished already", proc.stderr)

    def test_a_run_is_not_continued_under_a_name_that_looks_alike(self):
        save = self.dir / "run"
        args = [*self.model, *self.head, "--save", save, *QUICK, "--dataset"]
        cli.run_ok("magmax_train", *args, self.folder / "data.npz")
        shutil.copytree(self.folder, self.dir / STORED)
        proc = cli.run("magmax_train", *args, self.dir / STORED / "data.npz")
        self.assert_one_line_error(proc, "--dataset was", "x5CxE9")

    def test_eval(self):
        features = self.folder / "features.h5"
        proc = cli.run_ok("magmax_eval", *self.model, *self.head, *self.data,
                          "--json", "--save-features", features)
        self.assertEqual(proc.json()["load"],
                         stored(self.folder / "theta0.safetensors"))
        with h5py.File(features) as file:
            self.assertEqual(file["features"].shape, (32, 8))

    def test_merge(self):
        theta0 = self.folder / "theta0.safetensors"
        tuned, out = self.folder / "tuned.safetensors", self.folder / "out.h5"
        shutil.copy(theta0, tuned)
        proc = cli.run_ok("magmax_merge", "--json", "--pretrained", theta0,
                          "-o", out, tuned, n_ranks=2)
        self.assertEqual(proc.json()["output"], stored(out))
        made = provenance(out)
        self.assertEqual(made["pretrained"], stored(theta0))
        self.assertEqual(made["inputs"], [stored(tuned)])
        self.assertEqual(made["options"]["operands"], [stored(tuned)])
        self.assert_recorded(made["options"], pretrained=theta0, output=out)

    def test_convert(self):
        theta0 = self.folder / "theta0.safetensors"
        first, second = self.folder / "out.h5", self.folder / "2.safetensors"
        cli.run_ok("magmax_convert", theta0, first, *self.model[:2])
        made = provenance(first)
        self.assertEqual(made["options"]["operands"],
                         [stored(theta0), stored(first)])
        cli.run_ok("magmax_convert", first, second)
        data = second.read_bytes()
        length, = struct.unpack("<Q", data[:8])
        metadata = json.loads(data[8:8 + length].decode())["__metadata__"]
        again = json.loads(metadata["provenance"])
        self.assertEqual(again["options"]["operands"],
                         [stored(first), stored(second)])
        self.assertEqual(again["source"], made)

    def test_pack_and_read_back(self):
        names = sorted([NAME, "caf\u00e9", STORED, "dog"], key=os.fsencode)
        expected = [r"caf\x5CxE9", "caf\u00e9", STORED, "dog"]
        photos = self.make_photos(*names)
        first, second = self.folder / "first.h5", self.folder / "second.h5"
        cli.run_ok("magmax_pack", "--dataset", photos, "-o", first)
        found = texts(first)
        self.assertEqual(found["class_names"], expected)
        self.assertEqual(found["train/paths"],
                         [f"{name}/{file}" for name in expected
                          for file in ("a.png", STORED + ".png")])
        self.assert_recorded(provenance(first)["options"], dataset=photos,
                             output=first)
        # What was read back is stored alike.
        cli.run_ok("magmax_pack", "--dataset", first, "-o", second)
        again = texts(second)
        for name in ("class_names", "train/paths"):
            self.assertEqual(again[name], found[name])

    def test_prototypes_and_what_eval_compares(self):
        photos = self.make_photos(NAME, "dog")
        packed, head = self.folder / "photos.h5", self.folder / "own.h5"
        cli.run_ok("magmax_pack", "--dataset", photos, "-o", packed)
        for dataset in (photos, packed):
            cli.run_ok("magmax_head", "--prototypes", *self.model, "--dataset",
                       dataset, "-o", head)
            self.assertEqual(texts(head)["class_names"], [STORED, "dog"])
            self.assert_recorded(provenance(head)["options"], dataset=dataset,
                                 output=head)
            for other in (photos, packed):
                proc = cli.run_ok("magmax_eval", *self.model, "--head", head,
                                  "--dataset", other)
                self.assertNotIn("warning", proc.stderr)
        (photos / NAME).rename(photos / STORED)
        proc = cli.run_ok("magmax_eval", *self.model, "--head", head,
                          "--dataset", photos)
        self.assertIn("is this head for these classes", proc.stderr)

    def test_an_image_that_is_bad_is_named(self):
        photos = self.make_photos("cat", "dog")
        (photos / "cat" / (NAME + ".png")).write_bytes(b"no image")
        proc = cli.run("magmax_pack", "--dataset", photos, "--resize", 8,
                       "-o", self.dir / "out.h5")
        self.assert_one_line_error(proc, "cat/caf")
        cli.run_ok("magmax_pack", "--dataset", photos, "--resize", 8,
                   "--skip-bad-images", "-o", self.dir / "out.h5")
        self.assertEqual(len(texts(self.dir / "out.h5")["train/paths"]), 3)

    @unittest.skipIf(vocabulary.PATH is None, vocabulary.WHY_NOT)
    def test_zero_shot_from_files_of_such_names(self):
        tiny, head = cli.GOLDEN / "tiny", self.folder / "own.h5"
        names, prompts = self.folder / "names.txt", self.folder / "prompts.txt"
        names.write_text("caf\u00e9\n" + STORED + "\n")
        prompts.write_text("a {}\n")
        cli.run_ok("magmax_head", "--model", tiny / "model.json",
                   "--load", tiny / "clip.safetensors",
                   "--vocab", vocabulary.PATH, "--classnames", names,
                   "--templates", prompts, "-o", head)
        found = texts(head)
        self.assertEqual(found["class_names"], ["caf\u00e9", r"caf\x5CxE9"])
        self.assert_recorded(provenance(head)["options"], classnames=names,
                             templates=prompts)
        ids = cli.run_ok("magmax_head", "--tokens", names,
                         "--vocab", vocabulary.PATH).json()
        self.assertEqual(len(ids), 2)


class Tensors(cli.Case):
    """Names of tensors, and the model's text, in HDF5 files of other makers."""

    def write(self, path, names, model=None):
        with h5py.File(path, "w") as file:
            group = file.create_group("model")
            for i, name in enumerate(names):
                group.create_dataset(name, data=np.full(3, i, "<f4"))
            if model is not None:
                file.attrs.create("model", np.bytes_(model))

    def merge(self, base, tuned, out):
        cli.run_ok("magmax_merge", "--pretrained", self.dir / base,
                   "-o", self.dir / out, self.dir / tuned)

    def names(self, path):
        with h5py.File(self.dir / path) as file:
            return [key if isinstance(key, bytes) else key.encode()
                    for key in file["model"]]

    def test_names_of_tensors_go_through_a_merge(self):
        names = [b"caf\xe9", "caf\u00e9".encode(), rb"caf\xE9"]
        self.write(self.dir / "base.h5", names)
        self.write(self.dir / "tuned.h5", reversed(names))
        self.merge("base.h5", "tuned.h5", "out.h5")
        self.assertEqual(sorted(self.names("out.h5")), sorted(names))
        lines = texts(self.dir / "out.h5")["manifest"][0].splitlines()
        self.assertEqual(sorted(line.split("  ")[1] for line in lines[:3]),
                         sorted([STORED, "caf\u00e9", r"caf\x5CxE9"]))
        # The manifest is what the merged file is checked by.
        self.merge("out.h5", "base.h5", "again.h5")
        self.assertEqual(sorted(self.names("again.h5")), sorted(names))

    def test_a_model_that_is_no_json_goes_through_a_merge(self):
        # The second is too long for an attribute once it is escaped.
        for model in (b"{\"name\": \"caf\xe9\"}", b"\xe9" * 20000):
            with self.subTest(n_bytes=len(model)):
                self.write(self.dir / "base.h5", [b"w"], model)
                self.merge("base.h5", "base.h5", "out.h5")
                found = texts(self.dir / "out.h5")
                text, = found.get("@model") or found["model_config"]
                self.assertIn(r"\xE9", text)
                self.merge("out.h5", "base.h5", "again.h5")


if __name__ == "__main__":
    cli.main()
