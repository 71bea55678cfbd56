"""magmax_head --tokens as a user runs it: vocabularies of every kind, where they
are found, files of texts, and what can be wrong with them."""

import gzip
import json
import unittest

import magmax_cli as cli
import vocabulary

START, END, N_MERGES = 49406, 49407, 48894
A_CAT = [START, 320, 2368, END] + 73 * [0]


def merges():
    return gzip.decompress(vocabulary.PATH.read_bytes()) \
        .decode().split("\n")[1:N_MERGES + 1]


def byte_symbols():
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [b for b in range(256) if b not in shown]
    return [chr(b) for b in shown] + [chr(256 + i) for i in range(len(hidden))]


def tokenizer_json(lines, as_pairs=False, **changes):
    """tokenizer.json as Hugging Face's CLIP has it."""
    symbols = byte_symbols()
    symbols += [s + "</w>" for s in symbols]
    symbols += [line.replace(" ", "") for line in lines]
    symbols += ["<|startoftext|>", "<|endoftext|>"]
    added = [{"id": i, "content": symbols[i], "special": True}
             for i in (len(symbols) - 2, len(symbols) - 1)]
    root = {
        "version": "1.0", "added_tokens": added,
        "model": {"type": "BPE", "end_of_word_suffix": "</w>",
                  "vocab": {s: i for i, s in enumerate(symbols)},
                  "merges": [line.split(" ") for line in lines]
                  if as_pairs else lines}}
    root["model"].update(changes)
    return root


