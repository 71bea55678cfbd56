"""Texts that try a tokenizer: what several tests have in common."""

import html
import html.entities
import random
import unicodedata

# Unicode's white space; Python's re takes U+001C to U+001F for it as well.
WHITE_SPACE = ("\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000"
               + "".join(map(chr, range(0x2000, 0x200b))))

SPACES = [" ", "  ", "\t", "\r", "\x1c", "\x1f", "\x85", "\xa0", "\u2028",
          "\u180e", "\u200b", "\u3000", "\ufeff"]
WORDS = ["the", "photo", "A", "CAT", "123", "...", "!?", "isn't", "'s",
         "'\u017f", "'T", "'LL", "'ve", "</w>", "<start_of_text>",
         "<END_of_text>", "<\u017ftart_of_text>", "<|endoftext|>", "\u0130",
         "\u03a3", "\u0391\u03a3", "\u0391\u03a3\u0301.", "\u1e9e", "\u01c4",
         "\u0149", "\ufb05", "\u0345", "\u212a", "\U0001f469\u200d\U0001f467"]
ENTITIES = sorted(html.entities.html5)


def is_settled(text):
    """Whether the text, and what its references mean, has only characters that
    are assigned since Unicode 14 (which Python 3.11 has)."""
    text = html.unescape(html.unescape(text))
    return all(unicodedata.category(c) != "Cn" for c in text)


def settled_characters():
    """Every one that can be in a text, but for NUL."""
    return [chr(c) for c in range(1, 0x110000)
            if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co")]


def number_reference(rng):
    number = rng.choice([rng.randrange(0x120), rng.randrange(0x3000),
                         rng.randrange(0x120000), rng.randrange(10 ** 12),
                         0xd800, 0xdfff, 0xfdd0, 0xfffe, 0x10ffff, 0x110000])
    form = rng.choice(["&#{:d}", "&#x{:x}", "&#X{:X}", "&#x{:d}", "&#{:x}"])
    return form.format(number) + rng.choice(["", ";", " ", "z"])


def piece(rng, characters):
    """One of everything that has a rule of its own."""
    kind = rng.randrange(8)
    if kind == 0:
        return "&" + rng.choice(ENTITIES)
    if kind == 1:
        return ("&" + rng.choice(ENTITIES).rstrip(";")
                + rng.choice(["", ";", "a", "1", "&"]))
    if kind == 2:
        return number_reference(rng)
    if kind == 3:
        return "&amp;" + rng.choice(["#x26;lt;", rng.choice(ENTITIES)])
    if kind == 4:
        return rng.choice(SPACES)
    if kind == 5:
        return rng.choice(WORDS)
    if kind == 6:
        return "".join(rng.choices("etaoinshrdlu", k=rng.randrange(1, 20)))
    return rng.choice(characters)


def random_texts(n, seed=0):
    """n settled texts, a function of the seed."""
    rng = random.Random(seed)
    characters = settled_characters()
    texts = []
    while len(texts) < n:
        text = "".join(piece(rng, characters)
                       for _ in range(rng.randrange(1, 12)))
        if is_settled(text):
            texts.append(text)
    return texts


def entity_texts():
    """Every entity alone, in a word, without its last character, doubled."""
    return [form.format(name) for name in ENTITIES
            for form in ("&{}", "x&{}y", "&amp;{}")] + \
        ["&" + name[:-1] for name in ENTITIES] + \
        ["&" + name.rstrip(";") + "q;" for name in ENTITIES]


def number_texts():
    """Numeric references around everything that has a rule."""
    places = [*range(0x180), *range(0xd7f0, 0xe010), *range(0xfdc0, 0xfe00),
              *range(0xfff0, 0x10010), *range(0x10fff0, 0x110010)]
    return [form.format(place) for place in places
            for form in ("&#{};", "a&#x{:X}z", "&#{}")] + \
        ["&#;", "&#x;", "&#", "&#xg;", "&", "&;", "&#99999999999999999999;"]


def character_texts(characters):
    """Characters alone, within words, and around sigmas."""
    return [text for c in characters
            for text in (c, f"a{c}b A{c}1{c}!{c}",
                         f"\u0391\u03a3{c} \u0391\u03a3{c}B {c}\u03a3 "
                         f"\u0391{c}\u03a3")]
