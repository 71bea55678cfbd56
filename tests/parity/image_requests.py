"""Asks bin-test/transform_images to decode and transform images, and says what
Pillow and torchvision make of the same ones."""

import io
import struct
import subprocess

import numpy as np

import magmax_cli as cli

try:
    from PIL import Image
except ImportError:
    Image = None

EVALUATION, CROP, TRAINING, DECODE = range(4)
MODES = ["L", "LA", "RGB", "RGBA", "CMYK", "P", "1", "I"]
CHANNELS = [1, 2, 3, 4, 4, 1, 1, 2]
FILE = -1


def stored(image):
    """An image of Pillow's as ours are held: bytes [height, width, channels],
    palettes as 256 entries."""
    array = np.asarray(image)
    if image.mode == "1":
        array = array.astype(np.uint8) * 255
    elif image.mode == "I":
        array = np.frombuffer(array.astype("<u2").tobytes(), np.uint8)
    array = array.reshape(image.height, image.width, -1)
    return array, palette_of(image) if image.mode == "P" else b""


def palette_of(image):
    """What each of the 256 indices becomes, those that it has no entry for
    included."""
    ramp = Image.frombytes("P", (256, 1), bytes(range(256)))
    ramp.putpalette(image.im.getpalette("RGB", "RGB"))
    return ramp.convert("RGB").tobytes()


def request(what, size, image, arguments=()):
    """`image` is the bytes of a file, or an image of Pillow's."""
    mode, height, width, data = FILE, 0, 0, image
    if not isinstance(image, bytes):
        array, palette = stored(image)
        mode, data = MODES.index(image.mode), array.tobytes() + palette
        height, width = array.shape[:2]
    arguments = (list(arguments) + [0] * 4)[:4]
    return struct.pack("<10q", what, size, mode, height, width, len(data),
                       *arguments) + data


def ask(requests):
    """[(what, size, image, arguments)] -> [(status, bytes)]."""
    proc = subprocess.run(cli.command("transform_images"),
                          input=b"".join(request(*r) for r in requests),
                          env=cli.environment(), capture_output=True,
                          timeout=cli.DEADLINE_S)
    assert proc.returncode == 0, proc.stderr.decode()
    replies, at = [], 0
    while at < len(proc.stdout):
        status, n_bytes = struct.unpack_from("<2q", proc.stdout, at)
        at += 16
        replies.append((status, proc.stdout[at:at + n_bytes]))
        at += n_bytes
    assert at == len(proc.stdout) and len(replies) == len(requests)
    return replies


def transform(requests):
    """As ask, for requests that succeed: arrays [size, size, 3]."""
    arrays = []
    for (status, data), (_, size, *_) in zip(ask(requests), requests):
        assert status == 0, data.decode()
        arrays.append(np.frombuffer(data, np.uint8).reshape(size, size, 3))
    return arrays


def decode(files):
    """Files' bytes -> [(mode, array, palette)]; a failure is its message."""
    images = []
    for status, data in ask([(DECODE, 0, file) for file in files]):
        if status != 0:
            images.append(data.decode())
            continue
        mode, height, width, channels = struct.unpack_from("<4q", data)
        assert channels == CHANNELS[mode]
        n_bytes = height * width * channels
        array = np.frombuffer(data, np.uint8, n_bytes, 32)
        images.append((MODES[mode], array.reshape(height, width, channels),
                       data[32 + n_bytes:]))
    return images


def file_of(image, kind, **options):
    """The bytes that Pillow writes."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def evaluation(image, size):
    """torchvision 0.14: Resize(size, BICUBIC), CenterCrop(size), RGB."""
    w, h = image.size
    short, long = (w, h) if w <= h else (h, w)
    longer = int(size * long / short)
    image = image.resize((size, longer) if w <= h else (longer, size),
                         Image.BICUBIC)
    w, h = image.size
    top, left = int(round((h - size) / 2.0)), int(round((w - size) / 2.0))
    image = image.crop((left, top, left + size, top + size))
    return np.asarray(image.convert("RGB"))


def crop(image, size, left, top, width, height):
    """torchvision's resized_crop."""
    image = image.crop((left, top, left + width, top + height))
    return np.asarray(image.resize((size, size), Image.BICUBIC).convert("RGB"))
