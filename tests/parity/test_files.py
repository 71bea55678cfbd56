#!/usr/bin/env python3
"""The io layer against h5py, NumPy and the safetensors format.

file_tool (this folder) is the io layer's side; MAGMAX_TEST_BIN says where it
was built.
"""

import gzip
import io
import json
import os
import struct
import subprocess
import tempfile
import unittest
import zipfile
import zlib
from pathlib import Path

import h5py
import magmax_cli as cli
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = cli.GOLDEN / "tiny"
TOOL = Path(os.environ.get("MAGMAX_TEST_BIN", ROOT / "build/bin-test"))
E_IO, E_FORMAT, E_VALUE = 2, 3, 4


def run(*args):
    """Exit status and text of file_tool."""
    done = subprocess.run([str(TOOL / "file_tool"), *map(str, args)],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, timeout=cli.DEADLINE_S)
    assert done.stderr == "", done.stderr
    return done.returncode, done.stdout


def read_safetensors(path):
    data = Path(path).read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + size])
    header.pop("__metadata__", None)
    types = {"F32": "<f4", "F64": "<f8", "F16": "<f2", "U8": "u1"}
    tensors = {}
    for name, t in sorted(header.items(), key=lambda x: x[1]["data_offsets"]):
        begin, end = (8 + size + x for x in t["data_offsets"])
        tensors[name] = np.frombuffer(
            data[begin:end], types[t["dtype"]]).reshape(t["shape"])
    return tensors


def safetensors(header, data=b"", text=None):
    text = json.dumps(header).encode() if text is None else text
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


