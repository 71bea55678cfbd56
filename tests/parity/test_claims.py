#!/usr/bin/env python3
"""Files that claim sizes and numbers which look harmless once they are cut to 32
bits, or which would take all memory: each is refused, whatever reads it.

What is wrong with files otherwise: test_files.py, test_torch.py.
"""

import json
import struct
import unittest
import zipfile

import h5py
import magmax_cli as cli
import numpy as np

E_FORMAT, E_VALUE = 3, 4
WRAP = 2 ** 32
IMAGES = np.arange(2 * 5 * 6, dtype=np.uint8).reshape(2, 5, 6)

# Address space in KiB: much less than what the files claim.
MEMORY_KIB = 4 << 20


def run(*args):
    """As cli.run, in little memory. The sanitizer reserves more than that."""
    limit = "" if cli.SANITIZED else f"ulimit -v {MEMORY_KIB}; "
    return cli.run("/bin/sh", "-c", limit + 'exec "$@"', "sh",
                   *cli.command(*args))


def npy(descr, shape, data):
    text = (f"{{'descr': '{descr}', 'fortran_order': False, "
            f"'shape': {shape}}}").encode()
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + data


class Claims(cli.Case):
    def path(self, name):
        return self.dir / name

    def refused(self, code, words, *args):
        proc = run("file_tool", *args, self.path("out"))
        self.assertEqual(proc.returncode, code, proc)
        self.assertIn(words, proc.stdout)


