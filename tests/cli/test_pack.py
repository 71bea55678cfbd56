#!/usr/bin/env python3
"""magmax_pack as a user runs it: what the packed file holds, read by h5py."""

import gzip
import json
import unittest
from pathlib import Path

import h5py
import numpy as np

import magmax_cli as cli

FASHION = Path("/usr/share/datasets/fashion-mnist")
FIVE = ["upright", "rot90", "invert", "noise", "pixelate"]


def uniform_words(seed, stream, counter, counter_high):
    """The first two words of Philox4x32-10 (src/base/rng.h)."""
    mask = np.uint64(0xffffffff)
    counter, high = np.broadcast_arrays(np.uint64(counter),
                                        counter_high.astype(np.uint64))
    low32, shift = (lambda x: x & mask), np.uint64(32)
    c = [low32(counter), counter >> shift, low32(high), high >> shift]
    k = [np.uint64(seed & 0xffffffff),
         np.uint64((seed >> 32) ^ (stream << 24))]
    for _ in range(10):
        p0 = np.uint64(0xD2511F53) * c[0]
        p1 = np.uint64(0xCD9E8D57) * c[2]
        c = [(p1 >> shift) ^ c[1] ^ k[0], low32(p1),
             (p0 >> shift) ^ c[3] ^ k[1], low32(p0)]
        k = [low32(k[0] + np.uint64(0x9E3779B9)),
             low32(k[1] + np.uint64(0xBB67AE85))]
    return c[0], c[1]


def normal(seed, counter, n):
    """n draws of mm_rng_normal from the stream of domains."""
    a, b = uniform_words(seed, 5, counter, np.arange(n))
    u, v = (a + 1.0) * 2.0 ** -32, b * 2.0 ** -32
    return np.sqrt(-2.0 * np.log(u)) * np.cos(2 * np.pi * v)


def noise(images, seed, split):
    out = np.empty(images.shape, np.uint8)
    for i, image in enumerate(images):
        counter = i + (2 ** 40 if split == "test" else 0)
        n = normal(seed, counter, image.size).reshape(image.shape)
        out[i] = np.rint(np.clip(36 + np.flipud(image) / 2 + 63 * n, 0, 255))
    return out


