#!/usr/bin/env python3
"""safetensors written here, by NumPy and PyTorch, and by the safetensors
package where it is installed; files in several pieces.
"""

import json
import os
import sys
import unittest

import numpy as np
import torch

from test_files import (E_FORMAT, E_IO, E_VALUE, GOLDEN, Case, entry,
                        read_safetensors, safetensors)

try:
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file
except ImportError:
    save_file = None

E_ARG = 1
NEEDS_PACKAGE = unittest.skipIf(save_file is None, "no safetensors package")

NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4",
         "I16": "<i2", "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2",
         "U8": "u1", "BOOL": "?"}
TORCH = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16,
         "BF16": torch.bfloat16, "I64": torch.int64, "I32": torch.int32,
         "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
         "BOOL": torch.bool}


def some_values(dtype, n):
    rng = np.random.default_rng(n)
    if dtype == "BOOL":
        return rng.integers(0, 2, n).astype("?")
    kind = np.dtype(NUMPY[dtype])
    if kind.kind == "f":
        return rng.normal(size=n).astype(kind)
    return rng.integers(np.iinfo(kind).min, np.iinfo(kind).max, n,
                        dtype=kind, endpoint=True)


def header_of(path):
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    return size, json.loads(data[8:8 + size]), data[8 + size:]


class Reading(Case):
    def raw(self, path):
        self.works("floats", path, self.path("raw"))
        return np.fromfile(self.path("raw"), "<f4")

    def test_every_type_of_numbers(self):
        header, data, expected = {}, b"", []
        for dtype in NUMPY:
            # Over a block of the vectorised loops, and over a piece.
            n = 300000 if dtype == "I32" else 777
            values = some_values(dtype, n)
            header[dtype] = entry(dtype, [n], len(data),
                                  len(data) + values.nbytes)
            data += values.tobytes()
            expected.append(values.astype("<f4"))
        self.path("w").write_bytes(safetensors(header, data))
        np.testing.assert_array_equal(self.raw(self.path("w")),
                                      np.concatenate(expected))
        self.assertEqual(self.works("kind", self.path("w")).split(),
                         ["safetensors", *NUMPY])

    def test_8_bit_floats(self):
        some = np.array([0x00, 0x01, 0x38, 0x7e, 0x80, 0xb8], "u1")
        header = {"e4m3": entry("F8_E4M3", [6], 0, 6),
                  "e5m2": entry("F8_E5M2", [3, 1], 6, 9),
                  "e8m0": entry("F8_E8M0", [2], 9, 11)}
        data = some.tobytes() + bytes([0x3c, 0x7b, 0x01, 127, 0])
        self.path("w").write_bytes(safetensors(header, data))
        np.testing.assert_array_equal(
            self.raw(self.path("w")),
            np.array([0, 2 ** -9, 1, 448, -0.0, -1, 1, 57344, 2 ** -16, 1,
                      2.0 ** -127], "<f4"))
        self.path("w").write_bytes(safetensors(
            {"e4m3": entry("F8_E4M3", [1], 0, 1)}, b"\x7f"))
        self.fails(E_VALUE, "element 0 of tensor e4m3", "floats",
                   self.path("w"), self.path("raw"))

    def test_types_that_are_no_weights_are_listed_and_not_read(self):
        header = {"c": entry("C64", [1], 0, 8), "f4": entry("F4", [4], 8, 10),
                  "f6": entry("F6_E2M3", [2, 2], 10, 13)}
        self.path("w").write_bytes(safetensors(header, bytes(13)))
        self.assertEqual(self.works("kind", self.path("w")),
                         "safetensors\n?\n?\n?\n")
        self.fails(E_FORMAT, "tensor c has type C64", "floats",
                   self.path("w"), self.path("raw"))
        header = {"f6": entry("F6_E3M2", [3], 0, 2)}
        self.path("w").write_bytes(safetensors(header, bytes(2)))
        self.fails(E_FORMAT, "f6 has data_offsets that do not fit", "kind",
                   self.path("w"))

    def test_scattered_reads(self):
        path = GOLDEN / "seq/task_000.safetensors"
        self.works("scattered", path, self.path("raw2"))
        np.testing.assert_array_equal(self.raw(path),
                                      np.fromfile(self.path("raw2"), "<f4"))

    @NEEDS_PACKAGE
    def test_files_of_the_package(self):
        torch.manual_seed(3)
        tensors = {f"visual.{k}": (torch.randn(5, 7) * 50).to(t)
                   for k, t in TORCH.items()}
        tensors["scalar"] = torch.tensor(2.5)
        tensors["empty"] = torch.zeros(0, 4)
        save_file(tensors, self.path("w"), metadata={"format": "pt"})
        text = self.works("floats", self.path("w"), self.path("raw"))
        names = [x.split()[1] for x in text.splitlines()]
        self.assertEqual(set(names), set(tensors))
        np.testing.assert_array_equal(
            np.fromfile(self.path("raw"), "<f4"),
            np.concatenate([tensors[n].float().numpy().ravel()
                            for n in names]))


