#!/usr/bin/env python3
"""PyTorch's zip files, as PyTorch itself writes them, and as an attacker might.

ctest: cost=15
"""

import argparse
import collections
import datetime
import decimal
import fractions
import functools
import io
import os
import pickle
import re
import struct
import tarfile
import unittest
import warnings
import zipfile
import zlib

import numpy as np
import torch
from torch import nn

from test_files import E_FORMAT, E_VALUE, Case

warnings.filterwarnings("ignore", category=UserWarning)


class Attention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.attn = nn.MultiheadAttention(width, 2)
        self.mlp = nn.Sequential(collections.OrderedDict(
            c_fc=nn.Linear(width, 2 * width), gelu=nn.GELU()))
        self.register_buffer("mask", torch.full((3, 3), float("-inf")),
                             persistent=False)
        self.register_buffer("steps", torch.arange(5))
        self.register_parameter("none", None)


class Visual(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 4, 4, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width))
        self.blocks = nn.ModuleList([Attention(width) for _ in range(2)])
        self.act = functools.partial(nn.functional.gelu)


class Clip(nn.Module):
    def __init__(self):
        super().__init__()
        self.visual = Visual()
        self.logit_scale = nn.Parameter(torch.tensor(2.5))


class Tower(nn.Module):
    """What can be traced and scripted."""

    def __init__(self, width=8):
        super().__init__()
        self.visual = nn.Sequential(collections.OrderedDict(
            conv1=nn.Conv2d(3, width, 4, 4, bias=False),
            ln_pre=nn.GroupNorm(2, width), act=nn.GELU(),
            blocks=nn.Sequential(nn.Conv2d(width, 5, 1), nn.ReLU())))
        self.positions = nn.Parameter(torch.randn(5, 1))
        self.logit_scale = nn.Parameter(torch.tensor(2.5))

    def forward(self, x):
        x = self.visual(x).flatten(2) + self.positions
        return x * self.logit_scale.exp()


class ImageEncoder(nn.Module):
    """As the authors' scripts save it: a module around the model, with what
    else they keep in it."""

    def __init__(self):
        super().__init__()
        self.model = Clip()
        self.train_preprocess = [pickle.dumps, re.compile, len]
        self.args = argparse.Namespace(lr=1e-5, model="ViT-B-16", data=None)
        self.cache_dir = None


def floats_of(tensors):
    arrays = [v.detach().float().contiguous().numpy().ravel()
              for v in tensors.values()]
    return np.concatenate(arrays)


def rewritten(path, change):
    """The archive with records changed: change(name, data) gives the data, or
    None to leave the record out."""
    with zipfile.ZipFile(path) as z:
        records = [(i.filename, z.read(i)) for i in z.infolist()]
    with zipfile.ZipFile(path, "w") as z:
        for name, data in records:
            data = change(name, data)
            if data is not None:
                z.writestr(name, data)


class TorchCase(Case):
    def setUp(self):
        super().setUp()
        torch.manual_seed(7)
        self.file = self.path("w.pt")

    def check(self, tensors, kind="torch dict"):
        """The file holds these tensors, in this order."""
        text = self.works("floats", self.file, self.path("raw"))
        self.assertEqual(text.splitlines(),
                         [f"tensor {n} {list(v.shape)}"
                          for n, v in tensors.items()])
        expected = floats_of(tensors)
        np.testing.assert_array_equal(np.fromfile(self.path("raw"), "<f4"),
                                      expected)
        self.works("scattered", self.file, self.path("raw"))
        np.testing.assert_array_equal(np.fromfile(self.path("raw"), "<f4"),
                                      expected)
        self.assertEqual(self.works("kind", self.file).split("\n")[0], kind)

    def refuse(self, words, code=E_FORMAT):
        self.fails(code, words, "floats", self.file, self.path("raw"))