def pixelate(images):
    """2 x 2 mean, halves up, of what there is; nearest x 2; transposed."""
    h, w = images.shape[1:3]
    pad = [(0, 0), (0, h % 2), (0, w % 2)] + [(0, 0)] * (images.ndim - 3)
    v = np.pad(images.astype(int), pad)
    there = np.pad(np.ones(images.shape, int), pad)
    sums, counts = (
        x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]
        for x in (v, there))
    mean = (sums + counts // 2) // counts
    large = mean.repeat(2, 1).repeat(2, 2)[:, :h, :w]
    return np.swapaxes(large, 1, 2).astype(np.uint8)


def domain(name, images, split, seed=5):
    return {
        "upright": lambda: images,
        "rot90": lambda: np.rot90(images, axes=(1, 2)),
        "invert": lambda: 255 - images,
        "noise": lambda: noise(images, seed, split),
        "pixelate": lambda: pixelate(images),
    }[name]()


def read_idx(name):
    data = gzip.decompress((FASHION / f"{name}.gz").read_bytes())
    n_dims = data[3]
    shape = np.frombuffer(data, ">i4", n_dims, 4)
    return np.frombuffer(data, np.uint8, -1, 4 + 4 * n_dims).reshape(shape)


def texts(dataset):
    return [text.decode() for text in dataset[()]]


class PackCase(cli.Case):

    def setUp(self):
        super().setUp()
        self.npz, self.out = self.dir / "data.npz", self.dir / "packed.h5"

    def pack(self, *args, **options):
        return cli.run_ok("magmax_pack", "--dataset", self.npz, "-o", self.out,
                          *args, **options)

    def assert_fails(self, *args, says=(), n_ranks=None, **options):
        """One line, and not a file more or less or changed."""
        with cli.unchanged(self.dir):
            proc = cli.run("magmax_pack", *args, n_ranks=n_ranks, **options)
        cli.assert_one_line_error(proc, *says)


class Pack(PackCase):

    def assert_domains(self, names, **data):
        data = cli.make_npz(self.npz, n_train=12, n_test=8, **data)
        self.pack("--domains", ",".join(names))
        with h5py.File(self.out) as file:
            self.assertEqual(texts(file["domain_names"]), names)
            for split in ("train", "test"):
                images = data[f"{split}_images"]
                n, got = len(images), file[split]["images"][()]
                self.assertEqual(got.dtype, np.uint8)
                self.assertEqual(len(got), n * len(names))
                np.testing.assert_array_equal(
                    file[split]["domains"], np.repeat(range(len(names)), n))
                np.testing.assert_array_equal(
                    file[split]["labels"],
                    np.tile(data[f"{split}_labels"], len(names)))
                for i, name in enumerate(names):
                    want = domain(name, images, split)
                    part = got[i * n:(i + 1) * n]
                    off = np.abs(part.astype(int) - want)
                    # Another libm may round the noise of a pixel otherwise.
                    allowed = images.size // 1000 if name == "noise" else 0
                    self.assertLessEqual(np.count_nonzero(off), allowed, name)
                    self.assertLessEqual(off.max(), 1 if allowed else 0, name)

    def test_domains_of_grey_images_equal_numpy(self):
        self.assert_domains(FIVE, size=28, grey=True)

    def test_domains_of_colour_images_equal_numpy(self):
        self.assert_domains(FIVE, size=12)

    def test_domains_of_an_odd_size_equal_numpy(self):
        self.assert_domains(["pixelate", "noise", "rot90"], size=9)

    def test_domains_that_turn_oblong_images_equal_numpy(self):
        rng = np.random.default_rng(1)
        self.assert_domains(
            ["rot90", "pixelate"],
            train_images=rng.integers(0, 256, (12, 5, 8), dtype=np.uint8),
            test_images=rng.integers(0, 256, (8, 5, 8), dtype=np.uint8))

    def test_noise_follows_the_seed(self):
        data = cli.make_npz(self.npz, size=8, grey=True)
        self.pack("--domains", "noise", "--seed", "123456789012")
        with h5py.File(self.out) as file:
            want = noise(data["train_images"], 123456789012, "train")
            off = np.abs(file["train/images"][()].astype(int) - want)
        self.assertLessEqual(off.max(), 1)
        self.assertLessEqual(np.count_nonzero(off), 4)

    def test_without_domains_everything_is_kept(self):
        data = cli.make_npz(self.npz, size=6, n_domains=3, compressed=True)
        for source in (self.npz, self.out):  # the packed file packs again
            target = self.dir / f"from-{source.suffix[1:]}.h5"
            cli.run_ok("magmax_pack", "--dataset", source, "-o", target)
            with h5py.File(target) as file:
                for name, array in data.items():
                    got = file[name.replace("_", "/", 1)]
                    np.testing.assert_array_equal(got[()], array, name)
                self.assertNotIn("domain_names", file)
            self.out.write_bytes(target.read_bytes())

    def test_names_of_domains_and_classes_survive_packing_again(self):
        cli.make_npz(self.npz, grey=True)
        self.pack("--domains", "invert,rot90")
        again = self.dir / "again.h5"
        cli.run_ok("magmax_pack", "--dataset", self.out, "-o", again,
                   "--samples-per-class", 3)
        with h5py.File(again) as file:
            self.assertEqual(texts(file["domain_names"]), ["invert", "rot90"])
            self.assertEqual(len(file["train/images"]), 2 * 4 * 3)
            self.assertEqual(len(file["test/images"]), 2 * 32)
            np.testing.assert_array_equal(file["train/domains"],
                                          np.repeat([0, 1], 12))

    def test_samples_per_class_keeps_the_first_of_each(self):
        data = cli.make_npz(self.npz)
        self.pack("--samples-per-class", 5)
        labels = data["train_labels"]
        kept = np.sort(np.concatenate(
            [np.flatnonzero(labels == c)[:5] for c in range(4)]))
        with h5py.File(self.out) as file:
            np.testing.assert_array_equal(file["train/images"],
                                          data["train_images"][kept])
            np.testing.assert_array_equal(file["train/labels"], labels[kept])
            np.testing.assert_array_equal(file["test/images"],
                                          data["test_images"])
            self.assertNotIn("domains", file["train"])

    def test_a_data_set_without_test_images_packs(self):
        cli.make_npz(self.npz, grey=True, test_images=None, test_labels=None)
        self.pack("--domains", "upright,invert")
        with h5py.File(self.out) as file:
            self.assertEqual(len(file["train/images"]), 128)
        cli.run_ok("magmax_pack", "--dataset", self.out, "-o",
                   self.dir / "again.h5")

    def test_any_number_of_ranks_writes_the_same(self):
        cli.make_npz(self.npz, grey=True)
        contents = []
        for n_ranks in (None, 1, 3):
            self.pack("--domains", ",".join(FIVE), n_ranks=n_ranks)
            with h5py.File(self.out) as file:
                contents.append(file["train/images"][()].tobytes())
        self.assertEqual(len(set(contents)), 1)

    def test_the_file_says_how_it_was_made(self):
        cli.make_npz(self.npz, grey=True)
        proc = self.pack("--domains", "noise", "--seed", 7)
        self.assertIn("64 training and 32 test images, 4 classes, 1 domain",
                      proc.stderr)
        self.assertEqual(proc.stdout, "")
        with h5py.File(self.out) as file:
            self.assertEqual(file.attrs["format"].decode()
                             if isinstance(file.attrs["format"], bytes)
                             else file.attrs["format"], "magmax-dataset")
            record = json.loads(file.attrs["provenance"])
        self.assertEqual(record["program"], "magmax_pack")
        self.assertEqual(record["options"]["seed"], 7)
        self.assertEqual(record["options"]["domains"], "noise")

    def test_an_existing_file_is_replaced(self):
        cli.make_npz(self.npz)
        self.out.write_text("something else")
        self.pack()
        with h5py.File(self.out) as file:
            self.assertEqual(len(file["train/images"]), 64)
        self.assertEqual(sorted(p.name for p in self.dir.iterdir()),
                         ["data.npz", "packed.h5"])

    @unittest.skipUnless(FASHION.is_dir(), "dataset-fashion-mnist is missing")
    def test_fashion_mnist_packs_by_name(self):
        for location in ([], ["--data-location", FASHION.parent],
                         ["--data_location", FASHION]):
            cli.run_ok("magmax_pack", "--dataset", "FashionMNIST", *location,
                       "--samples-per-class", 3, "-o", self.out)
        labels, images = (read_idx("train-labels-idx1-ubyte"),
                          read_idx("train-images-idx3-ubyte"))
        kept = np.sort(np.concatenate(
            [np.flatnonzero(labels == c)[:3] for c in range(10)]))
        with h5py.File(self.out) as file:
            names = texts(file["class_names"])
            self.assertEqual((len(names), names[0], names[9]),
                             (10, "T-shirt/top", "Ankle boot"))
            np.testing.assert_array_equal(file["train/images"], images[kept])
            np.testing.assert_array_equal(file["train/labels"], labels[kept])
            np.testing.assert_array_equal(file["test/images"],
                                          read_idx("t10k-images-idx3-ubyte"))


class BadInput(PackCase):

    def test_an_unknown_domain_lists_the_known_ones_and_the_nearest(self):
        cli.make_npz(self.npz)
        for n_ranks in (None, 3):
            self.assert_fails(
                "--dataset", self.npz, "-o", self.out,
                "--domains", "upright,pixellate", n_ranks=n_ranks,
                says=["unknown domain 'pixellate'", "did you mean pixelate?",
                      ", ".join(FIVE)])

    def test_a_repeated_or_empty_domain_is_refused(self):
        cli.make_npz(self.npz)
        for names, says in (("noise,noise", "named twice"),
                            ("noise,,invert", "empty name")):
            self.assert_fails("--dataset", self.npz, "-o", self.out,
                              "--domains", names, says=[says])

    def test_an_unknown_data_set_lists_the_known_ones_and_the_nearest(self):
        self.assert_fails(
            "--dataset", "FashionMINST", "-o", self.out,
            says=["unknown data set 'FashionMINST'",
                  "did you mean FashionMNIST?", "path of a .h5 or .npz file"])

    def test_a_missing_file_is_named(self):
        for n_ranks in (None, 2):
            self.assert_fails("--dataset", self.dir / "none.npz", "-o",
                              self.out, n_ranks=n_ranks,
                              says=["cannot open", "none.npz", "no such file"])

    def test_a_missing_builtin_names_folder_and_package(self):
        self.assert_fails("--dataset", "FashionMNIST", "--data-location",
                          self.dir, "-o", self.out,
                          says=[self.dir, "dataset-fashion-mnist"])

    def test_missing_and_unknown_options_are_named(self):
        self.assert_fails("-o", self.out, says=["--dataset"])
        self.assert_fails("--dataset", "MNIST", says=["--output"])
        self.assert_fails("--dataset", "MNIST", "-o", self.out,
                          says=["--data-location"])
        self.assert_fails("--dataset", "MNIST", "-o", self.out, "--domain",
                          "noise", says=["--domain", "mean --domains?"])
        self.assert_fails("--dataset", self.npz, "-o", self.out,
                          "--samples-per-class", "-1",
                          says=["--samples-per-class"])

    def test_domains_of_two_sizes_are_refused(self):
        images = np.zeros((4, 5, 8), np.uint8)
        labels = np.arange(4)
        cli.make_npz(self.npz, train_images=images, train_labels=labels,
                     test_images=images, test_labels=labels)
        self.assert_fails("--dataset", self.npz, "-o", self.out, "--domains",
                          "upright,rot90", says=["two sizes", "5 x 8"])

    def test_new_domains_of_data_that_has_some_are_refused(self):
        cli.make_npz(self.npz, n_domains=2)
        self.assert_fails("--dataset", self.npz, "-o", self.out, "--domains",
                          "invert", says=["has domains already"])

    def test_writing_over_the_input_is_refused(self):
        cli.make_npz(self.npz)
        for name in (self.npz, self.dir / "." / ".." / self.dir.name
                     / "data.npz"):
            self.assert_fails("--dataset", self.npz, "-o", name,
                              says=["would overwrite what --dataset reads"])

    def test_an_unwritable_folder_is_named(self):
        cli.make_npz(self.npz)
        for n_ranks in (None, 2):
            self.assert_fails("--dataset", self.npz, "-o",
                              self.dir / "no" / "where.h5", n_ranks=n_ranks,
                              says=["where.h5", "no such file"])

    def test_a_truncated_file_leaves_nothing(self):
        cli.make_npz(self.npz)
        self.npz.write_bytes(self.npz.read_bytes()[:5000])
        self.assert_fails("--dataset", self.npz, "-o", self.out,
                          says=["data.npz"])

    def test_a_writer_that_fails_or_dies_leaves_the_old_file(self):
        # The limit is above what MPI's own files need.
        limit = ["--fsize=33554432"]
        shape = (160, 512, 512)
        cli.make_npz(self.npz, compressed=True,
                     train_images=np.zeros(shape, np.uint8),
                     train_labels=np.zeros(shape[0], int))
        self.out.write_text("what was there")
        args = ["--dataset", self.npz, "-o", self.out]
        program = cli.command("magmax_pack")[0]
        with cli.unchanged(self.dir):
            proc = cli.run("/usr/bin/env", "--ignore-signal=XFSZ", "prlimit",
                           *limit, program, *args)
        cli.assert_one_line_error(proc, "packed.h5", "too large")
        with cli.unchanged(self.dir, but=[r"packed\.h5\.tmp"]):
            proc = cli.run("/usr/bin/prlimit", *limit, program, *args)
        self.assertNotEqual(proc.returncode, 0)
        self.pack()
        with h5py.File(self.out) as file:
            self.assertEqual(file["train/images"].shape, shape)
        self.assertFalse(Path(f"{self.out}.tmp").exists())


if __name__ == "__main__":
    cli.main()
