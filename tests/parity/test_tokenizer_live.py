#!/usr/bin/env python3
# ctest: slow cost=45
"""Ids against the real open_clip, where an interpreter has it: the one that
runs this, or the environment that .ci/reference.sh makes."""

import json
import os
import subprocess
import sys
import unittest
from pathlib import Path

import magmax_cli as cli
import text_samples as samples
import vocabulary

CACHE = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
REFERENCE = Path(os.environ.get("MAGMAX_REFERENCE")
                 or Path(CACHE) / "magmax/reference")


FIND = """
import importlib.util
import sys
sys.exit(importlib.util.find_spec("open_clip") is None)
"""


def find_open_clip():
    """An interpreter that has open_clip, or None."""
    for python in (REFERENCE / "bin/python", sys.executable):
        try:
            subprocess.run([python, "-c", FIND], check=True,
                           capture_output=True, timeout=cli.DEADLINE_S)
            return python
        except (OSError, subprocess.SubprocessError):
            pass
    return None


PYTHON = find_open_clip()

MAKE_TOKENIZER_JSON = """
import sys
from open_clip.tokenizer import SimpleTokenizer
from tokenizers import Tokenizer, models

clip = SimpleTokenizer()
vocab = {s.replace("<start_of_text>", "<|startoftext|>")
         .replace("<end_of_text>", "<|endoftext|>"): i
         for s, i in clip.encoder.items()}
model = models.BPE(vocab=vocab, merges=list(clip.bpe_ranks),
                   end_of_word_suffix="</w>", unk_token="<|endoftext|>")
tokenizer = Tokenizer(model)
tokenizer.add_special_tokens(["<|startoftext|>", "<|endoftext|>"])
tokenizer.save(sys.argv[1])
"""


@unittest.skipIf(PYTHON is None,
                 f"no open_clip in {REFERENCE} or {sys.executable}")
@unittest.skipIf(vocabulary.PATH is None, vocabulary.WHY_NOT)
class TokenizerLive(cli.Case):
    @classmethod
    def setUpClass(cls):
        # One for all: importing open_clip takes seconds.
        cls.open_clip = subprocess.Popen(
            [PYTHON, Path(__file__).with_name("open_clip_ids.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": ""})
        cls.addClassCleanup(cls.open_clip.communicate)

    def check(self, texts):
        print(json.dumps(texts), file=self.open_clip.stdin, flush=True)
        answer = self.open_clip.stdout.readline()
        self.assertTrue(answer, "open_clip has ended; why is above")
        theirs = json.loads(answer)
        ours = vocabulary.encode(texts)
        wrong = [(ascii(text), a, b)
                 for text, a, b in zip(texts, ours, theirs) if a != b]
        self.assertEqual(wrong[:3], [], f"{len(wrong)} of {len(texts)} texts")

    def test_every_character_alone_in_words_and_by_sigmas(self):
        # Of the many ideographs and syllables a part will do.
        characters = samples.settled_characters()
        self.check(samples.character_texts(
            characters[:11000] + characters[11000::20]))

    def test_every_entity(self):
        self.check(samples.entity_texts())

    def test_numeric_references(self):
        self.check(samples.number_texts())

    def test_random_texts(self):
        self.check(samples.random_texts(20000, seed=2))

    def test_a_tokenizer_json_by_its_own_library(self):
        path = self.dir / "tokenizer.json"
        proc = subprocess.run([PYTHON, "-c", MAKE_TOKENIZER_JSON, path],
                              capture_output=True, text=True, timeout=cli.DEADLINE_S)
        if "No module named 'tokenizers'" in proc.stderr:
            self.skipTest("no tokenizers beside open_clip")
        self.assertEqual(proc.returncode, 0, proc.stderr)
        texts = samples.random_texts(100, seed=4)
        self.assertEqual(vocabulary.encode(texts, path),
                         vocabulary.encode(texts))

    def test_long_texts_keep_their_end(self):
        self.check(["word " * n for n in range(70, 80)] +
                   ["x" * n for n in (1, 10, 100, 1000)] +
                   ["a1" * n for n in (37, 38, 50)] +
                   ["\U0001f680" * n for n in (1, 10, 30)])


if __name__ == "__main__":
    cli.main()
