"""Every command of README.md runs: as printed, one after the other, in a folder
with the files that it speaks of. What has tests of its own is checked to exist.

ctest: cost=15
"""

import re
import shutil
import subprocess

import h5py
import magmax_cli as cli
import numpy as np
import vocabulary
from PIL import Image

README = (cli.SOURCE / "README.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```", README, re.M | re.S)

# Blocks that other tests run: the demo, this suite, the installation, Slurm; and
# what needs a network.
ELSEWHERE = ("./demo.sh", "cmake ", "slurm/env.sh", "curl ")


class Readme(cli.Case):
    def make_clip(self):
        """open_clip's folder of a tiny model, class names, prompts, texts."""
        tiny = cli.GOLDEN / "tiny"
        shutil.copy(tiny / "clip.safetensors",
                    self.dir / "open_clip_model.safetensors")
        (self.dir / "open_clip_config.json").write_text(
            f'{{"model_cfg": {(tiny / "model.json").read_text()}}}')
        cli.run_ok("magmax_convert", "open_clip_model.safetensors", "clip.h5",
                   cwd=self.dir)
        (self.dir / "names.txt").write_text("cat\nhot dog\n")
        (self.dir / "prompts.txt").write_text("a photo of a {}.\n")
        (self.dir / "texts.txt").write_text("a photo of a cat.\n")

    def make_photos(self):
        pixels = np.random.default_rng(1).integers(0, 256, (40, 50, 3))
        for half in ("train", "test"):
            for name in ("cat", "hot_dog"):
                folder = self.dir / "photos" / half / name
                folder.mkdir(parents=True)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / "1.jpg")

    def test_every_command_runs_as_printed(self):
        config = cli.make_model(self.dir / "model.json")
        weights = cli.random_weights(config)
        with h5py.File(self.dir / "theta0.h5", "w") as file:
            for name, value in weights.items():
                file["model/" + name] = value
        cli.make_npz(self.dir / "data.npz", n_classes=5, n_train=50)
        self.make_clip()
        self.make_photos()
        ran = 0
        for block in BLOCKS:
            if any(word in block for word in ELSEWHERE):
                continue
            if "zeroshot.h5" in block and not vocabulary.PATH:
                continue
            with self.subTest(block=block):
                proc = subprocess.run(
                    ["bash", "-euo", "pipefail", "-c", block], cwd=self.dir,
                    env=cli.environment({
                        "PATH": f"{cli.BIN}:/usr/bin:/bin",
                        "OMPI_MCA_rmaps_base_oversubscribe": "1"}),
                    capture_output=True, text=True,
                    timeout=cli.DEADLINE_S)
                self.assertEqual(proc.returncode, 0,
                                 f"{block}\n{proc.stdout}\n{proc.stderr}")
                ran += block.count("magmax_")
        self.assertGreaterEqual(ran, 8)
        with h5py.File(self.dir / "merged.h5") as file:
            self.assertEqual(file["model/visual.proj"].shape, (16, 8))

    def test_every_named_file_and_option_exists(self):
        for path in re.findall(r"`((?:\.ci|src|kernels|comm|tests|slurm|docs)/"
                               r"[\w./]+)`", README):
            self.assertTrue((cli.SOURCE / path).exists(), path)
        for path in re.findall(r"\]\((?!http|#)([^)]+)\)", README):
            self.assertTrue((cli.SOURCE / path).exists(), path)
        known = "".join(cli.run_ok(program, "--help").stdout
                        for program in cli.BIN.glob("magmax_*"))
        for option in set(re.findall(r"`(--[a-z-]+)`", README)):
            if option not in ("--bind-to", "--oversubscribe", "--help"):
                self.assertIn(option, known)

    def test_every_page_is_linked_and_links_lead_somewhere(self):
        self.assertIn("](docs/README.md)", README)
        index = (cli.SOURCE / "docs/README.md").read_text()
        for page in (cli.SOURCE / "docs").glob("*.md"):
            if page.name != "README.md":
                self.assertTrue(f"]({page.name})" in index, page.name)
            for path in re.findall(r"\]\((?!http)([^)#\s]+)", page.read_text()):
                self.assertTrue((page.parent / path).exists(),
                                f"{page.name}: {path}")

    def test_the_results_are_a_whole_table(self):
        rows = [line for line in README.splitlines() if re.match(
            r"\| (theta_0|last|MagMax|average|random)", line)]
        self.assertEqual(len(rows), 8)
        for row in rows:
            values = [float(v.strip(" *")) for v in row.split("|")[2:-1]]
            self.assertEqual(len(values), 6)
            self.assertAlmostEqual(np.mean(values[:5]), values[5], delta=0.11)


if __name__ == "__main__":
    cli.main()