class Case(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def path(self, name):
        return self.folder / name

    def works(self, *args):
        code, text = run(*args)
        self.assertEqual(code, 0, text)
        return text

    def fails(self, code, words, *args):
        got, text = run(*args)
        self.assertEqual(got, code, text)
        self.assertIn(words, text)
        self.assertEqual(text.count("\n"), 1)


class Checkpoints(Case):
    def setUp(self):
        super().setUp()
        self.source = GOLDEN / "seq/task_000.safetensors"
        self.out = self.path("task_000.h5")
        self.works("copy", self.source, self.out)

    def test_h5py_sees_names_shapes_and_values(self):
        golden = read_safetensors(self.source)
        with h5py.File(self.out, "r") as f:
            self.assertEqual(f["model/visual.conv1.weight"].shape,
                             (64, 3, 8, 8))
            self.assertEqual(set(f["model"]), set(golden))
            for name, values in golden.items():
                dataset = f["model"][name]
                self.assertEqual(dataset.dtype, np.dtype("<f4"))
                self.assertIsNone(dataset.chunks)
                np.testing.assert_array_equal(dataset[()], values)
            self.assertEqual(f.attrs["format"], b"magmax-checkpoint")
            self.assertEqual(f.attrs["format_version"], 1)
            self.assertEqual(json.loads(f.attrs["model"])["embed_dim"], 32)
            self.assertEqual(json.loads(f["provenance"][()])["trained"],
                             "by a test")

    def test_manifest_is_zlib_crc32_of_the_bytes_in_order(self):
        golden = read_safetensors(self.source)
        with h5py.File(self.out, "r") as f:
            text = f["manifest"][()].decode()
            provenance = f["provenance"][()]
        lines = text.splitlines()
        expected = [f"{zlib.crc32(v.tobytes()):08x}  {n}"
                    for n, v in golden.items()]
        expected.append(f"{zlib.crc32(provenance):08x}  /provenance")
        self.assertEqual(lines[:-1], expected)
        body = "".join(line + "\n" for line in expected).encode()
        self.assertEqual(lines[-1], f"{zlib.crc32(body):08x}  manifest")

    def test_h5dump_reads_it(self):
        done = subprocess.run(["h5dump", "-d", "/model/visual.class_embedding",
                               str(self.out)], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("H5T_IEEE_F32LE", done.stdout)

    def test_order_is_that_of_writing(self):
        with h5py.File(self.path("in.h5"), "w", track_order=True) as f:
            for name in "zax":
                f.create_dataset(name, data=np.zeros(3, "<f4"))
        self.works("copy", self.path("in.h5"), self.out)
        text = self.works("floats", self.out, self.path("raw"))
        names = [x.split()[1] for x in text.splitlines()
                 if x.startswith("tensor")]
        self.assertEqual(names, list("zax"))

    def test_same_bytes_each_time(self):
        self.works("copy", self.source, self.path("again.h5"))
        self.assertEqual(self.out.read_bytes(),
                         self.path("again.h5").read_bytes())

    def test_texts_come_back(self):
        text = self.works("floats", self.out, self.path("raw"))
        self.assertIn('model {"embed_dim": 32}\n', text)
        self.assertIn('provenance {"trained": "by a test"}\n', text)

    def test_one_changed_weight_is_found_and_named(self):
        with h5py.File(self.out, "r+") as f:
            f["model/visual.proj"][3, 5] += 1
        self.fails(E_FORMAT, "visual.proj", "floats", self.out,
                   self.path("raw"))

    def test_another_tensor_than_the_manifest_lists_is_found(self):
        with h5py.File(self.out, "r+") as f:
            f["model"].create_dataset("visual.more", data=np.ones(4, "<f4"))
        self.fails(E_FORMAT, "visual.more", "floats", self.out,
                   self.path("raw"))

    def test_a_checkpoint_without_manifest_is_unfinished(self):
        with h5py.File(self.out, "r+") as f:
            del f["manifest"]
        self.fails(E_FORMAT, "manifest", "floats", self.out, self.path("raw"))

    def test_a_newer_version_is_refused(self):
        with h5py.File(self.out, "r+") as f:
            f.attrs["format_version"] = 2
        self.fails(E_FORMAT, "version 2", "floats", self.out, self.path("raw"))


class Weights(Case):
    def check(self, path, tensors):
        text = self.works("floats", path, self.path("raw"))
        lines = [x for x in text.splitlines() if x.startswith("tensor")]
        self.assertEqual(
            lines, [f"tensor {n} {list(v.shape)}" for n, v in tensors.items()])
        raw = np.fromfile(self.path("raw"), "<f4")
        expected = np.concatenate(
            [v.astype("<f4").ravel() for v in tensors.values()])
        np.testing.assert_array_equal(raw, expected)

    def test_safetensors_golden_file(self):
        path = GOLDEN / "seq/task_000.safetensors"
        self.check(path, read_safetensors(path))

    def test_hdf5_of_h5py_in_a_group_in_the_root_and_behind_a_user_block(self):
        rng = np.random.default_rng(1)
        tensors = {"a": rng.normal(size=(3, 4)).astype("<f4"),
                   "b.half": rng.normal(size=(70, 9)).astype("<f2"),
                   "c.double": rng.normal(size=5).astype("<f8"),
                   "d.scalar": np.float32(2.5), "e.empty": np.zeros((0, 3))}
        for kind, options in (("model/", {}), ("", {}),
                              ("", {"libver": "latest"}),
                              ("model/", {"userblock_size": 512})):
            with self.subTest(kind=kind, **options):
                with h5py.File(self.path("w.h5"), "w", **options) as f:
                    for name, value in tensors.items():
                        f[kind + name] = value
                self.check(self.path("w.h5"), tensors)

    def test_every_half_number(self):
        halves = np.arange(65536, dtype="<u2").view("<f2")
        finite = halves[np.isfinite(halves)]
        with h5py.File(self.path("w.h5"), "w") as f:
            f["h"] = finite
        self.check(self.path("w.h5"), {"h": finite})

    def test_every_bfloat16(self):
        bits = np.arange(65536, dtype="<u2")
        values = (bits.astype("<u4") << 16).view("<f4")
        bits, values = bits[np.isfinite(values)], values[np.isfinite(values)]
        n = 2 * len(bits)
        self.path("w.safetensors").write_bytes(safetensors(
            {"b": entry("BF16", [len(bits)], 0, n)}, bits.tobytes()))
        self.check(self.path("w.safetensors"), {"b": values})
        kind = h5py.h5t.IEEE_F32LE.copy()
        kind.set_fields(15, 7, 8, 0, 7)
        kind.set_size(2)
        kind.set_ebias(127)
        with h5py.File(self.path("w.h5"), "w") as f:
            space = h5py.h5s.create_simple((len(bits),))
            plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            d = h5py.h5d.create(f.id, b"b", kind, space, plist)
            offset = d.get_offset()
        with open(self.path("w.h5"), "r+b") as f:
            f.seek(offset)
            f.write(bits.tobytes())
        self.check(self.path("w.h5"), {"b": values})

    def test_other_types_are_named_when_read(self):
        with h5py.File(self.path("w.h5"), "w") as f:
            f["big"] = np.ones(3, ">f4")
        self.fails(E_FORMAT, "tensor big has type big-endian F32", "floats",
                   self.path("w.h5"), self.path("raw"))

    def test_other_layouts_are_told_how_to_be_rewritten(self):
        with h5py.File(self.path("w.h5"), "w") as f:
            f.create_dataset("w", data=np.ones((4, 4), "<f4"), chunks=(2, 2),
                             compression="gzip")
        self.fails(E_FORMAT, "h5repack -l CONTI", "floats", self.path("w.h5"),
                   self.path("raw"))

    def test_what_is_no_weights_file(self):
        raw = self.path("raw")
        self.fails(E_IO, "No such file", "floats", self.path("none"), raw)
        self.fails(E_IO, "not a regular file", "floats", self.folder, raw)
        for content, words in ((b"", "truncated"), (b"PK\3\4" + bytes(99), "zip"),
                               (b"hello, world", "neither"),
                               (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5")):
            self.path("w").write_bytes(content)
            self.fails(E_FORMAT, words, "floats", self.path("w"), raw)
        with h5py.File(self.path("d.h5"), "w") as f:
            f.attrs["format"] = "magmax-dataset"
        self.fails(E_FORMAT, "magmax-dataset", "floats", self.path("d.h5"), raw)

    def test_nan_is_named(self):
        values = np.zeros(2000, "<f4")
        values[1234] = np.nan
        with h5py.File(self.path("w.h5"), "w") as f:
            f["model/w"] = values
        self.fails(E_VALUE, "element 1234 of tensor w", "floats",
                   self.path("w.h5"), self.path("raw"))

    def test_links_elsewhere_are_refused(self):
        with h5py.File(self.path("other.h5"), "w") as f:
            f["model/w"] = np.zeros(3, "<f4")
        with h5py.File(self.path("w.h5"), "w") as f:
            f["model/w"] = h5py.ExternalLink("other.h5", "/model/w")
        self.fails(E_FORMAT, "/model/w", "floats", self.path("w.h5"),
                   self.path("raw"))


class Safetensors(Case):
    def refuse(self, words, header=None, data=b"", text=None):
        self.path("w").write_bytes(safetensors(header, data, text))
        self.fails(E_FORMAT, words, "floats", self.path("w"), self.path("raw"))

    def test_holes_overlaps_and_ends(self):
        a, b = entry("F32", [2], 0, 8), entry("F32", [1], 8, 12)
        self.path("w").write_bytes(safetensors({"b": b, "a": a}, bytes(12)))
        text = self.works("floats", self.path("w"), self.path("raw"))
        self.assertEqual(text, "tensor a [2]\ntensor b [1]\n")
        self.refuse("hole", {"a": a, "b": entry("F32", [1], 12, 16)}, bytes(16))
        self.refuse("overlaps", {"a": a, "b": entry("F32", [1], 4, 8)}, bytes(8))
        self.refuse("hole", {"b": b}, bytes(12))
        self.refuse("truncated", {"a": a, "b": b}, bytes(11))
        self.refuse("belong to no tensor", {"a": a, "b": b}, bytes(13))

    def test_offsets_shapes_and_types(self):
        for bad in (entry("F32", [2], 8, 0), entry("F32", [2], -8, 0),
                    entry("F32", [3], 0, 8), entry("F99", [2], 0, 8),
                    entry("F32", [-2], 0, 8), entry("F32", [2.0], 0, 8),
                    entry("F32", [2 ** 62, 2 ** 62], 0, 8),
                    entry("F32", [2 ** 63 - 1], 0, 8),
                    entry("F32", [1] * 9 + [2], 0, 8),
                    {"dtype": "F32", "shape": [2]}, 7, [],
                    {"dtype": "F32", "shape": [2], "data_offsets": [0, 8, 9]},
                    {"dtype": "F32", "shape": 2, "data_offsets": [0, 8]},
                    {"dtype": 5, "shape": [2], "data_offsets": [0, 8]}):
            with self.subTest(bad=bad):
                self.refuse("w: tensor a ", {"a": bad}, bytes(8))
        self.refuse("too big", text=b'{"a":{"dtype":"F32","shape":[2],'
                    b'"data_offsets":[0,99999999999999999999]}}')

    def test_headers(self):
        t = b'{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
        self.refuse("duplicate", text=b'{"a":' + t + b',"a":' + t + b"}",
                    data=bytes(4))
        self.refuse("neither", text=b' {"a":' + t + b"}", data=bytes(4))
        self.refuse("header", text=b"{", data=b"")
        self.refuse("header", text=b"{}x")
        self.refuse("__metadata__", {"__metadata__": {"a": 1}})
        self.refuse("__metadata__", {"__metadata__": []})
        padded = b'{"a":' + t + b"}   "
        self.path("w").write_bytes(safetensors(None, bytes(4), padded))
        self.works("floats", self.path("w"), self.path("raw"))
        for size, words in ((2 ** 63, "at most"), (100000001, "at most"),
                            (99999999, "truncated")):
            self.path("w").write_bytes(struct.pack("<Q", size) + b"{}")
            self.fails(E_FORMAT, words, "floats", self.path("w"),
                       self.path("raw"))

    def test_metadata_and_scalars(self):
        header = {"__metadata__": {"model": '{"a": 1}', "format": "pt"},
                  "s": entry("F32", [], 0, 4)}
        self.path("w").write_bytes(safetensors(header, bytes(4)))
        self.assertEqual(self.works("floats", self.path("w"), self.path("raw")),
                         'tensor s []\nmodel {"a": 1}\n')

    def test_cut_anywhere(self):
        whole = (GOLDEN / "seq/task_000.safetensors").read_bytes()
        for size in (0, 7, 8, 9, 100, 5000, len(whole) - 1):
            self.path("w").write_bytes(whole[:size])
            self.fails(E_FORMAT, "", "floats", self.path("w"), self.path("raw"))


class Datasets(Case):
    def setUp(self):
        super().setUp()
        rng = np.random.default_rng(2)
        self.grey = rng.integers(0, 256, (7, 5, 6), dtype=np.uint8)
        self.colour = rng.integers(0, 256, (4, 5, 6, 3), dtype=np.uint8)

    def read(self, path):
        """A data set as the io layer sees it."""
        text = self.works("dataset", path, self.path("pixels"))
        pixels = self.path("pixels").read_bytes()
        lines = iter(text.splitlines())
        result = {"names": []}
        for split in ("train", "test"):
            word, *shape = next(lines).split()
            assert word == split
            n, h, w, c = map(int, shape)
            result[split] = np.frombuffer(pixels[:n * h * w * c], np.uint8)
            result[split] = result[split].reshape(n, h, w, c)
            pixels = pixels[n * h * w * c:]
            for what in ("labels", "domains"):
                word, *numbers = next(lines).split()
                assert word == what
                result[f"{split}_{what}"] = list(map(int, numbers))
        _, classes, _, domains = next(lines).split()
        result["n"] = (int(classes), int(domains))
        result["names"] = list(lines)
        return result

    def test_npz_of_every_integer_type(self):
        labels = [0, 1, 2, 3, 100, 5, 6]
        for save in (np.savez, np.savez_compressed):
            for kind in "u1 i1 <u2 <i2 <u4 <i4 <u8 <i8 >u2 >i2 >i4 >i8".split():
                for shape in ((7,), (7, 1)):
                    with self.subTest(save=save.__name__, kind=kind,
                                      shape=shape):
                        save(self.path("d.npz"), train_images=self.grey,
                             train_labels=np.array(labels, kind).reshape(shape),
                             test_images=self.colour,
                             test_labels=np.array([3, 2, 1, 0], kind),
                             val_images=self.grey)
                        d = self.read(self.path("d.npz"))
                        np.testing.assert_array_equal(d["train"][..., 0],
                                                      self.grey)
                        np.testing.assert_array_equal(d["test"], self.colour)
                        self.assertEqual(d["train_labels"], labels)
                        self.assertEqual(d["test_labels"], [3, 2, 1, 0])
                        self.assertEqual(d["n"], (101, 1))

    def test_npz_without_test_and_with_domains(self):
        np.savez(self.path("d.npz"), train_images=self.grey,
                 train_labels=np.arange(7), train_domains=np.arange(7) % 3)
        d = self.read(self.path("d.npz"))
        self.assertEqual(d["test"].shape[0], 0)
        self.assertEqual(d["train_domains"], [0, 1, 2, 0, 1, 2, 0])
        self.assertEqual(d["n"], (7, 3))

    def test_npz_format_versions(self):
        for version in ((1, 0), (2, 0), (3, 0)):
            with zipfile.ZipFile(self.path("d.npz"), "w") as z:
                for name, a in (("train_images", self.grey),
                                ("train_labels", np.arange(7))):
                    data = io.BytesIO()
                    np.lib.format.write_array(data, a, version=version)
                    z.writestr(name + ".npy", data.getvalue())
            self.assertEqual(self.read(self.path("d.npz"))["n"][0], 7)

    def test_npz_that_is_wrong(self):
        good = {"train_images": self.grey, "train_labels": np.arange(7)}
        wrong = [
            (E_FORMAT, "train_images must be uint8",
             {"train_images": self.grey.astype("i4")}),
            (E_FORMAT, "train_images", {"train_images": self.grey[0]}),
            (E_FORMAT, "train_images",
             {"train_images": np.zeros((7, 5, 6, 4), "u1")}),
            (E_FORMAT, "Fortran",
             {"train_images": np.asfortranarray(self.grey)}),
            (E_FORMAT, "8 entries for 7 images", {"train_labels": np.arange(8)}),
            (E_FORMAT, "[N] or [N, 1]",
             {"train_labels": np.zeros((7, 14), "i4")}),
            (E_FORMAT, "train_labels: has type <f8",
             {"train_labels": np.zeros(7)}),
            (E_VALUE, "train_labels[4] is -2",
             {"train_labels": np.array([0, 1, 2, 3, -2, 5, 6])}),
            (E_VALUE, "train_labels[0]",
             {"train_labels": np.full(7, 2 ** 64 - 1, "u8")}),
            (E_FORMAT, "does not contain the array train_labels", {"train_labels": None}),
            (E_FORMAT, "does not contain the array train_images",
             {"train_images": None, "train_labels": None}),
            (E_FORMAT, "does not contain the array test_labels",
             {"test_images": self.grey}),
        ]
        for code, words, change in wrong:
            with self.subTest(words=words):
                arrays = {k: v for k, v in {**good, **change}.items()
                          if v is not None}
                np.savez(self.path("d.npz"), **arrays)
                self.fails(code, words, "dataset", self.path("d.npz"),
                           self.path("pixels"))

    def test_npz_that_is_hostile(self):
        def header(text, data=b""):
            text = text.encode()
            head = b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text
            with zipfile.ZipFile(self.path("d.npz"), "w",
                                 zipfile.ZIP_DEFLATED) as z:
                z.writestr("train_images.npy", head + data)
                z.writestr("train_labels.npy", head + data)
            self.fails(E_FORMAT, "train_images", "dataset",
                       self.path("d.npz"), self.path("pixels"))
        big = "{'descr': '|u1', 'fortran_order': False, 'shape': (%s)}"
        header(big % "4294967296, 4294967296, 4294967296")
        header(big % "9223372036854775807, 9, 9")
        header(big % "99999999999999999999, 9, 9")
        header(big % "1000000000000, 5, 6")
        header(big % "2, 5, 6", bytes(59))
        header(big % "2, 5, 6", bytes(61))
        header(big % "2, -5, 6")
        header(big % "2, 5, 6" + "{" * 50000)
        for text in ("", "{", "{'descr'", "{'descr':", "{}", "{'shape': (1",
                     "{'descr': [('a', 'u1')], 'shape': (1,)}",
                     "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",
                     "{'descr': '|u1', 'descr': '|u1'}", "\0" * 40):
            header(text)
        np.savez_compressed(self.path("d.npz"), train_images=self.grey,
                            train_labels=np.arange(7))
        whole = self.path("d.npz").read_bytes()
        for size in range(2, len(whole), 97):
            self.path("d.npz").write_bytes(whole[:size])
            self.fails(E_FORMAT, "d.npz", "dataset", self.path("d.npz"),
                       self.path("pixels"))

    def test_npz_checksum_is_compared(self):
        np.savez(self.path("d.npz"), train_images=self.grey,
                 train_labels=np.arange(7))
        data = bytearray(self.path("d.npz").read_bytes())
        at = data.find(self.grey.tobytes())
        data[at + 50] ^= 1
        self.path("d.npz").write_bytes(data)
        self.fails(E_FORMAT, "train_images", "dataset", self.path("d.npz"),
                   self.path("pixels"))

    def write_idx(self, compress, change=None):
        def idx(values):
            return (struct.pack(">BBBB", 0, 0, 8, values.ndim)
                    + struct.pack(f">{values.ndim}I", *values.shape)
                    + values.tobytes())
        files = {"train-images-idx3-ubyte": self.grey,
                 "train-labels-idx1-ubyte": np.arange(7, dtype="u1"),
                 "t10k-images-idx3-ubyte": self.grey[:3],
                 "t10k-labels-idx1-ubyte": np.array([9, 0, 1], "u1")}
        for name, values in files.items():
            data = idx(values)
            if change:
                data = change(name, data)
            if compress:
                name, data = name + ".gz", gzip.compress(data)
            self.path(name).write_bytes(data)

    def test_idx_plain_and_compressed(self):
        for compress in (True, False):
            self.write_idx(compress)
            d = self.read(self.folder)
            np.testing.assert_array_equal(d["train"][..., 0], self.grey)
            np.testing.assert_array_equal(d["test"][..., 0], self.grey[:3])
            self.assertEqual(d["test_labels"], [9, 0, 1])
            self.assertEqual(d["n"], (10, 1))

    def test_idx_that_is_wrong(self):
        name = "t10k-labels-idx1-ubyte"
        changes = [
            (E_FORMAT, "truncated", lambda x: x[:-1]),
            (E_FORMAT, "longer", lambda x: x + b"0"),
            (E_FORMAT, "not an IDX file", lambda x: b"\0\0\x0d\1" + x[4:]),
            (E_FORMAT, "4 labels for 3",
             lambda x: x[:4] + b"\0\0\0\4" + x[8:]),
            (E_FORMAT, "truncated", lambda x: x[:4] + b"\xff" * 4 + x[8:]),
        ]
        for compress in (True, False):
            for code, words, change in changes:
                self.write_idx(compress, lambda n, x: change(x)
                               if n == name else x)
                self.fails(code, words, "dataset", self.folder,
                           self.path("pixels"))
            self.write_idx(compress, lambda n, x: x[:4] + b"\xff" * 12 + x[16:]
                           if n == "train-images-idx3-ubyte" else x)
            self.fails(E_FORMAT, "train-images", "dataset", self.folder,
                       self.path("pixels"))
        self.write_idx(False)
        self.path(name).unlink()
        self.path(name + ".gz").unlink()
        self.fails(E_IO, name, "dataset", self.folder, self.path("pixels"))

    def test_packed_files_both_ways(self):
        np.savez(self.path("d.npz"), train_images=self.grey,
                 train_labels=np.arange(7), test_images=self.colour,
                 test_labels=np.arange(4), train_domains=np.arange(7) % 2)
        self.works("pack", self.path("d.npz"), self.path("d.h5"))
        with h5py.File(self.path("d.h5"), "r") as f:
            np.testing.assert_array_equal(f["train/images"][()], self.grey)
            np.testing.assert_array_equal(f["test/images"][()], self.colour)
            self.assertEqual(f["train/images"].dtype, np.uint8)
            self.assertEqual(f["train/labels"].dtype, np.dtype("<i4"))
            self.assertEqual(list(f["train/domains"]), [0, 1, 0, 1, 0, 1, 0])
            self.assertEqual(f.attrs["format"], b"magmax-dataset")
            self.assertEqual(f.attrs["format_version"], 1)
        d, e = self.read(self.path("d.npz")), self.read(self.path("d.h5"))
        for key, value in d.items():
            np.testing.assert_array_equal(value, e[key])

    def write_packed(self, **change):
        arrays = {"train/images": self.grey, "train/labels": np.arange(7),
                  "class_names": [f"n{i}" for i in range(9)], **change}
        with h5py.File(self.path("d.h5"), "w") as f:
            for name, value in arrays.items():
                if value is not None:
                    f[name] = value

    def test_packed_files_of_h5py(self):
        self.write_packed(domain_names=["é", "o"])
        d = self.read(self.path("d.h5"))
        np.testing.assert_array_equal(d["train"][..., 0], self.grey)
        self.assertEqual(d["n"], (9, 2))
        self.assertEqual(d["names"][:2] + d["names"][-2:],
                         ["class n0", "class n1", "domain é", "domain o"])

    def test_packed_files_that_are_wrong(self):
        for code, words, change in (
                (E_FORMAT, "must be uint8",
                 {"train/images": self.grey.astype("i2")}),
                (E_FORMAT, "does not contain train/labels", {"train/labels": None}),
                (E_FORMAT, "7 images", {"train/labels": np.arange(6)}),
                (E_VALUE, "train/labels[6] is -1",
                 {"train/labels": [0, 1, 2, 3, 4, 5, -1]}),
                (E_VALUE, "9 names", {"train/labels": np.arange(7) * 2}),
                (E_FORMAT, "variable-length", {"class_names": [1, 2, 3]}),
                (E_FORMAT, "contains neither test/images", {"test/labels": [1]})):
            with self.subTest(words=words):
                self.write_packed(**change)
                self.fails(code, words, "dataset", self.path("d.h5"),
                           self.path("pixels"))
        with h5py.File(self.path("d.h5"), "w") as f:
            f.create_dataset("train/images", data=self.grey, chunks=True)
        self.fails(E_FORMAT, "h5repack", "dataset", self.path("d.h5"),
                   self.path("pixels"))
        self.works("copy", GOLDEN / "seq/task_000.safetensors",
                   self.path("d.h5"))
        self.fails(E_FORMAT, "magmax-checkpoint", "dataset", self.path("d.h5"),
                   self.path("pixels"))


class Arrays(Case):
    def test_h5py_reads_a_file_of_arrays(self):
        self.works("arrays", self.path("a.h5"))
        with h5py.File(self.path("a.h5"), "r") as f:
            np.testing.assert_array_equal(f["weight"][()],
                                          [[1, 2, 3], [4, 5, 6.5]])
            self.assertEqual(f["weight"].dtype, np.dtype("<f4"))
            self.assertEqual(list(f["labels"]), [7, 8, 9])
            self.assertEqual(f["made"][()].decode(), "by a test: é")
        self.assertEqual(sorted(os.listdir(self.folder)), ["a.h5"])


if __name__ == "__main__":
    unittest.main()
