#!/usr/bin/env python3
"""Do the image transforms give the bytes of Pillow and torchvision?

Pillow resizes; what torchvision adds (sizes, crops, boxes) is written out here.
The golden images were computed with torchvision itself.
"""

import json
import math
import unittest

import numpy as np

import magmax_cli as cli
from image_requests import (CROP, EVALUATION, TRAINING, Image, crop,
                            evaluation, transform)

try:
    from torchvision import transforms
    BICUBIC = transforms.InterpolationMode.BICUBIC
except ImportError:
    transforms = None

GOLDEN = cli.SOURCE / "tests/golden/images"
ALL_MODES = ["L", "LA", "RGB", "RGBA", "CMYK", "P", "1", "I"]


def uniform(seed, stream, counter, counter_high):
    """src/base/rng.h in Python integers."""
    mask = 0xffffffff
    c = [counter & mask, counter >> 32, counter_high & mask, counter_high >> 32]
    k = [seed & mask, (seed >> 32) ^ stream << 24]
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k[0], p1 & mask,
             (p0 >> 32) ^ c[3] ^ k[1], p0 & mask]
        k = [(k[0] + 0x9E3779B9) & mask, (k[1] + 0xBB67AE85) & mask]
    return ((c[1] << 32 | c[0]) >> 11) * 2.0 ** -53


def random_box(width, height, seed, epoch, sample):
    """torchvision's RandomResizedCrop.get_params, with our random numbers."""
    numbers = (uniform(seed, 2, sample, epoch * 64 + i) for i in range(64))
    low, high = math.log(3 / 4), math.log(4 / 3)
    for _ in range(10):
        area = width * height * (0.9 + (1 - 0.9) * next(numbers))
        ratio = math.exp(low + (high - low) * next(numbers))
        w = int(round(math.sqrt(area * ratio)))
        h = int(round(math.sqrt(area / ratio)))
        if 0 < w <= width and 0 < h <= height:
            top = int(next(numbers) * (height - h + 1))
            left = int(next(numbers) * (width - w + 1))
            return left, top, w, h
    ratio, w, h = width / height, width, height
    if ratio < 3 / 4:
        h = int(round(w / (3 / 4)))
    elif ratio > 4 / 3:
        w = int(round(h * (4 / 3)))
    return (width - w) // 2, (height - h) // 2, w, h


def random_image(rng, height, width, mode="RGB"):
    """Half noise, half extremes: clamping happens."""
    if mode == "1":
        bits = rng.integers(0, 2, (height, width), dtype=np.uint8)
        return Image.fromarray(bits * 255).convert("1")
    if mode == "I":
        return Image.fromarray(rng.integers(0, 65536, (height, width),
                                            dtype=np.int32))
    channels = len(Image.new(mode, (1, 1)).getbands())
    array = rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
    if rng.random() < 0.5:
        array = array // 128 * 255
    image = Image.frombytes(mode, (width, height), array.tobytes())
    if mode == "P":
        image.putpalette(rng.bytes(3 * 256))
    return image


