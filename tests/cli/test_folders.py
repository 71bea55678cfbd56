"""Folders of class folders of images as a user has them: what is found and in
which order, training and evaluating on them, and what is wrong with some.

ctest: cost=50
"""

import json
import os

import h5py
import magmax_cli as cli
import numpy as np
from PIL import Image

QUICK = ["--epochs", 2, "--batch-size", 8, "--lr", 1e-3, "--warmup-length", 2]
CLASSES = ["cat", "dog", "owl", "yak"]


def make_image(path, size=(24, 18), seed=0, mode="RGB"):
    """A smooth random image, as the file's name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize(size, Image.BICUBIC).convert(mode)
    image.save(path)


def make_folder(root, classes=CLASSES, n=6, below=""):
    """n images per class, of different sizes, formats and modes; gives their
    paths below root, in byte order."""
    paths = []
    for c, name in enumerate(classes):
        for i in range(n):
            kind = ("jpg", "png", "jpeg", "JPG")[i % 4]
            path = root / below / name / f"{i:02d}.{kind}"
            mode = {1: "RGBA", 2: "CMYK", 4: "L", 5: "P"}.get(i, "RGB")
            make_image(path, (10 + 7 * (i % 3), 9 + 5 * (i % 4)),
                       seed=100 * c + i, mode=mode)
            paths.append(path.relative_to(root).as_posix())
    return sorted(paths)


def evaluation_transform(path, size):
    """torchvision's Resize(size, bicubic), CenterCrop(size), then RGB."""
    image = Image.open(path)
    w, h = image.size
    if (w, h) != (size, size):
        w, h = ((size, int(size * h / w)) if w <= h
                else (int(size * w / h), size))
        image = image.resize((w, h), Image.BICUBIC)
        left, top = round((w - size) / 2), round((h - size) / 2)
        image = image.crop((left, top, left + size, top + size))
    return np.asarray(image.convert("RGB"))


def texts(dataset):
    return [text.decode() for text in dataset[()]]


class FolderCase(cli.Case):

    def setUp(self):
        super().setUp()
        self.photos = self.dir / "photos"
        self.out = self.dir / "photos.h5"

    def make_model(self, n_classes=len(CLASSES)):
        self.make_inputs(n_classes=n_classes)
        self.model = ["--model", self.dir / "model.json",
                      "--load", self.dir / "theta0.safetensors"]
        self.head = ["--head", self.dir / "head.h5"]

    def pack(self, *more, dataset=None, runner=cli.run_ok, **options):
        return runner("magmax_pack", "--dataset", dataset or self.photos,
                      "-o", self.out, *more, **options)

    def packed_paths(self, half="train"):
        """Pack, and return what was found: (path, label) of each image."""
        self.pack()
        with h5py.File(self.out) as file:
            return list(zip(texts(file[half]["paths"]),
                            file[half]["labels"][()].tolist()))

    def evaluate(self, *more, dataset=None, runner=cli.run_ok, **options):
        return runner("magmax_eval", *self.model, *self.head, "--dataset",
                      dataset or self.photos, "--json", *more, **options)

    def train(self, *more, save="run", runner=cli.run_ok, **options):
        return runner("magmax_train", *self.model, *self.head, *QUICK,
                      "--dataset", self.photos, "--save", self.dir / save,
                      *more, **options)

    def log(self, save="run"):
        return [json.loads(line) for line in
                (self.dir / save / "log.jsonl").read_text().splitlines()]

    def weights(self, save="run", task=0):
        return cli.read_checkpoint(self.dir / save / f"task_{task:03d}.h5")