class Dictionaries(TorchCase):
    def test_every_type_of_numbers(self):
        tensors = collections.OrderedDict()
        for dtype in (torch.float64, torch.float32, torch.float16,
                      torch.bfloat16, torch.int64, torch.int32, torch.int16,
                      torch.int8, torch.uint8, torch.bool):
            tensors[str(dtype)] = (torch.randn(700, 3) * 90).to(dtype)
        for protocol in (2, 3, 4, 5):
            torch.save(tensors, self.file, pickle_protocol=protocol)
            self.check(tensors)
        self.assertEqual(
            self.works("kind", self.file).split()[2:],
            "F64 F32 F16 BF16 I64 I32 I16 I8 U8 BOOL".split())

    def test_other_types_are_listed_and_not_read(self):
        torch.save({"c": torch.zeros(2, dtype=torch.complex64)}, self.file)
        self.assertEqual(self.works("kind", self.file), "torch dict\n?\n")
        self.refuse("tensor c has type ComplexFloat,")

    def test_views_that_are_only_marked_are_refused(self):
        """Their storages hold the other sign. PyTorch 2 writes them so."""
        class Marked:
            def __init__(self, **marks):
                self.args = (torch.ones(3).storage(), 0, (3,), (1,), False,
                             collections.OrderedDict(), marks)

            def __reduce__(self):
                return torch._utils._rebuild_tensor_v2, self.args
        for mark in ("neg", "conj"):
            torch.save({"v": Marked(**{mark: True})}, self.file)
            self.refuse(f"resolve_{mark}()")
        torch.save({"v": Marked(neg=False, conj=False)}, self.file)
        self.check({"v": torch.ones(3)})

    def test_scalars_empty_tensors_and_parameters(self):
        tensors = {"scalar": torch.tensor(1.5), "empty": torch.zeros(0, 3),
                   "p": nn.Parameter(torch.randn(4)),
                   "frozen": nn.Parameter(torch.randn(4), False),
                   "one": torch.randn(1, 1, 1)}
        named = nn.Parameter(torch.randn(2))
        named.note = "kept as state"
        torch.save(dict(tensors, named=named), self.file)
        self.check(dict(tensors, named=named))

    def test_strides_offsets_and_shared_storages(self):
        base = torch.randn(60, 70)
        deep = torch.randn(4, 5, 6, 7)
        torch.save(tensors := {
            "whole": base, "again": base, "t": base.t(), "row": base[7],
            "column": base[:, 9], "block": base[10:20, 5:50:3],
            "one": base[3, 4], "permuted": deep.permute(3, 1, 0, 2),
            "half": deep.half().transpose(1, 3), "q": base.chunk(3)[1],
            "ints": torch.arange(12).reshape(3, 4).t(),
            "bytes": torch.arange(12).to(torch.uint8).reshape(3, 4).t(),
            "thin": torch.randn(1, 9).expand(1, 9)}, self.file)
        self.check(tensors)

    def test_large_strided_tensors_in_pieces(self):
        tensors = {"t": torch.randn(1500, 1100).t(),
                   "h": torch.randn(2000, 900).half()[:, 1:].t()}
        torch.save(tensors, self.file)
        self.check(tensors)

    def test_other_entries_are_passed_over(self):
        tensors = {"a": torch.randn(3), "b": torch.randn(2)}
        torch.save({"epoch": 3, "name": "x", **tensors, "more": [tensors["a"]],
                    "bytes": b"z", "set": {1, 2}, "none": None,
                    "huge": 2 ** 100, "float": 1e-5, "size": torch.Size([1]),
                    "dtype": torch.float16, "device": torch.device("cpu"),
                    "complex": 1j, "slice": slice(1, 2),
                    "when": datetime.datetime.now(datetime.timezone.utc),
                    "took": datetime.timedelta(1, 2),
                    "price": decimal.Decimal("1.5"),
                    "share": fractions.Fraction(1, 3),
                    "layout": torch.strided,
                    "args": argparse.Namespace(seed=5)}, self.file)
        self.check(tensors)

    def test_models_in_dictionaries(self):
        tensors = {"visual.a": torch.randn(3), "visual.b": torch.randn(2)}
        prefixed = {"module." + k: v for k, v in tensors.items()}
        compiled = {"_orig_mod." + k: v for k, v in prefixed.items()}
        other = {"optimizer": {"state": {0: {"exp_avg": torch.randn(9)}}},
                 "epoch": 4}
        for wrapped in ({"state_dict": tensors}, {"model": tensors},
                        {"model_state_dict": prefixed},
                        {"state_dict": {"model": compiled}},
                        {"state_dict": prefixed, "model": "ViT-B-16"}):
            torch.save({**other, **wrapped}, self.file)
            self.check(tensors)

    def test_a_prefix_that_only_some_names_have_stays(self):
        tensors = {"module.a": torch.randn(3), "b": torch.randn(2)}
        torch.save(tensors, self.file)
        self.check(tensors)

    def test_state_dict_of_a_module(self):
        tensors = ImageEncoder().state_dict()
        torch.save(tensors, self.file)
        self.check(tensors)

    def test_without_tensors(self):
        for value in ({"a": 1}, [torch.zeros(2)], torch.zeros(2), None, {}):
            torch.save(value, self.file)
            self.refuse("holds no tensors")

    def test_not_finite(self):
        torch.save({"a": torch.tensor([1, np.inf])}, self.file)
        self.refuse("element 1 of tensor a", E_VALUE)


