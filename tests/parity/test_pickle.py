#!/usr/bin/env python3
"""The pickle reader against Python's own pickles."""

import argparse
import collections
import decimal
import fractions
import io
import os
import pickle
import random
import subprocess
import tempfile
import unittest
from pathlib import Path

import magmax_cli as cli

ROOT = Path(__file__).resolve().parents[2]
TOOL = Path(os.environ.get("MAGMAX_TEST_BIN", ROOT / "build/bin-test"))


def c_hex(value):
    """A float as C's %a prints it."""
    text = value.hex()
    mantissa, exponent = text.split("p")
    if "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{mantissa}p{exponent}"


def shown(value):
    """As pickle_tool prints it."""
    if value is None or isinstance(value, bool):
        return str(value)
    if isinstance(value, int):
        return str(value) if -2 ** 63 <= value < 2 ** 63 else "big"
    if isinstance(value, float):
        return c_hex(value)
    if isinstance(value, str):
        return f't"{value.encode("utf-8", "surrogatepass").hex()}"'
    if isinstance(value, (bytes, bytearray)):
        return f'b"{value.hex()}"'
    begin, end = {tuple: "()", list: "[]", set: "<>", frozenset: "<>",
                  dict: "{}"}[type(value)]
    if isinstance(value, dict):
        value = [x for pair in value.items() for x in pair]
    return begin + "".join(shown(x) + "," for x in value) + end


def some_value(rng, depth=0):
    kind = rng.randrange(12 if depth < 4 else 6)
    if kind == 0:
        return rng.choice([None, True, False])
    if kind == 1:
        return rng.choice([1, -1]) * rng.getrandbits(rng.randrange(1, 80))
    if kind == 2:
        return rng.choice([-1, 0, 255, 256, 65535, 65536, 2 ** 31 - 1, 2 ** 31,
                           -2 ** 31, 2 ** 63 - 1, -2 ** 63, 2 ** 63])
    if kind == 3:
        return rng.choice([0.0, -0.0, 1.5, rng.gauss(0, 1e9), 5e-324, 1e308])
    if kind == 4:
        return "".join(rng.choice("aé漢😀\n\0") for _ in
                       range(rng.choice([0, 3, 300])))
    if kind == 5:
        return rng.randbytes(rng.choice([0, 3, 300]))
    n = rng.choice([0, 1, 2, 3, 4, 30])
    items = [some_value(rng, depth + 1) for _ in range(n)]
    if kind in (6, 7):
        return tuple(items)
    if kind in (8, 9):
        return items
    return {rng.choice([i, str(i), (i,)]): x for i, x in enumerate(items)}


class Pickles(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.file = Path(folder.name) / "data.pkl"
        # One for a test: starting it takes longer than reading.
        self.tool = subprocess.Popen(
            [str(TOOL / "pickle_tool")], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(self.end_tool)

    def end_tool(self):
        rest, said = self.tool.communicate(timeout=cli.DEADLINE_S)
        self.assertEqual((self.tool.returncode, rest, said), (0, "", ""))

    def read(self, data, *callables):
        self.file.write_bytes(data)
        print(self.file, *callables, sep="\t", file=self.tool.stdin,
              flush=True)
        code, _, text = self.tool.stdout.readline().partition(" ")
        self.assertTrue(code, "pickle_tool has ended")
        return int(code), text.rstrip("\n")

    def check(self, value, protocols=(3, 4, 5)):
        for protocol in protocols:
            self.assertEqual(self.read(pickle.dumps(value, protocol)),
                             (0, shown(value)))

    def test_random_values(self):
        rng = random.Random(11)
        for _ in range(100):
            self.check(some_value(rng))

    def test_protocol_2(self):
        self.check([1, "a", (2.5, None), {"b": [True]}], (2,))

    def test_sets_and_byte_arrays(self):
        self.check([{1}, frozenset([2]), set(), frozenset()], (4, 5))
        self.check(bytearray(b"abc"), (5,))

    def test_long_texts_and_many_items(self):
        self.check("x" * 70000)
        self.check(b"y" * 70000)
        self.check(list(range(2500)))
        self.check({i: str(i) for i in range(2500)})

    def test_pickles_without_frames_and_memo(self):
        value = [(1,), {"a": [2]}, "b"]
        out = io.BytesIO()
        pickler = pickle.Pickler(out, 4)
        pickler.fast = True
        pickler.dump(value)
        self.assertEqual(self.read(out.getvalue()), (0, shown(value)))

    def test_shared_values_and_cycles(self):
        shared = ["x"]
        self.check([shared, shared, (shared, shared)])
        cycle = []
        cycle.append((cycle,))
        # Printing it would not end; reading it must.
        data = pickle.dumps([cycle, 7], 4)
        self.assertEqual(self.read(data[:-1] + b"0N."), (0, "None"))

    def test_instances_and_calls(self):
        value = argparse.Namespace(a=1)
        for protocol in (2, 4):
            self.assertEqual(
                self.read(pickle.dumps(value, protocol)),
                (0, f"argparse.Namespace(){shown({'a': 1})}[]{{}}"))
        value = collections.OrderedDict(a=1, b=2)
        self.assertEqual(
            self.read(pickle.dumps(value, 4), "collections.OrderedDict"),
            (0, "collections.OrderedDict()[]{" +
             "".join(shown(x) + "," for x in ("a", 1, "b", 2)) + "}"))
        value = collections.deque([1, 2], 3)
        self.assertEqual(
            self.read(pickle.dumps(value, 4), "collections.deque"),
            (0, "collections.deque((),3,)[1,2,]{}"))

    def test_calls_that_are_not_listed(self):
        for value, name in ((decimal.Decimal(1), "decimal.Decimal"),
                            (fractions.Fraction(1, 2), "fractions.Fraction"),
                            (collections.OrderedDict(),
                             "collections.OrderedDict")):
            for protocol in (2, 4):
                code, text = self.read(pickle.dumps(value, protocol),
                                       "collections.OrderedDic",
                                       "ecimal.Decimal", "Fraction")
                self.assertEqual(code, 3)
                self.assertIn(f"it calls {name},", text)

    def test_persistent_ids(self):
        class Pickler(pickle.Pickler):
            def persistent_id(self, value):
                return ("kept", 5) if value is self else None
        for protocol in (2, 4):
            out = io.BytesIO()
            pickler = Pickler(out, protocol)
            pickler.dump([pickler, 1])
            self.assertEqual(self.read(out.getvalue()),
                             (0, f"[id{shown(('kept', 5))},1,]"))

    def test_protocol_0_is_refused_by_opcode(self):
        code, text = self.read(pickle.dumps([1, "a"], 0))
        self.assertEqual(code, 3)
        self.assertIn("(LIST)", text)

    def test_cut_anywhere(self):
        data = pickle.dumps([1, "abc", (2.5, b"x"), {"b": [None]}], 4)
        for size in range(len(data)):
            code, text = self.read(data[:size])
            self.assertEqual(code, 3)
            self.assertIn("truncated", text)


if __name__ == "__main__":
    unittest.main()