class Writing(Case):
    def write(self, dtype, tensors):
        """Tensors of fp32, to a file of dtype."""
        header, data = {}, b""
        for name, values in tensors.items():
            values = np.asarray(values, "<f4")
            header[name] = entry("F32", list(values.shape), len(data),
                                 len(data) + values.nbytes)
            data += values.tobytes()
        self.path("in").write_bytes(safetensors(header, data))
        self.works("safetensors", dtype, self.path("in"), self.path("out"))
        return self.path("out")

    def tensors(self):
        rng = np.random.default_rng(4)
        return {"visual.conv1.weight": rng.normal(size=(64, 3, 8, 8)),
                "s": np.float32(-1.5), "empty": np.zeros((0, 7)),
                "b\u00fc\"\\": rng.normal(size=999) * 1e-6}

    def test_header(self):
        tensors = self.tensors()
        for dtype, n_bytes in (("F32", 4), ("F16", 2), ("BF16", 2)):
            size, header, data = header_of(self.write(dtype, tensors))
            self.assertEqual(size % 8, 0)
            meta = header.pop("__metadata__")
            self.assertEqual(meta, {"format": "pt",
                                    "model": '{"embed_dim": 32}',
                                    "provenance": '{"trained": "by a test"}'})
            self.assertEqual(list(header), list(tensors))
            at = 0
            for name, values in tensors.items():
                end = at + np.size(values) * n_bytes
                self.assertEqual(header[name],
                                 entry(dtype, list(np.shape(values)), at, end))
                at = end
            self.assertEqual(len(data), at)

    def test_values_are_those_of_torch(self):
        tensors = self.tensors()
        for dtype in ("F32", "F16", "BF16"):
            _, _, data = header_of(self.write(dtype, tensors))
            expected = b"".join(
                torch.tensor(np.asarray(v, "<f4")).to(TORCH[dtype])
                .view(-1).view(torch.uint8).numpy().tobytes()
                for v in tensors.values() if np.size(v))
            self.assertEqual(data, expected)

    def test_golden_file_comes_back_bit_for_bit(self):
        path = GOLDEN / "seq/task_000.safetensors"
        self.works("safetensors", "F32", path, self.path("out"))
        before, after = read_safetensors(path), read_safetensors(
            self.path("out"))
        self.assertEqual(list(before), list(after))
        for name, values in before.items():
            self.assertEqual(values.tobytes(), after[name].tobytes())

    def test_narrow_files_come_back_bit_for_bit(self):
        bits = np.arange(65536, dtype="<u2")
        for dtype, infinity in (("F16", 0x7c00), ("BF16", 0x7f80)):
            finite = bits[(bits & infinity) != infinity]
            data = finite.tobytes()
            self.path("in").write_bytes(safetensors(
                {"w": entry(dtype, [len(finite)], 0, len(data))}, data))
            self.works("safetensors", dtype, self.path("in"), self.path("out"))
            self.assertEqual(header_of(self.path("out"))[2], data)

    def test_too_large_for_half_is_named(self):
        values = np.zeros(3000, "<f4")
        values[2500] = -65520
        self.path("in").write_bytes(safetensors(
            {"w": entry("F32", [3000], 0, 12000)}, values.tobytes()))
        self.fails(E_VALUE, "element 2500 of tensor w is -65520, too large for "
                   "F16", "safetensors", "F16", self.path("in"),
                   self.path("out"))
        self.assertFalse(self.path("out").exists())
        self.assertFalse(self.path("out.tmp").exists())
        self.works("safetensors", "BF16", self.path("in"), self.path("out"))

    def test_only_floats_are_written(self):
        self.path("in").write_bytes(safetensors(
            {"w": entry("F32", [1], 0, 4)}, bytes(4)))
        for dtype in ("F64", "I32", "?"):
            self.fails(E_ARG, "F32, F16 or BF16", "safetensors", dtype,
                       self.path("in"), self.path("out"))

    @NEEDS_PACKAGE
    def test_the_package_reads_it(self):
        tensors = self.tensors()
        for dtype in ("F32", "F16", "BF16"):
            path = self.write(dtype, tensors)
            loaded = load_file(path)
            self.assertEqual(set(loaded), set(tensors))
            for name, values in tensors.items():
                expected = torch.tensor(np.asarray(values, "<f4"))
                self.assertTrue(torch.equal(loaded[name],
                                            expected.to(TORCH[dtype])))
            with safe_open(path, "pt") as f:
                self.assertEqual(f.metadata()["format"], "pt")