class Modules(TorchCase):
    def test_the_authors_encoder(self):
        encoder = ImageEncoder()
        for protocol in (2, 4):
            torch.save(encoder, self.file, pickle_protocol=protocol)
            self.check(encoder.state_dict(), "torch module")

    def test_wrapped_modules(self):
        clip = Clip()
        torch.save({"model": nn.DataParallel(clip), "epoch": 1}, self.file)
        self.check(clip.state_dict(), "torch module")

    def test_tied_parameters(self):
        clip = Clip()
        clip.visual.blocks[1].mlp = clip.visual.blocks[0].mlp
        torch.save(clip, self.file)
        self.check(clip.state_dict(), "torch module")

    def test_members_of_enumerations(self):
        # Python 3.11 writes them as getattr(class, name).
        class Member:
            def __reduce__(self):
                return getattr, (zipfile.ZipFile, "open")
        clip = Clip()
        clip.mode = Member()
        torch.save(clip, self.file)
        self.check(clip.state_dict(), "torch module")


class Scripts(TorchCase):
    def check_script(self, script, module):
        """The same tensors; the order is that of the archive's attributes."""
        torch.jit.save(script, self.file)
        self.assertEqual(self.works("kind", self.file).split()[0],
                         "torchscript")
        text = self.works("floats", self.file, self.path("raw"))
        names = [line.split()[1] for line in text.splitlines()]
        tensors = module.state_dict()
        self.assertEqual(set(names), set(tensors))
        self.check({n: tensors[n] for n in names}, "torchscript")

    def test_traced_and_scripted_modules(self):
        tower = Tower().eval()
        image = torch.randn(1, 3, 8, 8)
        self.check_script(torch.jit.trace(tower, image), tower)
        self.check_script(torch.jit.script(tower), tower)

    def test_half_precision_as_openai_ships_it(self):
        tower = Tower().eval()
        script = torch.jit.trace(tower, torch.randn(1, 3, 8, 8)).half()
        self.check_script(script, tower.half())
        self.assertEqual(set(self.works("kind", self.file).split()[1:]),
                         {"F16"})