class Finding(FolderCase):

    def test_classes_and_images_are_in_byte_order(self):
        names = ["b", "B", "a-b", "a", "\u00e4", "10", "9"]
        paths = make_folder(self.photos, names, n=3)
        found = self.packed_paths()
        in_bytes = sorted(paths, key=os.fsencode)
        classes = sorted(names, key=os.fsencode)
        self.assertEqual([path for path, _ in found], in_bytes)
        self.assertEqual([label for _, label in found],
                         [classes.index(path.split("/")[0])
                          for path in in_bytes])
        with h5py.File(self.out) as file:
            self.assertEqual(texts(file["class_names"]), classes)

    def test_imagefolder_of_torchvision_agrees(self):
        try:
            from torchvision.datasets import ImageFolder
        except ImportError:
            self.skipTest("torchvision is missing")
        make_folder(self.photos)
        make_image(self.photos / "dog" / "sub" / "deep" / "1.png")
        make_image(self.photos / "dog" / "zzz" / "a.webp")
        found = self.packed_paths()
        reference = ImageFolder(self.photos)
        self.assertEqual(
            [(os.path.relpath(path, self.photos), label)
             for path, label in reference.samples], found)
        with h5py.File(self.out) as file:
            self.assertEqual(texts(file["class_names"]), reference.classes)

    def test_links_are_followed(self):
        outside = self.dir / "elsewhere"
        make_folder(outside, ["dog"], n=2)
        make_image(self.photos / "cat" / "1.png")
        (self.photos / "cat" / "2.png").symlink_to(outside / "dog" / "00.jpg")
        (self.photos / "dog").symlink_to(outside / "dog")
        self.assertEqual(self.packed_paths(), [
            ("cat/1.png", 0), ("cat/2.png", 0), ("dog/00.jpg", 1),
            ("dog/01.png", 1)])

    def test_what_is_no_image_is_left_out_and_told(self):
        paths = make_folder(self.photos, n=1)
        for name in (".DS_Store", "cat/Thumbs.db", "cat/.hidden.jpg",
                     "readme.txt", "dog/notes.txt"):
            (self.photos / name).write_text("P5 is not a picture here")
        (self.photos / ".git" / "objects").mkdir(parents=True)
        found = self.pack()
        self.assertIn("left out what is not an image: ", found.stderr)
        self.assertIn(" and 5 more", found.stderr)
        self.assertEqual([path for path, _ in self.packed_paths()], paths)
        clean = self.dir / "clean"
        make_folder(clean)
        self.assertNotIn("left out", self.pack(dataset=clean).stderr)

    def test_a_name_that_says_nothing_is_decided_by_the_content(self):
        for kind in ("jpg", "png", "webp"):
            make_image(self.photos / "cat" / f"x.{kind}")
            (self.photos / "cat" / f"x.{kind}").rename(
                self.photos / "cat" / f"x-{kind}")
        (self.photos / "cat" / "empty").write_bytes(b"")
        self.assertEqual([path for path, _ in self.packed_paths()],
                         ["cat/x-jpg", "cat/x-png", "cat/x-webp"])

    def test_train_and_test_folders_are_the_halves(self):
        train = make_folder(self.photos, n=3, below="train")
        test = make_folder(self.photos, n=2, below="val")
        proc = self.pack()
        self.assertIn("12 training and 8 test images, 4 classes", proc.stderr)
        with h5py.File(self.out) as file:
            self.assertEqual(texts(file["train/paths"]), train)
            self.assertEqual(
                texts(file["test/paths"]),
                [path for path in sorted(train + test) if path[0] == "v"])
            self.assertNotIn("one_split", file.attrs)
        make_folder(self.photos, n=1, below="test")  # is taken before val/
        proc = self.pack()
        self.assertIn("12 training and 4 test images", proc.stderr)
        self.assertIn("left out what is not an image: val/", proc.stderr)

    def test_a_class_may_be_called_train(self):
        make_folder(self.photos, ["bus", "test", "train"], n=2)
        self.assertEqual([label for _, label in self.packed_paths()],
                         [0, 0, 1, 1, 2, 2])

    def test_many_files_are_found(self):
        for c in range(20):
            folder = self.photos / f"class{c:02d}"
            folder.mkdir(parents=True)
            make_image(folder / "0.png", (8, 8))
            for i in range(1, 1000):
                os.link(folder / "0.png", folder / f"{i}.png")
        self.make_model(n_classes=20)
        proc = self.evaluate("--samples-per-class", 1, n_ranks=2)
        self.assertEqual(proc.json()["n_images"], [20])