@unittest.skipIf(vocabulary.PATH is None, vocabulary.WHY_NOT)
class Tokens(cli.Case):
    def texts(self, content):
        path = self.dir / "texts.txt"
        path.write_bytes(content)
        return path

    def tokens(self, content, *more, **options):
        return cli.run_ok("magmax_head", "--tokens", self.texts(content),
                          *more, **options).json()

    def refused(self, *more, content=b"a cat\n", env=None):
        return cli.run("magmax_head", "--tokens", self.texts(content), *more,
                       env=env)

    def write(self, name, content):
        path = self.dir / name
        path.parent.mkdir(exist_ok=True)
        if isinstance(content, dict):
            content = json.dumps(content, ensure_ascii=False)
        path.write_bytes(content if isinstance(content, bytes)
                         else content.encode())
        return path

    # ---- files of texts

    def test_each_line_is_a_text(self):
        empty = [START, END] + 75 * [0]
        self.assertEqual(self.tokens(b"a cat\n\nA CAT"), [A_CAT, empty, A_CAT])
        self.assertEqual(self.tokens(b"a cat\r\na cat\r\n"), [A_CAT, A_CAT])
        self.assertEqual(self.tokens(b""), [])
        self.assertEqual(self.tokens(b"\n"), [empty])

    def test_ranks_print_once(self):
        self.assertEqual(self.tokens(b"a cat\n", n_ranks=2), [A_CAT])

    def test_a_long_text_keeps_its_end(self):
        ids, = self.tokens(b"cat " * 1000)
        self.assertEqual(ids, [START] + 75 * [2368] + [END])

    def test_bad_texts_are_named(self):
        for content, words in (
                (b"ok\nno \xff\n", ("texts.txt:2", "not UTF-8", "byte 3",
                                    "0xff")),
                (b"\xed\xa0\x80", ("texts.txt:1", "not UTF-8", "byte 0")),
                (b"a\0b\n", ("texts.txt", "not a text file"))):
            self.assert_one_line_error(self.refused(content=content), *words)
        proc = cli.run("magmax_head", "--tokens", self.dir / "none.txt")
        self.assert_one_line_error(proc, "none.txt", "No such file")

    def test_other_work_cannot_be_asked_for_as_well(self):
        self.assert_one_line_error(self.refused("--orthonormal"), "choose one",
                                   "--tokens", "--orthonormal")

    # ---- vocabularies

    def test_every_format_gives_the_same_ids(self):
        content = "a photo of 12 CAT's, na\u00efve \u65e5\u672c \U0001f642 " \
                  "<end_of_text> \u0130 xyzzy".encode()
        expected = self.tokens(content)
        lines = merges()
        plain = gzip.decompress(vocabulary.PATH.read_bytes())
        for name, text in (
                ("simple.txt", plain),
                ("merges.txt", "#version: 0.2\n" + "\n".join(lines) + "\n"),
                ("dos.txt", "#version: 0.2\r\n" + "\r\n".join(lines)),
                ("merges.txt.gz", gzip.compress(
                    ("#version: 0.2\n" + "\n".join(lines)).encode())),
                ("tokenizer.json", tokenizer_json(lines)),
                ("pairs.json", tokenizer_json(lines, as_pairs=True))):
            with self.subTest(name):
                path = self.write(name, text)
                self.assertEqual(self.tokens(content, "--vocab", path),
                                 expected)

    def test_wrong_sizes_say_expected_and_found(self):
        lines = merges()
        short = "\n".join(lines[:-1])
        for text in ("#version: 0.2\n" + short,
                     '"bpe_simple_vocab_16e6.txt#version: 0.2\n' + short,
                     tokenizer_json(lines[:-1])):
            path = self.write("short", text)
            self.assert_one_line_error(
                self.refused("--vocab", path), "short holds 48893 merges",
                "49407 ids", "expected 48894", "49408 ids")
        for text in ("#version: 0.2\n" + "\n".join([*lines, "a b"]),
                     tokenizer_json([*lines, "x q"])):
            path = self.write("long", text)
            self.assert_one_line_error(self.refused("--vocab", path),
                                       "long holds 48895", "expected 48894")

    def test_ids_that_do_not_follow_from_merges_are_refused(self):
        lines = merges()
        swapped = tokenizer_json(lines)
        vocab = swapped["model"]["vocab"]
        vocab["in"], vocab["th"] = vocab["th"], vocab["in"]
        path = self.write("swapped.json", swapped)
        self.assert_one_line_error(self.refused("--vocab", path), "'in'",
                                   "expected 512")
        special = tokenizer_json(lines)
        special["added_tokens"][0]["id"] = 7
        path = self.write("special.json", special)
        self.assert_one_line_error(self.refused("--vocab", path),
                                   "<|startoftext|>", "7", "49406")

    def test_what_is_no_vocabulary_is_refused(self):
        packed = vocabulary.PATH.read_bytes()
        for content, words in (
                (b"", ("is not a vocabulary", "#version:")),
                (b"hello\nworld\n", ("is not a vocabulary", "tokenizer.json")),
                (b'{"model": 3}', ("model.vocab", "model.merges")),
                (b'{"model": ', ("bad:1",)),
                (b"a\0b", ("not a text file",)),
                (packed[:5000], ("truncated",)),
                (packed[:5000] + b"x" * 50 + packed[5050:], ("damaged",)),
                (b"#version: 0.2\ni n\nq</w> xx\n",
                 ("line 3", "no earlier one makes", "'xx'")),
                (b"#version: 0.2\ni n\ni n\n", ("line 3", "makes the same symbol")),
                (b"#version: 0.2\ni n\nin\n", ("line 3", "two symbols", "'in'")),
                (b"#version: 0.2\ni n t\n", ("line 2", "two symbols"))):
            path = self.write("bad", content)
            with self.subTest(content[:20]):
                self.assert_one_line_error(self.refused("--vocab", path),
                                           "bad", *words)
        self.assert_one_line_error(self.refused("--vocab", self.dir / "none"),
                                   "none", "No such file")

    # ---- where it is found

    def test_beside_the_weights_before_elsewhere(self):
        home = self.dir / "home"
        lines = merges()
        self.write("weights/merges.txt", "#version: 0.2\n" + "\n".join(lines))
        bad = self.write("home/bad.txt", b"no vocabulary")
        (home / "magmax").mkdir()
        bad.rename(home / "magmax/merges.txt")
        env = {"XDG_DATA_HOME": home}
        self.assertEqual(
            self.tokens(b"a cat", "--load", self.dir / "weights/model.h5",
                        env=env), [A_CAT])
        self.assertEqual(
            self.tokens(b"a cat", "--vocab", self.dir / "weights", env=env),
            [A_CAT])
        self.assert_one_line_error(self.refused(env=env),
                                   "magmax/merges.txt is not a vocabulary")

    def test_places_looked_at_are_named(self):
        env = {"XDG_DATA_HOME": None, "HOME": self.dir / "home"}
        self.assert_one_line_error(
            self.refused("--load", self.dir / "w.h5", env=env),
            "no vocabulary", str(self.dir), "home/.local/share/magmax",
            "share/magmax", "--vocab", ".ci/install.sh vocabulary")
        folder = self.dir / "empty"
        folder.mkdir()
        self.assert_one_line_error(self.refused("--vocab", folder),
                                   "no vocabulary", str(folder))


if __name__ == "__main__":
    cli.main()