class Call:
    """Pickles as a call."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


class Hostile(TorchCase):
    def save_pickle(self, data):
        torch.save({"a": torch.arange(6.0)}, self.file)
        rewritten(self.file, lambda name, old:
                  data if name.endswith("data.pkl") else old)

    def save_changed(self, old, new):
        """A tensor of [2, 3] floats, its pickle changed."""
        torch.save({"a": torch.arange(6.0).reshape(2, 3)}, self.file)

        def change(name, data):
            if not name.endswith("data.pkl"):
                return data
            self.assertEqual(data.count(old), 1)
            return data.replace(old, new)
        rewritten(self.file, change)

    def test_calls_are_named_and_never_made(self):
        proof = self.path("proof")
        for function, args, name in (
                (os.system, (f"touch {proof}",), "posix.system"),
                (eval, (f"open({str(proof)!r}, 'w')",), "eval"),
                (exec, ("1",), "exec"), (__import__, ("os",), "__import__"),
                (os.unlink, ("x",), "posix.unlink"),
                (torch.load, ("x",), "torch.serialization.load")):
            for protocol in (2, 4):
                torch.save({"a": torch.zeros(2), "b": Call(function, *args)},
                           self.file, pickle_protocol=protocol)
                self.refuse(name)
        self.assertFalse(proof.exists())

    def test_calls_through_other_calls(self):
        # getattr(os, "system")("..."), and functools.partial likewise.
        self.save_pickle(b"\x80\x02c__builtin__\ngetattr\ncos\npath\nX\x06\0\0"
                         b"\0system\x86RX\x02\0\0\0ls\x85R.")
        self.refuse("an object is made of what has no name")

    def test_opcodes_that_are_not_read_are_named(self):
        for data, name in ((b"(dp0\n.", "DICT"), (b"I1\n.", "INT"),
                           (b"(ios\nsystem\n.", "INST"),
                           (b"(cos\nsystem\no.", "OBJ"), (b"\x82\1.", "EXT1"),
                           (b"Pid\n.", "PERSID"), (b"\xff.", "0xff (unknown)"),
                           (b"\x97.", "NEXT_BUFFER")):
            self.save_pickle(data)
            self.refuse(name)

    def test_broken_pickles(self):
        for data, words in (
                (b"", "truncated"), (b"\x80\x02", "truncated"),
                (b"\x80\x06N.", "newer than 5"), (b".", "stack is empty"),
                (b"h\x07.", "memo holds nothing"), (b"NNt.", "no mark"),
                (b"X\xff\xff\xff\xffabc.", "truncated"),
                (b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffabc.", "truncated"),
                (b"}(Ku.", "key without a value"), (b"Nb.", "stack is empty"),
                (b"]Nb.", "cannot have one"), (b"NNs.", "stack is empty"),
                (b"NNNs.", "cannot have them"), (b"cabc", "truncated"),
                (b"Nr\xff\xff\xff\xff.", "memo number"), (b"N)R.", "no name")):
            with self.subTest(data=data):
                self.save_pickle(data if data != b"}(Ku." else b"}(K\1u.")
                self.refuse(words)

    def test_deep_nesting(self):
        self.save_pickle(b"(" * 2000000 + b"N.")
        self.refuse("nested deeper")
        self.save_pickle(b"N" * 1500000 + b".")
        self.refuse("more values on the stack")
        self.save_pickle(b"N" + b"\x85" * 200000 + b".")
        self.refuse("no tensors")
        self.save_pickle(b"N0" * 4300000 + b".")
        self.refuse("more values than any model has")

    def module_pickle(self, inner):
        """Of a module whose own modules are what `inner` leaves on the stack
        above a mark; memo 1 is the module itself."""
        return (b"\x80\x02cx\nM\n)\x81q\x01}(X\x0b\0\0\0_parameters}"
                b"X\x08\0\0\0_modules}(" + inner + b"uub.")

    def test_modules_in_themselves(self):
        self.save_pickle(self.module_pickle(b"X\1\0\0\0mh\x01"))
        self.refuse("in themselves")

    def test_billion_laughs(self):
        # Each module holds the one before twice: 2^40 paths.
        inner = b"}q\x02cx\nM\n)\x81}(X\x0b\0\0\0_parametersh\x02" \
            b"X\x08\0\0\0_modulesh\x02ubq\x03"
        laughs = inner
        for _ in range(40):
            laughs += (b"0cx\nM\n)\x81}(X\x0b\0\0\0_parametersh\x02"
                       b"X\x08\0\0\0_modules}(X\1\0\0\0ah\x03X\1\0\0\0bh\x03u"
                       b"ubq\x03")
        self.save_pickle(b"\x80\x02" + laughs + b".")
        self.refuse("in themselves")

    def test_offsets_shapes_and_strides_that_lie(self):
        # In the pickle: offset K\0, size K\2K\3\x86, stride K\3K\1\x86.
        torch.save({"a": torch.arange(6.0).reshape(2, 3)}, self.file)
        with zipfile.ZipFile(self.file) as z:
            data = z.read("w/data.pkl")
        found = re.search(re.escape(b"QK\0K\2K\3\x86q") + b"(.)"
                          + re.escape(b"K\3K\1\x86"), data, re.S)
        memo = b"q" + found.group(1)

        def tensor(offset, size, stride):
            return b"Q" + offset + size + memo + stride
        before = found.group(0)
        offset, size, stride = b"K\0", b"K\2K\3\x86", b"K\3K\1\x86"
        big = b"\x8a\x08" + struct.pack("<q", 2 ** 62)
        self.assertEqual(tensor(offset, size, stride), before)
        out = "reach out of its storage"
        for new, words in (
                (tensor(b"K\1", size, stride), out),
                (tensor(big, size, stride), out),
                (tensor(offset, b"K\3K\3\x86", stride), out),
                (tensor(offset, size, b"K\4K\1\x86"), out),
                (tensor(offset, size, big + b"K\1\x86"), out),
                (tensor(offset, big + big + b"\x86", stride), out),
                (tensor(offset, size, b"K\0K\0\x86"), None),
                (tensor(offset, b"K\x09K\3\x86", b"K\0K\1\x86"), "contiguous"),
                (tensor(offset, b"K\2M\0\1\x86", b"K\0K\0\x86"), "contiguous"),
                (tensor(b"J\xff\xff\xff\xff", size, stride), "offset"),
                (tensor(offset, b"J\xff\xff\xff\xffK\3\x86", stride), "shape"),
                (tensor(offset, size, b"J\xff\xff\xff\xffK\1\x86"), "stride"),
                (tensor(offset, b"K\6\x85", stride), "stride"),
                (tensor(b"N", size, stride), "offset"),
                (tensor(offset, b"(" + b"K\1" * 9 + b"t", b"(" + b"K\1" * 9
                        + b"t"), "9 dimensions")):
            with self.subTest(new=new):
                self.save_changed(before, new)
                if words:
                    self.refuse(words)
                else:
                    self.works("floats", self.file, self.path("raw"))

    def test_storages_that_lie(self):
        self.save_changed(b"K\6t", b"K\x07t")
        self.refuse("claims 7 elements, but has 24 bytes")
        self.save_changed(b"K\6t", b"\x8a\x08" + struct.pack("<q", 2 ** 62)
                          + b"t")
        self.refuse("but has 24 bytes")
        self.save_changed(b"X\1\0\0\x000q", b"X\1\0\0\x007q")
        self.refuse("record data/7 is missing")
        self.save_changed(b"X\1\0\0\x000q", b"X\7\0\0\0../../xq")
        self.refuse("is missing")
        self.save_changed(b"torch\nFloatStorage", b"torch\nDoubleStorage")
        self.refuse("but has 24 bytes")
        self.save_changed(b"X\7\0\0\0storage", b"X\7\0\0\0storagE")
        self.refuse("its storage is malformed")

    def test_control_characters_in_names(self):
        torch.save({"a\nb": torch.zeros(1)}, self.file)
        self.refuse("control character")

    def test_cut_anywhere(self):
        torch.save({"a": torch.zeros(300)}, self.file)
        whole = self.file.read_bytes()
        for size in (4, 8, 9, 30, 100, len(whole) // 2, len(whole) - 30,
                     len(whole) - 1):
            self.file.write_bytes(whole[:size])
            self.refuse("truncated")

    def test_changed_bytes_are_found(self):
        base = torch.arange(4096.0).reshape(64, 64)
        torch.save({"a": torch.arange(4096.0), "t": base.t()}, self.file)
        whole = self.file.read_bytes()
        for number, name in ((1234.0, "a"), (4095.0, "a")):
            at = whole.index(struct.pack("<f", number))
            changed = bytearray(whole)
            changed[at] ^= 1
            self.file.write_bytes(changed)
            self.refuse(f"checksum of tensor {name}")
        at = whole.rindex(struct.pack("<f", 77.0))
        changed = bytearray(whole)
        changed[at] ^= 1
        self.file.write_bytes(changed)
        self.refuse("checksum of tensor t")
        at = whole.index(b"FloatStorage")
        changed = bytearray(whole)
        changed[at] ^= 1
        self.file.write_bytes(changed)
        self.refuse("another checksum")

    def test_deflated_records(self):
        torch.save({"a": torch.zeros(300)}, self.file)
        with zipfile.ZipFile(self.file) as z:
            records = {i.filename: z.read(i) for i in z.infolist()}
        with zipfile.ZipFile(self.file, "w") as z:
            for name, data in records.items():
                z.writestr(name, data, zipfile.ZIP_DEFLATED
                           if name.endswith(".pkl") else zipfile.ZIP_STORED)
        self.check({"a": torch.zeros(300)})
        with zipfile.ZipFile(self.file, "w", zipfile.ZIP_DEFLATED) as z:
            for name, data in records.items():
                z.writestr(name, data)
        self.refuse("is compressed")

    def test_other_zip_files(self):
        for names, words in (((), "truncated"), (("x.txt",), "data.pkl"),
                             (("x/y.txt",), "data.pkl is missing")):
            with zipfile.ZipFile(self.file, "w") as z:
                for name in names:
                    z.writestr(name, "content")
            self.refuse(words if names else "neither")

    def test_byte_order(self):
        for order in ("little", "big"):
            torch.save({"a": torch.arange(3.0)}, self.file)
            with zipfile.ZipFile(self.file, "a") as z:
                z.writestr("w/byteorder", order)
            if order == "big":
                self.refuse("byte order")
            else:
                self.check({"a": torch.arange(3.0)})

    def test_old_formats_say_how_to_save_again(self):
        torch.save({"a": torch.zeros(3)}, self.file,
                   _use_new_zipfile_serialization=False)
        self.refuse("torch.save(torch.load(")
        header = io.BytesIO()
        with tarfile.open(fileobj=header, mode="w") as tar:
            tar.addfile(tarfile.TarInfo("storages"))
        self.file.write_bytes(header.getvalue())
        self.refuse("torch.save(torch.load(")

    def test_too_many_tensors(self):
        one = torch.zeros(1)
        torch.save({str(i): one for i in range(16385)}, self.file)
        self.refuse("more than 16384 tensors")


class Large(TorchCase):
    def test_an_archive_beyond_4_gib(self):
        # A sparse file: the first record is 4 GiB of zeros that no tensor uses.
        torch.save({"a": torch.arange(1000.0)}, self.file)
        with zipfile.ZipFile(self.file) as z:
            records = [(i.filename, z.read(i)) for i in z.infolist()]
        hole = (1 << 32) + 12345
        with open(self.file, "wb") as f:
            write_large_zip(f, records, hole)
        self.assertGreater(self.file.stat().st_size, hole)
        self.check({"a": torch.arange(1000.0)})


def write_large_zip(f, records, hole):
    """Stored records, a hole behind the first, zip64 where it is needed."""
    directory = b""
    for k, (name, data) in enumerate(records):
        offset = f.tell()
        name = name.encode()
        common = struct.pack("<HHHHHIIIHH", 45, 0, 0, 0, 33, zlib.crc32(data),
                             len(data), len(data), len(name), 0)
        f.write(b"PK\3\4" + common + name + data)
        extra = struct.pack("<HHQ", 1, 8, offset)
        directory += (b"PK\1\2" + struct.pack("<H", 45) + common[:-2]
                      + struct.pack("<HHHHII", len(extra), 0, 0, 0, 0,
                                    0xffffffff) + name + extra)
        if k == 0:
            f.seek(hole)
    start = f.tell()
    f.write(directory)
    end = f.tell()
    f.write(b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0,
                                    len(records), len(records),
                                    len(directory), start))
    f.write(b"PK\6\7" + struct.pack("<IQI", 0, end, 1))
    f.write(b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 0xffff, 0xffff,
                                    0xffffffff, 0xffffffff, 0))


if __name__ == "__main__":
    unittest.main()