class Packing(FolderCase):

    def test_resized_images_are_pillows(self):
        paths = make_folder(self.photos)
        for size in (8, 20):
            for n_threads in (1, 3):
                self.pack("--resize", size, env={"OMP_NUM_THREADS": n_threads})
                with h5py.File(self.out) as file:
                    images = file["train/images"]
                    self.assertEqual(images.shape, (len(paths), size, size, 3))
                    self.assertIsNone(images.chunks)
                    self.assertEqual(file.attrs["one_split"], 1)
                    for path, image in zip(paths, images):
                        np.testing.assert_array_equal(
                            image, evaluation_transform(self.photos / path,
                                                        size), path)

    def test_without_resize_the_files_bytes_are_stored(self):
        paths = make_folder(self.photos)
        self.pack()
        with h5py.File(self.out) as file:
            stored, offsets = file["train/bytes"], file["train/offsets"][()]
            self.assertIsNone(stored.chunks)
            self.assertEqual(stored.dtype, np.uint8)
            self.assertEqual(offsets[0], 0)
            self.assertEqual(offsets[-1], len(stored))
            self.assertEqual(texts(file["train/paths"]), paths)
            for path, lo, hi in zip(paths, offsets, offsets[1:]):
                self.assertEqual(stored[lo:hi].tobytes(),
                                 (self.photos / path).read_bytes())

    def test_a_packed_file_packs_again(self):
        make_folder(self.photos, below="train")
        make_folder(self.photos, below="test", n=2)
        self.pack()
        again = self.dir / "again.h5"
        cli.run_ok("magmax_pack", "--dataset", self.out, "-o", again)
        self.assert_same_files(self.out, again)
        cli.run_ok("magmax_pack", "--dataset", self.out, "--resize", 12, "-o",
                   again)
        self.pack("--resize", 12)
        self.assert_same_files(self.out, again)

    def assert_same_files(self, a, b):
        with h5py.File(a) as one, h5py.File(b) as two:
            for half in ("train", "test"):
                self.assertEqual(sorted(one[half]), sorted(two[half]))
                for name in one[half]:
                    np.testing.assert_array_equal(one[half][name],
                                                  two[half][name])

    def test_samples_per_class_and_domains(self):
        paths = make_folder(self.photos)
        self.pack("--samples-per-class", 2)
        with h5py.File(self.out) as file:
            self.assertEqual(texts(file["train/paths"]),
                             [p for p in paths if p.split("/")[1] < "02"])
        self.assert_one_line_error(
            self.pack("--domains", "invert", runner=cli.run),
            "domains need images of one size", "--resize")
        self.pack("--resize", 8)
        domains = self.dir / "domains.h5"
        cli.run_ok("magmax_pack", "--dataset", self.out, "--domains",
                   "upright,invert", "-o", domains)
        with h5py.File(domains) as file:
            n = len(paths)
            np.testing.assert_array_equal(255 - file["train/images"][:n],
                                          file["train/images"][n:])
            self.assertNotIn("test", file)

    def test_raw_pixels_can_be_resized(self):
        data = cli.make_npz(self.dir / "data.npz", size=9)
        self.pack("--resize", 6, dataset=self.dir / "data.npz")
        with h5py.File(self.out) as file:
            want = Image.fromarray(data["test_images"][5]).resize(
                (6, 6), Image.BICUBIC)
            np.testing.assert_array_equal(file["test/images"][5], want)


