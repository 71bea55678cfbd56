#!/usr/bin/env python3
"""Cleaning of texts against Python's own html.unescape, str.strip and
str.lower, and the table of HTML's names against Python's."""

import html
import json
import re
import subprocess
import sys

import magmax_cli as cli
import text_samples as samples


def cleaned(text):
    text = html.unescape(html.unescape(text)).strip()
    return re.sub(f"[{samples.WHITE_SPACE}]+", " ", text).strip().lower()


class CleanText(cli.Case):
    def check(self, texts):
        proc = subprocess.run(cli.command("text_tool", "clean"),
                              input=json.dumps(texts), capture_output=True,
                              text=True, timeout=cli.DEADLINE_S)
        self.assertEqual((proc.returncode, proc.stderr), (0, ""), proc.stdout)
        results = json.loads(proc.stdout)
        self.assertEqual(len(results), len(texts))
        wrong = [(ascii(text), ascii(result), ascii(cleaned(text)))
                 for text, result in zip(texts, results)
                 if result != cleaned(text)]
        self.assertEqual(wrong[:5], [], f"{len(wrong)} of {len(texts)} texts")

    def test_every_character_alone_in_words_and_by_sigmas(self):
        self.check(samples.character_texts(samples.settled_characters()))

    def test_every_entity(self):
        self.check(samples.entity_texts())

    def test_numeric_references(self):
        self.check(samples.number_texts())

    def test_random_texts(self):
        self.check(samples.random_texts(20000, seed=1))

    def test_sigmas_in_rows(self):
        self.check(["\u0391" + "\u03a3" * n + end for n in range(1, 5)
                    for end in ("", ".", "\u0301", "\u0301B", "'", "'b", " b")])

    def test_long_texts(self):
        self.check(["&" * 100000, "&nGt;" * 20000, "\u0130" * 50000,
                    "\u0391\u03a3" + "\u0301" * 50000, " " * 100000])

    def test_the_table_of_names_is_pythons(self):
        maker = cli.SOURCE / "src/tokenizer/html_entities.py"
        made = subprocess.run([sys.executable, maker], capture_output=True,
                              check=True).stdout
        self.assertEqual(made, maker.with_suffix(".c").read_bytes())


if __name__ == "__main__":
    cli.main()