class Shards(Case):
    def setUp(self):
        super().setUp()
        self.index = self.path("model.safetensors.index.json")
        rng = np.random.default_rng(5)
        self.tensors = {n: rng.normal(size=(3, k + 1)).astype("<f4")
                        for k, n in enumerate("abcdef")}
        self.files = {"model-1-of-2.safetensors": "ace",
                      "sub/model-2-of-2.safetensors": "bdf"}
        self.path("sub").mkdir()
        for file, names in self.files.items():
            self.write(file, names)
        self.map = {n: f for f, names in self.files.items() for n in names}

    def write(self, file, names):
        header, data = {"__metadata__": {"format": "pt", "model": "{}"}}, b""
        for n in names:
            header[n] = entry("F32", list(self.tensors[n].shape), len(data),
                              len(data) + self.tensors[n].nbytes)
            data += self.tensors[n].tobytes()
        self.path(file).write_bytes(safetensors(header, data))

    def write_index(self, weight_map, **more):
        self.index.write_text(json.dumps(
            {"metadata": {"total_size": 1}, "weight_map": weight_map, **more},
            indent=2))

    def refuse(self, words, code=E_FORMAT):
        self.fails(code, words, "floats", self.index, self.path("raw"))

    def check(self):
        self.write_index(self.map)
        for verb in ("floats", "scattered"):
            self.works(verb, self.index, self.path("raw"))
            np.testing.assert_array_equal(
                np.fromfile(self.path("raw"), "<f4"),
                np.concatenate([self.tensors[n].ravel() for n in "acebdf"]))

    def test_all_files_are_one_table(self):
        self.check()
        text = self.works("floats", self.index, self.path("raw"))
        self.assertEqual([x.split()[1] for x in text.splitlines()
                          if x.startswith("tensor")], list("acebdf"))
        self.assertEqual(self.works("kind", self.index).split()[0],
                         "safetensors")

    def test_the_map_decides_between_two_of_one_name(self):
        self.tensors["e"] += 1
        self.write("model-1-of-2.safetensors", "ace")
        self.tensors["e"] -= 1
        self.write("sub/model-2-of-2.safetensors", "bdfe")
        self.map["e"] = "sub/model-2-of-2.safetensors"
        self.write_index(self.map)
        self.works("floats", self.index, self.path("raw"))
        np.testing.assert_array_equal(
            np.fromfile(self.path("raw"), "<f4"),
            np.concatenate([self.tensors[n].ravel() for n in "acbdfe"]))

    def test_pytorch_files_beside_an_index(self):
        for k, names in enumerate(("abc", "def")):
            torch.save({n: torch.tensor(self.tensors[n]) for n in names},
                       self.path(f"pytorch_model-{k}.bin"))
        self.write_index({n: f"pytorch_model-{int(n > 'c')}.bin"
                          for n in "abcdef"})
        self.works("scattered", self.index, self.path("raw"))
        np.testing.assert_array_equal(
            np.fromfile(self.path("raw"), "<f4"),
            np.concatenate([self.tensors[n].ravel() for n in "abcdef"]))

    def test_missing_files_and_tensors_are_named(self):
        self.write_index(dict(self.map, g="model-3.safetensors"))
        self.refuse("model-3.safetensors", E_IO)
        self.write_index(dict(self.map, g="model-1-of-2.safetensors"))
        self.refuse("model-1-of-2.safetensors does not contain the tensor g")
        short = dict(self.map)
        del short["f"]
        self.write_index(short)
        self.refuse("does not list tensor f")
        self.write("model-1-of-2.safetensors", "ac")
        self.write_index(self.map)
        self.refuse("does not contain the tensor e")

    def test_names_that_lead_elsewhere(self):
        outside = self.path("outside.safetensors")
        outside.write_bytes(
            self.path("model-1-of-2.safetensors").read_bytes())
        self.path("in").mkdir()
        self.index = self.path("in/model.safetensors.index.json")
        for name in ("../outside.safetensors", str(outside), "",
                     "x/../../outside.safetensors", "..", "./../x"):
            with self.subTest(name=name):
                self.write_index({n: name for n in "ace"})
                self.refuse("leads out of its folder")
        os.symlink("../outside.safetensors", self.path("in/link.safetensors"))
        self.write_index({n: "link.safetensors" for n in "ace"})
        self.works("kind", self.index)

    def test_what_is_no_index(self):
        for text, words in (("{\n  \"weight_map\": [", "line 2"),
                            ("{\"weight_map\": []}", "weight_map"),
                            ("{\"a\": \"something\"}", "weight_map"),
                            ("{\"weight_map\": {\"a\": 7}}", "not a string"),
                            ("{\"weight_map\": {\"a\": \"x\", \"a\": \"y\"}}",
                             "duplicate")):
            self.index.write_text(text)
            self.refuse(words)
        self.write_index({"a": "model.safetensors.index.json"})
        self.refuse("neither")


if __name__ == "__main__":
    if save_file is None:
        print("without the safetensors package", file=sys.stderr)
    unittest.main()