class Using(FolderCase):

    def test_accuracy_is_the_same_on_any_ranks_and_from_any_file(self):
        paths = make_folder(self.photos)
        self.make_model()
        want = self.evaluate().json()
        self.assertEqual(want["n_images"], [len(paths)])
        for n_ranks in (1, 2, 3, 4):
            self.assertEqual(self.evaluate(n_ranks=n_ranks).json(), want)
        for workers in (0, 1, 5):
            self.assertEqual(self.evaluate("--workers", workers,
                                           "--batch-size", 5).json(), want)
        for resize in ([], ["--resize", 8]):
            self.pack(*resize)
            self.assertEqual(self.evaluate(dataset=self.out).json(), want)
        images = np.stack([evaluation_transform(self.photos / path, 8)
                           for path in paths])
        labels = np.array([CLASSES.index(path.split("/")[0])
                           for path in paths])
        cli.make_npz(self.dir / "same.npz", train_images=images,
                     train_labels=labels, test_images=images,
                     test_labels=labels)
        self.assertEqual(
            self.evaluate(dataset=self.dir / "same.npz").json(), want)

    def test_training_is_the_same_for_any_number_of_workers(self):
        make_folder(self.photos)
        self.make_model()
        self.train("--workers", 0)
        for workers in (1, 2, 5):
            self.train("--workers", workers, save=f"run{workers}")
            self.assert_same_weights(self.weights(),
                                     self.weights(f"run{workers}"))
        self.pack()
        photos, self.photos = self.photos, self.out
        self.train(save="packed")
        self.photos = photos
        self.assert_same_weights(self.weights(), self.weights("packed"))
        for line in self.log("run2"):
            self.assertGreaterEqual(line["input_s"], 0)
            self.assertEqual(line["n_skipped"], 0)

    def test_workers_may_change_when_a_run_goes_on(self):
        make_folder(self.photos)
        self.make_model()
        more = ["--n-splits", 2, "--split-strategy", "class",
                "--sequential-finetuning"]
        self.train(*more)
        want = self.weights(task=1)
        (self.dir / "run" / "task_001.h5").unlink()
        self.train(*more, "--workers", 1, n_ranks=1)
        self.assert_same_weights(want, self.weights(task=1))

    def test_tasks_of_each_strategy(self):
        make_folder(self.photos)
        self.make_model()
        for strategy in ("class", "data"):
            self.train("--n-splits", 2, "--split-strategy", strategy,
                       save=strategy, n_ranks=2)
            self.weights(strategy, task=1)

    def test_prototypes_of_a_folder(self):
        make_folder(self.photos)
        self.make_model()
        files = []
        for n_ranks in (1, 3):
            path = self.dir / f"head{n_ranks}.h5"
            cli.run_ok("magmax_head", "--prototypes", *self.model, "--dataset",
                       self.photos, "-o", path, n_ranks=n_ranks)
            with h5py.File(path) as file:
                files.append(file["weight"][()])
        self.assertEqual(files[0].shape, (4, 8))
        np.testing.assert_allclose(files[0], files[1], rtol=0, atol=1e-3)
        # Of the training images themselves, more than chance.
        self.head = ["--head", path]
        self.assertGreater(self.evaluate().json()["mean_task_aware"], 0.3)

    def test_halves_are_used_for_what_they_are(self):
        make_folder(self.photos, n=3, below="train")
        make_folder(self.photos, n=2, below="test")
        self.make_model()
        self.assertEqual(self.evaluate().json()["n_images"], [8])
        self.train()
        self.assertEqual(sum(line["n_images"] for line in self.log()), 2 * 12)


