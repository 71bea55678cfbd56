#!/usr/bin/env python3
"""Are decoded images those of Pillow: the same modes, bytes and palettes?

Every file is made here, by Pillow or, where Pillow cannot write a kind of PNG or
PPM, by hand; Pillow reads all of them.
"""

import io
import struct
import unittest
import zlib

import numpy as np

import image_requests as images
import magmax_cli as cli
from image_requests import Image, file_of

ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4),
         (1, 0, 2, 2), (0, 1, 1, 2)]  # first x, first y, step x, step y
SIZES = [(1, 1), (1, 9), (9, 1), (2, 3), (17, 5), (33, 40)]  # height, width


def chunk(name, data):
    return (struct.pack(">I", len(data)) + name + data +
            struct.pack(">I", zlib.crc32(name + data)))


def pack_rows(samples, depth):
    """[height, n] samples -> PNG's rows, without filters."""
    rows = b""
    for row in samples:
        if depth == 16:
            data = row.astype(">u2").tobytes()
        elif depth == 8:
            data = row.astype(np.uint8).tobytes()
        else:
            bits = (row[:, None] >> np.arange(depth - 1, -1, -1)) & 1
            data = np.packbits(bits.astype(np.uint8)).tobytes()
        rows += b"\0" + data
    return rows


def png(rng, height, width, depth, colour, interlaced, extra=b""):
    """A PNG file of random samples."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    samples = rng.integers(0, 1 << depth, (height, width, channels))
    passes = ADAM7 if interlaced else [(0, 0, 1, 1)]
    data = b""
    for x, y, dx, dy in passes:
        part = samples[y::dy, x::dx]
        if part.size:
            data += pack_rows(part.reshape(part.shape[0], -1), depth)
    palette = b""
    if colour == 3:
        n = int(rng.integers(1, (1 << depth) + 1))
        palette = chunk(b"PLTE", rng.bytes(3 * n))
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0,
                         interlaced)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + palette + extra +
            chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b""))


def picture(rng, height, width, channels=3):
    """Smooth with some noise, as photographs are."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / (7 + 3 * c) + c) + np.cos(y / (5 + 2 * c))
             for c in range(channels)]
    array = 128 + 50 * np.stack(waves, 2) + rng.normal(0, 8, (height, width, 1))
    array = array.clip(0, 255).astype(np.uint8)
    return array[..., 0] if channels == 1 else array