@unittest.skipIf(Image is None, "Pillow is not installed (python3-pil)")
class Transform(unittest.TestCase):

    def assert_bytes(self, requests, expected):
        for request, got, want in zip(requests, transform(requests), expected):
            what, size, image, arguments = request
            about = "file" if isinstance(image, bytes) else str(image)
            self.assertEqual(
                int(np.count_nonzero(got != want)), 0,
                f"request {what}, {about} to {size}, {arguments}")

    def test_evaluation_equals_pillow_for_many_sizes(self):
        rng = np.random.default_rng(1)
        sizes = [(1, 1), (1, 7), (7, 1), (2, 3), (28, 28), (32, 32), (32, 31),
                 (33, 32), (375, 500), (500, 375), (224, 224), (224, 300),
                 (301, 224), (225, 224), (20, 900), (900, 20), (63, 1000)]
        sizes += [tuple(rng.integers(3, 400, 2)) for _ in range(60)]
        requests, expected = [], []
        for i, (h, w) in enumerate(sizes):
            for size in (32, 224) if i < 17 else (int(rng.integers(1, 230)),):
                mode = "L" if rng.random() < 0.3 else "RGB"
                image = random_image(rng, h, w, mode)
                requests.append((EVALUATION, size, image, ()))
                expected.append(evaluation(image, size))
        self.assert_bytes(requests, expected)

    def test_evaluation_equals_pillow_in_every_mode(self):
        rng = np.random.default_rng(6)
        sizes = [(1, 1), (1, 9), (9, 1), (2, 3), (28, 28), (28, 40), (40, 28),
                 (29, 28), (5, 300), (300, 5), (97, 131), (130, 90), (3, 1000)]
        requests, expected = [], []
        for mode in ALL_MODES:
            for h, w in sizes:
                for size in (1, 28, 65):
                    image = random_image(rng, h, w, mode)
                    requests.append((EVALUATION, size, image, ()))
                    expected.append(evaluation(image, size))
        self.assert_bytes(requests, expected)

    @unittest.skipIf(transforms is None, "torchvision is not installed")
    def test_torchvision_gives_what_is_written_out_here(self):
        rng = np.random.default_rng(8)
        requests, expected = [], []
        for mode in ALL_MODES:
            for h, w in [(31, 47), (47, 31), (28, 28), (28, 90), (9, 100)]:
                image = random_image(rng, h, w, mode)
                resized = transforms.Compose([
                    transforms.Resize(28, BICUBIC),
                    transforms.CenterCrop(28)])(image)
                requests.append((EVALUATION, 28, image, ()))
                expected.append(np.asarray(resized.convert("RGB")))
                left, top, width, height = random_box(
                    w, h, 5, 1, len(requests))
                cropped = transforms.functional.resized_crop(
                    image, top, left, height, width, (28, 28), BICUBIC)
                requests.append((TRAINING, 28, image, (5, 1, len(requests))))
                expected.append(np.asarray(cropped.convert("RGB")))
        self.assert_bytes(requests, expected)

    def test_crops_equal_pillow_for_many_boxes(self):
        rng = np.random.default_rng(2)
        requests, expected = [], []
        for i in range(240):
            h, w = (int(n) for n in rng.integers(1, 300, 2))
            left, top = int(rng.integers(0, w)), int(rng.integers(0, h))
            box = (left, top, int(rng.integers(1, w - left + 1)),
                   int(rng.integers(1, h - top + 1)))
            size = int(rng.choice([1, 7, 28, 32, 33, 64, 224]))
            image = random_image(rng, h, w, ALL_MODES[i % len(ALL_MODES)])
            requests.append((CROP, size, image, box))
            expected.append(crop(image, size, *box))
        self.assert_bytes(requests, expected)

    def test_training_crops_the_box_of_seed_epoch_and_sample(self):
        rng = np.random.default_rng(3)
        requests, expected, boxes = [], [], set()
        # The long ones exhaust the ten attempts and fall back.
        for h, w in [(28, 28), (375, 500), (400, 90), (60, 500), (1, 40),
                     (40, 1), (1, 1), (333, 250)]:
            for mode in ALL_MODES:
                seed, epoch, sample = (int(n) for n in
                                       rng.integers(0, [2**40, 99, 2**33]))
                image = random_image(rng, h, w, mode)
                box = random_box(w, h, seed, epoch, sample)
                boxes.add((h, w, box))
                requests.append((TRAINING, 28, image, (seed, epoch, sample)))
                expected.append(crop(image, 28, *box))
        self.assert_bytes(requests, expected)
        self.assertGreater(len(boxes), 20)

    def test_training_boxes_differ_by_sample_and_by_epoch(self):
        image = random_image(np.random.default_rng(4), 40, 40)
        places = [(5, 0, 0), (5, 0, 1), (5, 1, 0), (6, 0, 0), (5, 0, 0)]
        out = transform([(TRAINING, 28, image, place) for place in places])
        self.assertTrue((out[0] == out[4]).all())
        for other in out[1:4]:
            self.assertTrue((out[0] != other).any())

    def test_an_image_of_the_right_size_is_not_touched(self):
        rng = np.random.default_rng(5)
        requests, expected = [], []
        for mode in ALL_MODES:
            image = random_image(rng, 28, 28, mode)
            requests.append((EVALUATION, 28, image, ()))
            expected.append(np.asarray(image.convert("RGB")))
        self.assert_bytes(requests, expected)

    def test_golden_files_equal_torchvision(self):
        about = json.loads((GOLDEN / "images.json").read_text())
        boxes = about["crop_boxes_top_left_height_width"]
        golden = np.load(GOLDEN / "expected.npz")
        requests, expected = [], []
        for name in about["modes"]:
            file = (GOLDEN / name).read_bytes()
            for i, (top, left, height, width) in enumerate(boxes[name]):
                requests.append((CROP, 224, file, (left, top, width, height)))
                expected.append(golden[f"{name}.crop{i}"])
            for size in (224, 32):
                requests.append((EVALUATION, size, file, ()))
                expected.append(golden[f"{name}.val{size}"])
        self.assertEqual(len(requests), len(golden.files))
        self.assert_bytes(requests, expected)


if __name__ == "__main__":
    cli.main()