class BadImages(FolderCase):

    def setUp(self):
        super().setUp()
        self.paths = make_folder(self.photos, n=6)
        self.make_model()
        self.bad = ["cat/02.jpeg", "owl/01.png", "owl/04.jpg"]

    def spoil(self, paths):
        for path in paths:
            data = (self.photos / path).read_bytes()
            (self.photos / path).write_bytes(data[:len(data) // 2])

    def test_a_corrupt_image_stops_the_run_and_is_named(self):
        self.train("--n-splits", 2, "--split-strategy", "class", save="whole")
        self.spoil([self.bad[2]])  # a class of the second task
        for n_ranks in (None, 1, 2, 4):
            save = f"run{n_ranks}"
            proc = self.train("--n-splits", 2, "--split-strategy", "class",
                              save=save, runner=cli.run, n_ranks=n_ranks)
            self.assert_one_line_error(proc, self.photos / self.bad[2])
            self.assertEqual(
                sorted(p.name for p in (self.dir / save).glob("task_*")),
                ["task_000.h5"])
        self.assert_same_weights(self.weights("runNone"),
                                 self.weights("whole"))

    def test_it_stops_evaluation_and_heads_and_packing_too(self):
        self.spoil(self.bad[:1])
        for n_ranks in (None, 3):
            for proc in (
                    self.evaluate(runner=cli.run, n_ranks=n_ranks),
                    cli.run("magmax_head", "--prototypes", *self.model,
                            "--dataset", self.photos, "-o",
                            self.dir / "none.h5", n_ranks=n_ranks),
                    self.pack("--resize", 8, runner=cli.run, n_ranks=n_ranks),
                    self.pack(runner=cli.run, n_ranks=n_ranks)):
                self.assert_one_line_error(proc, self.photos / self.bad[0])
        self.assertFalse(list(self.dir.glob("none.h5*")))
        self.assertFalse(list(self.dir.glob("photos.h5*")))

    def warnings(self, proc):
        return sorted(line for line in cli.stderr_lines(proc)
                      if ": warning: skipped: " in line)

    def assert_named_once(self, proc):
        lines = self.warnings(proc)
        self.assertEqual(len(lines), len(self.bad), str(proc))
        for line, path in zip(sorted(lines), self.bad):
            self.assertIn(str(self.photos / path), line)
        self.assertIn("skipped 3 images that cannot be decoded", proc.stderr)

    def test_skipping_names_each_once_and_counts_the_same_on_any_ranks(self):
        self.spoil(self.bad)
        logs = []
        for n_ranks in (None, 2, 3, 4):
            save = f"run{n_ranks}"
            proc = self.train("--skip-bad-images", save=save, n_ranks=n_ranks)
            self.assert_named_once(proc)
            logs.append([(line["n_images"], line["n_skipped"])
                         for line in self.log(save)])
            losses = [line["loss"] for line in self.log(save)]
            np.testing.assert_allclose(
                losses, [line["loss"] for line in self.log("runNone")],
                rtol=1e-3)
        for other in logs:
            self.assertEqual(other, logs[0])
        self.assertEqual(sum(n for _, n in logs[0]), 2 * len(self.bad))
        self.assertEqual(sum(n for n, _ in logs[0]),
                         2 * (len(self.paths) - len(self.bad)))

    def test_the_mean_is_over_the_images_that_are_left(self):
        """One batch an epoch: skipping images is as if they were not there."""
        self.spoil(self.bad)
        more = ["--batch-size", 64, "--no-shuffle", "--no-augment"]
        self.train("--skip-bad-images", *more, save="skipped")
        for path in self.bad:
            (self.photos / path).unlink()
        self.train(*more, save="removed")
        self.assert_same_weights(self.weights("skipped"),
                                 self.weights("removed"))

    def test_a_batch_of_bad_images_alone_changes_nothing(self):
        self.spoil([path for path in self.paths if path.startswith("dog")])
        self.train("--skip-bad-images", "--batch-size", 6, "--no-shuffle",
                   n_ranks=2)
        steps = [(line["n_images"], line["n_skipped"]) for line in self.log()]
        self.assertEqual(steps, [(6, 0), (0, 6), (6, 0), (6, 0)] * 2)

    def test_skipping_in_evaluation_heads_and_packing(self):
        self.spoil(self.bad)
        want = None
        for n_ranks in (None, 2, 4):
            path = self.dir / "features.h5"
            proc = self.evaluate("--skip-bad-images", "--save-features", path,
                                 n_ranks=n_ranks)
            self.assert_named_once(proc)
            score = proc.json()
            self.assertEqual((score["n_images"], score["n_skipped"]),
                             ([len(self.paths) - 3], 3))
            want = want or score
            self.assertEqual(score, want)
            with h5py.File(path) as file:
                self.assertEqual(file["features"].shape[0],
                                 len(self.paths) - 3)
                labels = [CLASSES.index(p.split("/")[0]) for p in self.paths
                          if p not in self.bad]
                np.testing.assert_array_equal(file["labels"], labels)
        proc = cli.run_ok("magmax_head", "--prototypes", *self.model,
                          "--dataset", self.photos, "-o", self.dir / "p.h5",
                          "--skip-bad-images", n_ranks=2)
        self.assert_named_once(proc)
        for resize in ([], ["--resize", 8]):
            proc = self.pack("--skip-bad-images", *resize)
            self.assertEqual(len(self.warnings(proc)), 3)
            self.assertIn("; 3 skipped", proc.stderr)
            with h5py.File(self.out) as file:
                self.assertEqual(
                    texts(file["train/paths"]),
                    [p for p in self.paths if p not in self.bad])
            score = self.evaluate(dataset=self.out).json()
            self.assertEqual(score, {**want, "n_skipped": 0})

    def test_a_packed_image_is_named_by_number_and_path(self):
        self.pack()
        with h5py.File(self.out, "r+") as file:
            lo, hi = file["train/offsets"][7:9]
            file["train/bytes"][lo:lo + 4] = 0
        proc = self.evaluate(dataset=self.out, runner=cli.run, n_ranks=2)
        self.assert_one_line_error(proc, f"image 7 ({self.paths[7]})")


class BadFolders(FolderCase):

    def assert_fails(self, *says, n_ranks=2):
        for runner in (
                lambda: self.evaluate(runner=cli.run, n_ranks=n_ranks),
                lambda: self.pack(runner=cli.run)):
            with cli.unchanged(self.dir):
                proc = runner()
            line = self.assert_one_line_error(proc, *says)
            self.assertNotIn("rank 0:", line)

    def setUp(self):
        super().setUp()
        self.make_model()

    def test_an_empty_class_folder_is_named(self):
        make_folder(self.photos)
        (self.photos / "emu").mkdir()
        self.assert_fails("class folder", self.photos / "emu", "no images")
        (self.photos / "emu" / "notes.txt").write_text("none")
        self.assert_fails("class folder", self.photos / "emu", "no images")

    def test_a_folder_without_class_folders_is_told_what_belongs_there(self):
        self.photos.mkdir()
        self.assert_fails(self.photos, "no class folders", "FOLDER/CLASS/")
        make_image(self.photos / "1.jpg")
        self.assert_fails(self.photos, "no class folders", "FOLDER/CLASS/")

    def test_classes_that_differ_between_halves_are_named(self):
        make_folder(self.photos, below="train", n=1)
        make_folder(self.photos, CLASSES[:3], below="test", n=1)
        self.assert_fails("class yak is in train/, but not in test/")
        make_folder(self.photos, CLASSES[3:] + ["zebu"], below="test", n=1)
        self.assert_fails("class zebu is in test/, but not in train/")

    def test_images_that_cannot_be_read_are_named(self):
        make_folder(self.photos)
        make_image(self.photos / "cat" / "scan.bmp")
        self.assert_fails(self.photos / "cat" / "scan.bmp", "convert")

    def test_a_link_that_leads_back_is_noticed(self):
        make_folder(self.photos)
        (self.photos / "cat" / "again").symlink_to(self.photos / "cat")
        self.assert_fails("nested", "link")

    def test_a_link_that_leads_nowhere_is_named(self):
        make_folder(self.photos)
        (self.photos / "cat" / "gone.jpg").symlink_to(self.dir / "gone")
        self.assert_fails("gone.jpg", "no such file")

    def test_an_empty_file_is_named_when_it_is_read(self):
        make_folder(self.photos)
        (self.photos / "cat" / "nil.jpg").touch()
        self.assert_fails(self.photos / "cat" / "nil.jpg", "empty", n_ranks=1)

    def test_a_head_of_other_classes_is_told(self):
        make_folder(self.photos, CLASSES[:3])
        proc = self.evaluate(runner=cli.run, n_ranks=2)
        self.assert_one_line_error(
            proc, "the head has 4 rows", "photos names 3 classes")

    def test_a_missing_folder_is_named(self):
        proc = self.evaluate(runner=cli.run, n_ranks=2)
        self.assert_one_line_error(proc, "cannot open", self.photos)

    def test_a_train_folder_alone_cannot_be_evaluated(self):
        make_folder(self.photos, below="train")
        proc = self.evaluate(runner=cli.run)
        self.assert_one_line_error(proc, "no test samples", "photos")

    def test_workers_are_checked(self):
        make_folder(self.photos)
        for bad in ("-1", "many", "5000"):
            proc = self.evaluate("--workers", bad, runner=cli.run)
            self.assert_one_line_error(proc, "--workers")


class DamagedPackedFiles(FolderCase):

    def setUp(self):
        super().setUp()
        make_folder(self.photos, n=2)
        self.make_model()
        self.pack()

    def assert_fails(self, *says):
        proc = self.evaluate(dataset=self.out, runner=cli.run)
        self.assert_one_line_error(proc, self.out, *says)

    def change(self, name, value):
        with h5py.File(self.out, "r+") as file:
            del file[name]
            if value is not None:
                file[name] = value

    def test_offsets_out_of_order_or_range(self):
        with h5py.File(self.out) as file:
            offsets = file["train/offsets"][()]
        for i, value in ((3, offsets[4] + 1), (0, -1), (0, 1),
                         (8, offsets[8] + 1), (8, offsets[8] - 1)):
            changed = offsets.copy()
            changed[i] = value
            self.change("train/offsets", changed)
            self.assert_fails("train/offsets")
        self.change("train/offsets", offsets[:-1])
        self.assert_fails("train/offsets")
        self.change("train/offsets", offsets.astype(float))
        self.assert_fails("train/offsets")
        self.change("train/offsets", None)
        self.assert_fails("train/offsets")

    def test_missing_or_odd_arrays(self):
        with h5py.File(self.out) as file:
            stored = file["train/bytes"][()]
        self.change("train/paths", ["a", "b"])
        self.assert_fails("train/paths")
        self.change("train/paths", None)
        self.evaluate(dataset=self.out)
        self.change("train/bytes", stored.astype(np.int16))
        self.assert_fails("train/bytes", "uint8")
        self.change("train/bytes", None)
        self.assert_fails("contains neither train/images")


if __name__ == "__main__":
    cli.main()
