#!/usr/bin/env python3
"""Write the seeds of fuzz_vocabulary and fuzz_tokenizer into corpus/."""

import gzip
import json
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
MERGES = ["b a", "n a", "na na</w>", "ba na", "a </w>"]


def byte_symbols():
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(b) for b in shown] + [chr(256 + i) for i in range(68)]


def vocabulary():
    merges = MERGES[:2]
    symbols = byte_symbols()
    symbols += [s + "</w>" for s in symbols] + ["ba", "na"]
    end = len(symbols)
    added = [{"id": end, "content": "<|startoftext|>"},
             {"id": end + 1, "content": "<|endoftext|>"}]
    model = {"vocab": {s: i for i, s in enumerate(symbols)}, "merges": merges}
    plain = "#version: 0.2\n" + "\n".join(merges) + "\n"
    yield "list", plain.encode(), 2
    yield "cut", f'"bpe_simple_vocab_16e6.txt{plain}'.encode(), 1
    yield "compressed", gzip.compress(plain.encode(), mtime=0), 2
    yield "unknown", b"#version:\nb a\nba nana</w>", 2
    for name, merged in (("strings", merges),
                         ("pairs", [m.split() for m in merges])):
        root = {"added_tokens": added, "model": {**model, "merges": merged}}
        yield name, json.dumps(root, ensure_ascii=False,
                               separators=(",", ":")).encode(), 2


TEXTS = {
    "plain": "A photo of the 2 CATS, isn't it!!!!",
    "entities": "&lt;b&gt;&amp;amp;notit;&nGt;&CounterClockwiseContourIntegral;",
    "numbers": "&#0;&#x80;&#xD800;&#1114112;&#13;&#11;&#xfdd0&#99999999999;",
    "spaces": "\u00a0\u2003 a \u3000\u0085b\u001c\u2028",
    "case": "\u0391\u03a3\u0301' \u03a3 \u0130 \u02b0\u03a3 \u01c4 \u1e9e",
    "special": "<start_of_text><END_OF_TEXT>'\u017f <\u017ftart_of_text>",
    "emoji": "\U0001f469\u200d\U0001f467 \u65e5\u672c \u0939\u093f \u0345",
    "long": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" * 4,
}


def main():
    for folder in ("vocabulary", "tokenizer"):
        (CORPUS / folder).mkdir(parents=True, exist_ok=True)
    for name, content, n_merges in vocabulary():
        (CORPUS / "vocabulary" / name).write_bytes(content + bytes([n_merges]))
    for name, text in TEXTS.items():
        (CORPUS / "tokenizer" / name).write_bytes(text.encode())
    (CORPUS / "tokenizer/broken").write_bytes(b"caf\xe9 \xf0\x9f\x99")


if __name__ == "__main__":
    main()