class Datasets(Claims):
    def write_npz(self, **arrays):
        with zipfile.ZipFile(self.path("d.npz"), "w") as z:
            for name, array in {
                    "train_images": npy("|u1", (2, 5, 6), IMAGES.tobytes()),
                    "train_labels": npy("<i8", (2,), bytes(16)),
                    **arrays}.items():
                z.writestr(name + ".npy", array)
        return self.path("d.npz")

    def test_labels_and_domains_of_npz(self):
        for descr, number in (("<i8", WRAP + 1), ("<u8", WRAP), ("<u4", 2 ** 31),
                              (">i8", 2 ** 62), ("<i8", -WRAP + 1),
                              ("<u8", 2 ** 64 - WRAP + 1)):
            for name in ("train_labels", "train_domains"):
                with self.subTest(descr=descr, number=number, name=name):
                    array = np.array([0, number], descr)
                    path = self.write_npz(
                        **{name: npy(descr, (2,), array.tobytes())})
                    self.refused(E_VALUE, f"{name}[1]", "dataset", path)

    def test_shapes_of_npz(self):
        for shape in ((WRAP + 2, 5, 6), (2, WRAP + 5, 6), (2, 5, 6, WRAP + 1),
                      (2 ** 62, 2, 2, 1), (2, 2 ** 31, 2 ** 31)):
            with self.subTest(shape=shape):
                path = self.write_npz(
                    train_images=npy("|u1", shape, IMAGES.tobytes()))
                self.refused(E_FORMAT, "train_images", "dataset", path)
        path = self.write_npz(train_labels=npy("<i8", (WRAP + 2,), bytes(16)))
        self.refused(E_FORMAT, "train_labels", "dataset", path)

    def test_sizes_of_an_archives_members(self):
        """Both sizes in the directory: 3 GB that the file does not have."""
        size = 3 * 10 ** 9
        images = npy("|u1", (size // 30, 5, 6), b"")
        size = size // 30 * 30 + len(images)
        data = bytearray(
            self.write_npz(train_images=images).read_bytes())
        entry = data.find(b"PK\1\2")
        self.assertEqual(data[entry + 46:entry + 62], b"train_images.npy")
        for at in (18, entry + 20): # of the member, and of its entry
            struct.pack_into("<II", data, at, size, size)
        self.path("d.npz").write_bytes(data)
        self.refused(E_FORMAT, "train_images", "dataset", self.path("d.npz"))

    def test_sizes_of_idx(self):
        for name, count in (("train", 2), ("t10k", 2)):
            self.path(f"{name}-images-idx3-ubyte").write_bytes(
                struct.pack(">4I", 0x803, count, 5, 6) + IMAGES.tobytes())
            self.path(f"{name}-labels-idx1-ubyte").write_bytes(
                struct.pack(">2I", 0x801, count) + bytes(count))
        self.assertEqual(run("file_tool", "dataset", self.dir,
                             self.path("out")).returncode, 0)
        images = self.path("train-images-idx3-ubyte")
        for shape in ((2, 2 ** 31, 2), (2 ** 31, 2 ** 31, 4),
                      (2 ** 32 - 1, 65536, 65536), (2, 65536 + 5, 6)):
            with self.subTest(shape=shape):
                images.write_bytes(struct.pack(">4I", 0x803, *shape)
                                   + IMAGES.tobytes())
                self.refused(E_FORMAT, "train-images", "dataset", self.dir)

    def write_packed(self, path="d.h5", **change):
        """A packed data set; a shape instead of an array is only claimed."""
        arrays = {"train/images": IMAGES, "train/labels": np.zeros(2, "<i8"),
                  **change}
        with h5py.File(self.path(path), "w") as file:
            for name, value in arrays.items():
                if isinstance(value, tuple):
                    file.create_dataset(name, value[1:], value[0])
                elif value is not None:
                    file[name] = value
        return self.path(path)

    def test_labels_and_domains_of_packed_sets(self):
        for kind, number in (("<i8", WRAP + 1), ("<u8", 2 ** 64 - WRAP + 1),
                             ("<u4", 2 ** 31), ("<i8", -WRAP)):
            for name in ("train/labels", "train/domains"):
                with self.subTest(kind=kind, number=number, name=name):
                    path = self.write_packed(
                        **{name: np.array([0, number], kind)})
                    self.refused(E_VALUE, f"{name}[1]", "dataset", path)

    def test_shapes_of_packed_sets(self):
        many = WRAP + 2
        for words, change in (
                ("images", {"train/images": ("u1", many, 5, 6)}),
                ("side", {"train/images": ("u1", 2, WRAP + 5, 6)}),
                ("[N, H, W, 3]", {"train/images": ("u1", 2, 5, 6, WRAP + 1)}),
                ("impossible shape",
                 {"train/images": ("u1", 2 ** 60, 65536, 65536)}),
                ("for each of 2", {"train/labels": ("<i4", many)}),
                ("for each of 2", {"train/domains": ("<i4", many)}),
                ("class_names",
                 {"class_names": (h5py.string_dtype(), many)}),
                ("train/paths", {"train/paths": (h5py.string_dtype(), many)})):
            with self.subTest(change=change):
                self.refused(E_FORMAT, words, "dataset",
                             self.write_packed(**change))

    def test_offsets_of_packed_sets(self):
        bytes_ = {"train/images": None, "train/bytes": np.zeros(8, "u1")}
        for words, offsets in (
                ("cover", np.array([0, 4, WRAP + 8])),
                ("in order", np.array([0, 2 ** 63 + 4, 8], "<u8")),
                ("in order", np.array([0, -WRAP + 4, 8])),
                ("than the file can hold", ("<i8", WRAP + 3)),
                ("than the file can hold", ("<i8", 2 ** 30))):
            with self.subTest(offsets=offsets):
                self.refused(E_FORMAT, words, "dataset", self.write_packed(
                    **bytes_, **{"train/offsets": offsets}))

    def test_versions_of_formats(self):
        for version in (WRAP + 1, 2 ** 63 - 1, -WRAP + 1):
            with self.subTest(version=version):
                path = self.write_packed()
                with h5py.File(path, "a") as file:
                    file.attrs["format"] = "magmax-dataset"
                    file.attrs.create("format_version", version, dtype="<i8")
                self.refused(E_FORMAT, "format version", "dataset", path)


class Weights(Claims):
    def test_shapes_of_hdf5(self):
        for shape in ((WRAP + 2,), (WRAP, WRAP), (2 ** 60,), (2 ** 31, 8)):
            with self.subTest(shape=shape):
                with h5py.File(self.path("w.h5"), "w") as file:
                    file.create_dataset("model/w", shape, "<f4")
                self.refused(E_FORMAT, "w", "floats", self.path("w.h5"))

    def test_sizes_of_numbers_in_hdf5(self):
        """2^29 bytes are 2^32 bits."""
        for n_bytes in (2 ** 29 + 4, 2 ** 31 - 1):
            with self.subTest(n_bytes=n_bytes):
                kind = h5py.h5t.STD_I32LE.copy()
                kind.set_size(n_bytes)
                with h5py.File(self.path("w.h5"), "w") as file:
                    space = h5py.h5s.create_simple((2,))
                    h5py.h5d.create(file.id, b"w", kind, space)
                proc = run("file_tool", "kind", self.path("w.h5"))
                self.assertEqual(proc.stdout, "hdf5\n?\n")
                self.refused(E_FORMAT, f"has type I{8 * n_bytes}", "floats",
                             self.path("w.h5"))

    def test_safetensors(self):
        def write(shape, begin, end):
            text = json.dumps({"a": {"dtype": "F32", "shape": shape,
                                     "data_offsets": [begin, end]}}).encode()
            self.path("w").write_bytes(struct.pack("<Q", len(text)) + text
                                       + bytes(8))
            return self.path("w")
        for shape, begin, end in (
                ([WRAP + 2], 0, 8), ([2 ** 31, 2 ** 31, 4], 0, 8),
                ([2 ** 60 + 2], 0, 8), ([2], 0, WRAP + 8),
                ([2], WRAP, WRAP + 8), ([2], 2 ** 63 - 9, 2 ** 63 - 1)):
            with self.subTest(shape=shape, begin=begin, end=end):
                self.refused(E_FORMAT, "tensor a", "floats",
                             write(shape, begin, end))
        self.path("w").write_bytes(struct.pack("<Q", WRAP + 2) + b"{}")
        self.refused(E_FORMAT, "at most", "floats", self.path("w"))


class Heads(Claims):
    """What programs do with such a file, beyond what the io layer refuses."""

    def setUp(self):
        super().setUp()
        self.args = self.make_inputs()
        self.args[self.args.index("--head") + 1] = self.path("many")

    def refused(self, *words):
        proc = run("magmax_eval", *self.args)
        self.assert_one_line_error(proc, *words)

    def test_classes_of_safetensors(self):
        n, width = WRAP + 4, 8
        text = json.dumps({"weight": {
            "dtype": "F16", "shape": [n, width],
            "data_offsets": [0, 2 * n * width]}}).encode()
        with open(self.path("many"), "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            file.truncate(8 + len(text) + 2 * n * width)  # a hole
        self.refused("more classes than any data set has")

    def test_classes_and_names_of_hdf5(self):
        with h5py.File(self.path("many"), "w") as file:
            file["weight"] = np.zeros((4, 8), "<f4")
            file.create_dataset("class_names", (WRAP + 4,),
                                h5py.string_dtype())
        self.refused("class_names")

    def test_sizes_of_a_model(self):
        cli.make_head(self.path("many"))
        path = self.path("model.json")
        config = json.loads(path.read_text())
        for name in ("image_size", "patch_size", "width", "layers",
                     "head_width"):
            for number in (config["vision_cfg"][name] + WRAP, 2 ** 64):
                with self.subTest(name=name, number=number):
                    vision = {**config["vision_cfg"], name: number}
                    path.write_text(json.dumps(
                        {**config, "vision_cfg": vision}))
                    self.refused("model.json")


if __name__ == "__main__":
    cli.main()
