#!/usr/bin/env python3
"""Write html_entities.c from Python's table of HTML5's named characters.

    src/tokenizer/html_entities.py > src/tokenizer/html_entities.c
"""

import html.entities


def literal(text):
    """A C string literal: octal escapes end after three digits."""
    return '"' + "".join(
        c if c.isascii() and c.isprintable() and c not in '"\\?'
        else "".join(f"\\{b:03o}" for b in c.encode())
        for c in text) + '"'


print("/* The named character references of HTML5, sorted; made by "
      "html_entities.py. */\n\n"
      '#include "src/tokenizer/html_entities.h"\n\n'
      "/* clang-format off */\n"
      "const mm_html_entity mm_html_entities[MM_N_HTML_ENTITIES] = {")
line = "   "
for name, value in sorted(html.entities.html5.items()):
    row = f" {{{literal(name)}, {literal(value)}}},"
    if len(line + row) > 80:
        print(line)
        line = "   "
    line += row
print(line, "};\n/* clang-format on */", sep="\n")