@unittest.skipIf(Image is None, "Pillow is not installed (python3-pil)")
class Decode(unittest.TestCase):

    def assert_as_pillow(self, files):
        """files: {what it is: bytes}."""
        decoded = images.decode(list(files.values()))
        for (what, file), ours in zip(files.items(), decoded):
            self.assertNotIsInstance(ours, str, f"{what}: {ours}")
            theirs = Image.open(io.BytesIO(file))
            theirs.load()
            array, palette = images.stored(theirs)
            self.assertEqual(ours[0], theirs.mode, what)
            np.testing.assert_array_equal(ours[1], array, what)
            self.assertEqual(ours[2], palette, what)
            if palette:
                colours = np.frombuffer(palette, np.uint8).reshape(256, 3)
                np.testing.assert_array_equal(
                    colours[array[..., 0]], np.asarray(theirs.convert("RGB")),
                    what)

    def test_png_of_every_kind(self):
        rng = np.random.default_rng(1)
        kinds = [(0, d) for d in (1, 2, 4, 8, 16)]
        kinds += [(3, d) for d in (1, 2, 4, 8)]
        kinds += [(c, d) for c in (2, 4, 6) for d in (8, 16)]
        self.assert_as_pillow({
            f"colour {colour}, {depth} bits, {size}, interlaced {interlaced}":
                png(rng, *size, depth, colour, interlaced)
            for colour, depth in kinds for size in SIZES
            for interlaced in (0, 1)})

    def test_png_transparency_and_other_chunks_change_no_pixel(self):
        rng = np.random.default_rng(2)
        gamma = chunk(b"gAMA", struct.pack(">I", 100000))
        text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"text" * 9))
        self.assert_as_pillow({
            "palette": png(rng, 9, 7, 4, 3, 0, chunk(b"tRNS", b"\0\x80")),
            "grey": png(rng, 9, 7, 8, 0, 0, chunk(b"tRNS", b"\0\x05")),
            "rgb": png(rng, 9, 7, 8, 2, 0, chunk(b"tRNS", bytes(6))),
            "gamma": png(rng, 9, 7, 8, 2, 0, gamma + text),
            "background": png(rng, 9, 7, 8, 6, 0, chunk(b"bKGD", bytes(6)))})

    def test_jpeg_of_every_kind(self):
        rng = np.random.default_rng(3)
        files = {}
        for height, width in SIZES + [(120, 161)]:
            rgb = Image.fromarray(picture(rng, height, width))
            grey = Image.fromarray(picture(rng, height, width, 1))
            cmyk = Image.fromarray(picture(rng, height, width, 4), "CMYK")
            for options in ({"subsampling": 0}, {"subsampling": 1},
                            {"subsampling": 2}, {"progressive": True},
                            {"quality": 30, "optimize": True},
                            {"subsampling": 2, "progressive": True}):
                for image in (rgb, grey, cmyk):
                    what = f"{image.mode} {height} x {width} {options}"
                    files[what] = file_of(image, "JPEG", **options)
        self.assert_as_pillow(files)

    def test_jpeg_of_adobe_and_of_stored_rgb(self):
        rng = np.random.default_rng(4)
        cmyk = Image.fromarray(picture(rng, 40, 50, 4), "CMYK")
        rgb = Image.fromarray(picture(rng, 40, 50))
        files = {}
        for name, image in (("cmyk", cmyk), ("rgb", rgb)):
            plain = file_of(image, "JPEG", subsampling=0)
            # Without JFIF's and Adobe's markers, then with Adobe's alone.
            bare = without_markers(plain)
            for transform in (0, 1, 2):
                adobe = (b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" +
                         bytes([transform]))
                files[f"{name} transform {transform}"] = (
                    bare[:2] + adobe + bare[2:])
            files[f"{name} bare"] = bare
        self.assert_as_pillow(files)

    def test_jpeg_orientation_is_not_applied(self):
        image = Image.fromarray(picture(np.random.default_rng(5), 20, 30))
        exif = Image.Exif()
        exif[0x0112] = 6
        self.assert_as_pillow({"turned": file_of(image, "JPEG", exif=exif)})

    def test_jpeg_with_padding_behind_the_last_pixel(self):
        image = Image.fromarray(picture(np.random.default_rng(6), 20, 30))
        file = file_of(image, "JPEG")
        self.assert_as_pillow({"padded": file[:-2] + b"\x55" * 99 + file[-2:],
                               "trailing": file + b"rest"})

    def test_webp_of_every_kind(self):
        rng = np.random.default_rng(7)
        files = {}
        for height, width in SIZES:
            rgb = Image.fromarray(picture(rng, height, width))
            rgba = Image.fromarray(picture(rng, height, width, 4))
            for image in (rgb, rgba):
                for lossless in (False, True):
                    files[f"{image.mode} {height} x {width} {lossless}"] = \
                        file_of(image, "WEBP", lossless=lossless)
        frames = [Image.fromarray(picture(rng, 24, 31, 4)) for _ in range(3)]
        files["animation"] = file_of(frames[0], "WEBP", save_all=True,
                                     append_images=frames[1:], duration=50)
        self.assert_as_pillow(files)

    def test_pnm_of_every_kind(self):
        rng = np.random.default_rng(8)
        files = {}
        for height, width in SIZES:
            size = b"%d %d\n" % (width, height)
            row = (width + 7) // 8
            n = height * width
            bits = " ".join(str(b) for b in rng.integers(0, 2, n)).encode()
            files[f"P1 {size}"] = b"P1\n" + size + bits
            files[f"P1 packed {size}"] = b"P1 " + size + bits.replace(b" ", b"")
            files[f"P4 {size}"] = b"P4\n" + size + rng.bytes(height * row)
            for largest in (1, 3, 100, 254, 255, 256, 1000, 65535):
                sample = "B" if largest < 256 else ">u2"
                head = size + b"%d\n" % largest
                for channels, plain, raw in ((1, b"P2", b"P5"),
                                             (3, b"P3", b"P6")):
                    values = rng.integers(0, largest + 1, n * channels)
                    text = " ".join(str(v) for v in values).encode()
                    files[f"{plain} {head}"] = plain + b"\n" + head + text
                    files[f"{raw} {head}"] = (raw + b"\n" + head +
                                              values.astype(sample).tobytes())
        self.assert_as_pillow(files)

    def test_pnm_comments_and_odd_spaces(self):
        self.assert_as_pillow({
            "header": b"P5 # one\n# two\n\t3\r\n2 #\n255\nabcdef",
            "in a number": b"P2\n1#x\n1 1\n9\n1 2 3 4 5 6 7 8 9 1#\n 2 ",
            "plain bits": b"P1\n3 2\n0 1 0 # end\n110\n",
            "trailing": b"P6\n1 1\n255\nabcdefgh"})


def without_markers(jpeg):
    """A JPEG file less its APPn segments."""
    out, at = jpeg[:2], 2
    while jpeg[at + 1] != 0xDA:
        n = 2 + struct.unpack_from(">H", jpeg, at + 2)[0]
        if not 0xE0 <= jpeg[at + 1] <= 0xEF:
            out += jpeg[at:at + n]
        at += n
    return out + jpeg[at:]


if __name__ == "__main__":
    cli.main()
