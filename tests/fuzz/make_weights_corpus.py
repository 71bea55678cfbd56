#!/usr/bin/env python3
"""Write the seeds of fuzz_safetensors, fuzz_torch_zip and fuzz_pickle.

    tests/fuzz/make_weights_corpus.py tests/fuzz/corpus

Needs PyTorch. The seeds are in the repository; this says where they are from.
"""

import argparse
import collections
import io
import json
import pickle
import struct
import sys
import zipfile
from pathlib import Path

import torch
from torch import nn


def safetensors(tensors, metadata=None, pad=b""):
    header, data = {}, b""
    if metadata:
        header["__metadata__"] = metadata
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape,
                        "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode() + pad
    return struct.pack("<Q", len(text)) + text + data


def safetensors_seeds():
    sizes = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1,
             "F8_E5M2": 1, "F8_E8M0": 1, "I64": 8, "I32": 4, "I16": 2, "I8": 1,
             "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1, "C64": 8}
    yield "types", safetensors(
        {k.lower(): (k, [3, 2], bytes(range(6 * n)))
         for k, n in sizes.items()})
    yield "small", safetensors({"f4": ("F4", [4], bytes(2)),
                                "scalar": ("F32", [], bytes(4)),
                                "empty": ("F32", [0, 3], b"")}, pad=b"   ")
    yield "metadata", safetensors({"a": ("F32", [2], bytes(8))},
                                  {"format": "pt", "model": "{}"})
    yield "index", json.dumps({"metadata": {"total_size": 8}, "weight_map": {
        "a": "none.safetensors", "b": "x/none-2.safetensors"}}).encode()


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 2, bias=False)
        self.seq = nn.Sequential(nn.Linear(2, 3), nn.GELU())
        self.register_buffer("mask", torch.ones(2), persistent=False)
        self.register_buffer("kept", torch.arange(3))

    def forward(self, x):
        return self.seq(x)


def saved(value, **options):
    file = io.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()


def archives():
    torch.manual_seed(1)
    base = torch.randn(6, 4)
    tensors = collections.OrderedDict(
        a=base, t=base.t(), row=base[2], half=base.half(), b=base > 0,
        long=torch.arange(4), s=torch.tensor(2.0), e=torch.zeros(0, 3),
        p=nn.Parameter(torch.ones(2)))
    yield "dict", saved(tensors)
    yield "dict4", saved(tensors, pickle_protocol=4)
    yield "wrapped", saved({"state_dict": {"module.a": base}, "epoch": 1,
                            "args": argparse.Namespace(lr=1e-5, n=2 ** 70)})
    yield "module", saved(Block())
    yield "module4", saved(Block(), pickle_protocol=4)
    script = io.BytesIO()
    torch.jit.save(torch.jit.script(Block().half()), script)
    yield "script", script.getvalue()


def pickle_of(archive):
    with zipfile.ZipFile(io.BytesIO(archive)) as z:
        name = next(n for n in z.namelist() if n.endswith("/data.pkl"))
        return z.read(name)


def with_three_digits(data):
    """Storages as fuzz_torch_zip names them."""
    for i in range(9):
        data = data.replace(b"X\1\0\0\0%d" % i, b"X\3\0\0\0%03d" % i)
        data = data.replace(b"\x8c\1%d" % i, b"\x8c\3%03d" % i)
    return data


def pickles():
    yield "plain", pickle.dumps(
        {"none": None, "list": [1, -2, 2 ** 40, 2 ** 90, 1.5, True],
         "set": {1}, "bytes": b"x", "frozen": frozenset("ab"),
         "array": bytearray(b"y")}, 5)


def write(folder, name, data):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def main():
    corpus = Path(sys.argv[1])
    for name, data in safetensors_seeds():
        write(corpus / "safetensors", name, data)
    for name, data in pickles():
        write(corpus / "pickle", name, data)
    for name, data in archives():
        text = pickle_of(data)
        write(corpus / "torch_zip", name, data)
        write(corpus / "torch_zip", name + ".pickle", with_three_digits(text))
        write(corpus / "pickle", name, text)


if __name__ == "__main__":
    main()
