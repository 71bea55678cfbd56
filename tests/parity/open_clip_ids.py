"""open_clip's own tokenizer, without ftfy's repair: for each line of standard
input, a JSON array of texts, a line of their ids, without the zeros behind.

White space within a text is that of OpenAI's CLIP and of open_clip up to 2.24,
\\s of the package regex; later ones collapse what str.split takes for it, which
is U+001C to U+001F as well.

With --time also the seconds, as {"ids": ..., "seconds": ...}.
"""

import json
import sys
import time

import ftfy
import regex

ftfy.fix_text = lambda text: text

from open_clip import tokenizer as open_clip  # noqa: E402

open_clip.whitespace_clean = \
    lambda text: regex.sub(r"\s+", " ", text).strip()


def answer(tokenizer, texts):
    start = time.process_time()
    rows = tokenizer(texts).tolist()
    seconds = time.process_time() - start
    last = tokenizer.eot_token_id
    ids = [row[:len(row) - row[::-1].index(last)] for row in rows]
    return {"ids": ids, "seconds": seconds} if "--time" in sys.argv else ids


def main():
    tokenizer = open_clip.SimpleTokenizer()
    for line in sys.stdin:
        print(json.dumps(answer(tokenizer, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
