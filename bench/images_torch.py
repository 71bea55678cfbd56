#!/usr/bin/env python3
"""JPEG files in memory to normalised fp32 by Pillow and torchvision, as
open_clip's evaluation transform does it, on one core. See images.sh.

    images_torch.py make FOLDER N QUALITY  write N pictures of 500 x 375
    images_torch.py time REPEATS FILE...   print one JSON object of images/s
"""

import io
import json
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image


def make(folder, n_files, quality):
    """Pictures whose spectrum falls as photographs' does, 1/f, chroma
    subsampled."""
    rng = np.random.default_rng(5)
    height, width = 375, 500
    fy = np.fft.fftfreq(height)[:, None]
    fx = np.fft.rfftfreq(width)[None, :]
    envelope = 1 / np.maximum(np.hypot(fy, fx), 1 / width)
    for i in range(n_files):
        planes = []
        for strength in (55, 18, 18):  # luma, chroma
            noise = np.fft.irfft2(
                np.fft.rfft2(rng.normal(size=(height, width))) * envelope,
                (height, width))
            planes.append(128 + strength * noise / noise.std())
        array = np.stack(planes, 2).clip(0, 255).astype(np.uint8)
        Image.fromarray(array, "YCbCr").save(
            Path(folder) / f"{i:03}.jpg", quality=quality)


def measure(repeats, paths):
    import torch
    from torchvision import transforms

    torch.set_num_threads(1)
    transform = transforms.Compose([
        transforms.Resize(
            224, interpolation=transforms.InterpolationMode.BICUBIC),
        transforms.CenterCrop(224),
        lambda image: image.convert("RGB"),
        transforms.ToTensor(),
        transforms.Normalize((0.48145466, 0.4578275, 0.40821073),
                             (0.26862954, 0.26130258, 0.27577711))])
    files = [Path(path).read_bytes() for path in paths]
    for repeat in range(-1, repeats):
        if repeat == 0:  # the first time warms up
            start = time.process_time()
        for file in files:
            transform(Image.open(io.BytesIO(file)))
    seconds = time.process_time() - start
    print(json.dumps({"pillow": repeats * len(files) / seconds}))


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        measure(int(sys.argv[2]), sys.argv[3:])
