#!/usr/bin/env python3
"""Ids against stored ones that open_clip made."""

import json
import lzma
import unittest

import magmax_cli as cli
import vocabulary


@unittest.skipIf(vocabulary.PATH is None, vocabulary.WHY_NOT)
class StoredIds(cli.Case):
    def check(self, cases):
        texts = [case["text"] for case in cases]
        ids = [case["ids"] for case in cases]
        for row in ids:
            while row[-1] == 0:
                row.pop()
        for text, expected, found in zip(texts, ids, vocabulary.encode(texts)):
            self.assertEqual(found, expected, ascii(text))

    def test_texts_of_the_reference(self):
        path = cli.GOLDEN / "text/tokens.json"
        cases = json.loads(path.read_text())["cases"]
        self.assertGreater(len(cases), 80)
        self.check(cases)

    def test_random_texts(self):
        """Those of text_samples.py, by open_clip 2.24.0 without ftfy."""
        packed = (cli.SOURCE / "tests/golden/tokens_random.json.xz").read_bytes()
        cases = json.loads(lzma.decompress(packed))
        self.assertGreater(len(cases), 400)
        self.check(cases)


if __name__ == "__main__":
    cli.main()
