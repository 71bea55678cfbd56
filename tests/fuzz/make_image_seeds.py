#!/usr/bin/env python3
"""Writes the seeds of the image targets: one small file a kind, by Pillow.

    make_image_seeds.py CORPUS      (tests/fuzz/corpus)
"""

import sys
import zlib
from pathlib import Path
from struct import pack

import numpy as np
from PIL import Image

corpus = Path(sys.argv[1])
rng = np.random.default_rng(1)


def picture(mode, width=20, height=17):
    channels = len(Image.new(mode, (1, 1)).getbands())
    ramp = np.add.outer(np.arange(height) * 7, np.arange(width) * 5)
    array = ramp[..., None] + rng.integers(0, 60, (height, width, channels))
    return Image.frombytes(mode, (width, height),
                           array.astype(np.uint8).tobytes())


def save(folder, name, image, kind, **options):
    (corpus / folder).mkdir(exist_ok=True)
    image.save(corpus / folder / name, kind, **options)


def chunk(name, data):
    return pack(">I", len(data)) + name + data + pack(">I", zlib.crc32(name + data))


def png(name, depth, colour, interlaced=0, extra=b""):
    """Kinds that Pillow does not write: rows of noise."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    rows = b"".join(bytes([y % 5]) + rng.bytes((9 * depth * channels + 7) // 8)
                    for y in range(7))
    if interlaced:  # more rows than seven passes need
        rows = bytes(9 * 7 * channels * depth // 8 + 40)
    data = (b"\x89PNG\r\n\x1a\n" +
            chunk(b"IHDR", pack(">IIBBBBB", 9, 7, depth, colour, 0, 0,
                                interlaced)) + extra +
            chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    (corpus / "png" / name).write_bytes(data)


for mode in ("L", "RGB", "CMYK"):
    for name, options in {"plain": {"quality": 80},
                          "progressive": {"progressive": True},
                          "even": {"subsampling": 0}}.items():
        save("jpeg", f"{mode}-{name}.jpg", picture(mode), "JPEG", **options)
save("jpeg", "thin.jpg", picture("L", 90, 1), "JPEG", optimize=True)

for mode in ("1", "L", "LA", "RGB", "RGBA", "P"):
    image = picture("L").convert(mode) if mode in "1P" else picture(mode)
    save("png", f"{mode}.png", image, "PNG")
palette = chunk(b"PLTE", rng.bytes(12)) + chunk(b"tRNS", b"\0\x80")
png("palette-2.png", 2, 3, extra=palette)
png("grey-2.png", 2, 0)
png("grey-16.png", 16, 0)
png("grey-alpha-16.png", 16, 4)
png("rgb-16.png", 16, 2, extra=chunk(b"tRNS", bytes(6)))
png("rgba-16-interlaced.png", 16, 6, 1)
png("grey-1-interlaced.png", 1, 0, 1)
png("text.png", 8, 0, extra=chunk(b"zTXt", b"a\0\0" + zlib.compress(b"b")) +
    chunk(b"gAMA", pack(">I", 1)))

for mode in ("RGB", "RGBA"):
    save("webp", f"{mode}-lossy.webp", picture(mode), "WEBP", quality=40)
    save("webp", f"{mode}-lossless.webp", picture(mode), "WEBP", lossless=True)
save("webp", "animation.webp", picture("RGBA"), "WEBP", save_all=True,
     append_images=[picture("RGBA")])

(corpus / "pnm").mkdir(exist_ok=True)
for name, data in {
        "p1.pbm": b"P1 # bits\n3 2\n0 1 0 110",
        "p2.pgm": b"P2\n3 2\n9\n0 1 2 3 4 9 ",
        "p2-wide.pgm": b"P2\n2 1\n65535\n65535 1 ",
        "p3.ppm": b"P3\n2 1\n255\n1 2 3 4 5 6 ",
        "p4.pbm": b"P4\n9 2\n" + bytes(range(4)),
        "p5.pgm": b"P5\n4 2\n255\n" + bytes(range(8)),
        "p5-16.pgm": b"P5\n2 2\n2000\n" + bytes(range(8)),
        "p6.ppm": b"P6\n2 2\n254\n" + bytes(range(12)),
        "p6-16.ppm": b"P6\n2 1\n65535\n" + bytes(range(12))}.items():
    (corpus / "pnm" / name).write_bytes(data)
