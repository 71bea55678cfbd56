"""magmax_merge as a user runs it.

ctest: cost=50
"""

import json
import os
import shutil
import subprocess

import h5py
import magmax_cli as cli
import numpy as np

TINY = cli.GOLDEN / "tiny"
TASKS = [TINY / f"seq/task_00{i}.safetensors" for i in range(3)]
THETA_0 = TINY / "weights.safetensors"


def merge(*args, **options):
    return cli.run("magmax_merge", *args, **options)


def merge_ok(*args, **options):
    return cli.run_ok("magmax_merge", *args, **options)


class Result(cli.Case):
    """What a merge writes and prints."""

    def test_magmax_equals_the_golden_merge_for_every_number_of_ranks(self):
        golden = cli.read_safetensors(TINY / "merge/magmax_0.5.safetensors")
        output, files = self.dir / "merged.h5", set()
        for n_ranks in (None, 1, 2, 3, 4, 5):
            merge_ok("--pretrained", THETA_0, "-o", output, *TASKS,
                     n_ranks=n_ranks)
            self.assert_same_weights(cli.read_checkpoint(output), golden)
            files.add(output.read_bytes())
        self.assertEqual(len(files), 1, "the files are equal, byte for byte")

    def test_json_is_one_document_with_the_golden_shares(self):
        output = self.dir / "merged.h5"
        proc = merge_ok("--pretrained", THETA_0, "--json", "-o", output,
                        *TASKS, n_ranks=2)
        result = proc.json()
        runs = json.loads((TINY / "runs.json").read_text())
        self.assertEqual(result["share_won"],
                         runs["magmax_share_of_weights_won_by_task"])
        self.assertEqual(sorted(result), ["method", "n_elems", "output",
                                          "scaling_coef", "share_won"])
        self.assertEqual(result["method"], "magmax")
        self.assertEqual(result["scaling_coef"], 0.5)
        self.assertEqual(result["n_elems"], 165696)
        self.assertEqual(result["output"], str(output))

    def test_shares_are_told_on_stderr_and_stdout_stays_empty(self):
        proc = merge_ok("--pretrained", THETA_0, "-o", self.dir / "merged.h5",
                        *TASKS)
        self.assertEqual(proc.stdout, "")
        self.assertIn("50.96 %", proc.stderr)

    def test_provenance_tells_how_the_file_came_about(self):
        output = self.dir / "merged.h5"
        merge_ok("--pretrained", THETA_0, "--method", "random", "--seed", 7,
                 "-o", output, *TASKS, n_ranks=2)
        with h5py.File(output) as file:
            record = json.loads(file["provenance"][()])
        self.assertEqual(record["program"], "magmax_merge")
        self.assertEqual(record["method"], "random")
        self.assertEqual(record["scaling_coef"], 1)
        self.assertEqual(record["options"]["seed"], 7)
        self.assertEqual(record["inputs"], [str(task) for task in TASKS])
        self.assertEqual(record["pretrained"], str(THETA_0))
        self.assertAlmostEqual(sum(record["share_won"]), 1)
        self.assertIn("version", record)

    def test_random_takes_each_weight_from_one_task(self):
        outputs = [self.dir / f"{i}.h5" for i in range(4)]
        for output, seed, n_ranks in zip(outputs, (5, 5, 5, 6), (1, 2, 5, 2)):
            merge_ok("--pretrained", THETA_0, "--method", "random", "--seed",
                     seed, "-o", output, *TASKS, n_ranks=n_ranks)
        first, second, third, other = map(cli.read_checkpoint, outputs)
        self.assert_same_weights(first, second)
        self.assert_same_weights(first, third)
        base = cli.read_safetensors(THETA_0)
        tasks = [cli.read_safetensors(task) for task in TASKS]
        n_equal = 0
        for name, merged in first.items():
            # theta_0 + (theta_t - theta_0), which rounds
            choices = [base[name] + (task[name] - base[name])
                       for task in tasks]
            self.assertTrue(np.all(np.any(
                [merged == choice for choice in choices], axis=0)), name)
            n_equal += np.sum(merged == other[name])
        # Another seed draws the same task for a third of the elements.
        self.assertLess(n_equal, 0.4 * 165696)

    def test_seed_5_is_the_default(self):
        outputs = [self.dir / "a.h5", self.dir / "b.h5"]
        for output, seed in zip(outputs, ([], ["--seed", "5"])):
            merge_ok("--pretrained", THETA_0, "--method", "random", *seed,
                     "-o", output, *TASKS)
        self.assert_same_weights(*map(cli.read_checkpoint, outputs))

    def test_task_arithmetic_adds_the_scaled_sum(self):
        output = self.dir / "merged.h5"
        merge_ok("--pretrained", THETA_0, "--method", "task-arithmetic",
                 "--scaling-coef", 0.25, "-o", output, *TASKS, n_ranks=2)
        base = cli.read_safetensors(THETA_0)
        tasks = [cli.read_safetensors(task) for task in TASKS]
        expected = {}
        for name, value in base.items():
            total = np.zeros_like(value)
            for task in tasks:
                total += task[name] - value
            expected[name] = value + np.float32(0.25) * total
        self.assert_same_weights(cli.read_checkpoint(output), expected)

    def test_a_checkpoint_can_be_merged_again(self):
        steps = [self.dir / f"step_{i}.h5" for i in range(2)]
        for step, task in zip(steps, TASKS):
            merge_ok("--pretrained", THETA_0, "--scaling-coef", 1, "-o", step,
                     task, n_ranks=2)
        output = self.dir / "merged.h5"
        merge_ok("--pretrained", steps[0], "-o", output, steps[1], TASKS[2],
                 n_ranks=2)
        base, one = map(cli.read_checkpoint, steps)
        two = cli.read_safetensors(TASKS[2])
        expected = {}
        for name, value in base.items():
            first, second = one[name] - value, two[name] - value
            change = np.where(np.abs(second) >= np.abs(first), second, first)
            expected[name] = value + np.float32(0.5) * change
        self.assert_same_weights(cli.read_checkpoint(output), expected)

    def test_half_precision_inputs_are_merged_in_fp32(self):
        halves, floats = [], []
        for i, task in enumerate(TASKS):
            half = {name: value.astype(np.float16) for name, value
                    in cli.read_safetensors(task).items()}
            halves.append(self.dir / f"half_{i}.safetensors")
            floats.append(self.dir / f"float_{i}.safetensors")
            cli.write_safetensors(halves[-1], half)
            cli.write_safetensors(floats[-1], {
                name: value.astype(np.float32)
                for name, value in half.items()})
        outputs = [self.dir / "half.h5", self.dir / "float.h5"]
        for output, inputs in zip(outputs, (halves, floats)):
            merge_ok("--pretrained", THETA_0, "-o", output, *inputs, n_ranks=2)
        self.assert_same_weights(*map(cli.read_checkpoint, outputs))

    def test_text_tower_is_copied_and_the_order_kept(self):
        base = cli.read_safetensors(THETA_0)
        rng = np.random.default_rng(0)
        whole = {"logit_scale": np.array(4.6, np.float32), **base,
                 "text_projection": rng.random((32, 32), np.float32)}
        cli.write_safetensors(self.dir / "zero.safetensors", whole)
        output = self.dir / "merged.h5"
        merge_ok("--pretrained", self.dir / "zero.safetensors", "-o", output,
                 *TASKS, n_ranks=3)
        golden = cli.read_safetensors(TINY / "merge/magmax_0.5.safetensors")
        self.assert_same_weights(
            cli.read_checkpoint(output),
            {**golden, "logit_scale": whole["logit_scale"],
             "text_projection": whole["text_projection"]})

    def test_memory_does_not_grow_with_the_number_of_tasks(self):
        if cli.SANITIZED:
            self.skipTest("the sanitizer keeps freed memory")
        path = self.dir / "task.safetensors"
        n_bytes = 16 << 20
        cli.write_safetensors(path, {
            "visual.proj": np.ones((n_bytes // 4,), np.float32)})
        peak = []
        for n_tasks in (2, 40):
            process = cli.start("magmax_merge", "--pretrained", path, "-o",
                                self.dir / "merged.h5", *[path] * n_tasks,
                                stderr=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            self.assertEqual(process.returncode, 0)
            peak.append(usage.ru_maxrss * 1024)
        self.assertLess(peak[1] - peak[0], n_bytes / 2)


class Refusal(cli.Case):
    """Input that cannot be merged: one line, and nothing on the disk
    changes."""

    def setUp(self):
        super().setUp()
        self.output = self.dir / "merged.h5"
        self.output.write_bytes(b"an earlier merge")

    def refused(self, *fragments, args=None, inputs=TASKS, pretrained=THETA_0,
                output=None, n_ranks=2, program="magmax_merge", **options):
        """A merge fails naming the fragments."""
        if args is None:
            args = []
        with cli.unchanged(self.dir):
            proc = cli.run(program, "--pretrained", pretrained, "-o",
                           output or self.output, *args, *inputs,
                           n_ranks=n_ranks, **options)
            self.assert_one_line_error(proc, *fragments)
        self.assertEqual(proc.stdout, "")
        return proc

    def changed(self, task, name="changed.safetensors", **tensors):
        """A copy of a task with tensors replaced, or removed (None)."""
        weights = {**cli.read_safetensors(task), **tensors}
        path = self.dir / name
        cli.write_safetensors(path, {
            key: value for key, value in weights.items() if value is not None})
        return path

    def checkpoint(self):
        path = self.dir / "task.h5"
        merge_ok("--pretrained", THETA_0, "--scaling-coef", 1, "-o", path,
                 TASKS[1])
        return path

    def test_missing_input(self):
        gone = self.dir / "task_009.h5"
        self.refused(gone, "no such file", inputs=[TASKS[0], gone])
        self.refused(gone, "no such file", pretrained=gone)

    def test_truncated_input(self):
        task = self.checkpoint()
        for path in (task, TASKS[1]):
            data = path.read_bytes()
            short = self.dir / ("short" + path.suffix)
            for n_bytes in (5, len(data) // 2, len(data) - 1):
                short.write_bytes(data[:n_bytes])
                self.refused(short, inputs=[TASKS[0], short], n_ranks=None)
        self.refused(short, "truncated", inputs=[TASKS[0], short], n_ranks=3)

    def test_bit_flipped_checkpoint(self):
        path = self.checkpoint()
        name = "visual.transformer.resblocks.1.mlp.c_fc.weight"
        with h5py.File(path) as file:
            at = file["model"][name].id.get_offset() + 4 * 100
        data = bytearray(path.read_bytes())
        data[at] ^= 1  # the last bit of the mantissa
        path.write_bytes(data)
        for n_ranks in (1, 3):
            self.refused(path, name, "damaged", inputs=[TASKS[0], path],
                         n_ranks=n_ranks)
        self.refused(path, name, "damaged", pretrained=path)

    def test_checkpoint_of_another_architecture(self):
        for what, fragments in {
                "layers": ["visual.transformer.resblocks.3", "not in"],
                "width": ["visual.", "shape"]}.items():
            config = {"image_size": 32, "patch_size": 8, "width": 64,
                      "layers": 3, "head_width": 16, "embed_dim": 32}
            config[what] += {"layers": 1, "width": 16}[what]
            model = cli.make_model(self.dir / "model.json", **config)
            other = self.dir / f"other_{what}.safetensors"
            cli.write_safetensors(other, cli.random_weights(model))
            self.refused(other, *fragments, inputs=[TASKS[0], other])

    def test_missing_tensor(self):
        path = self.changed(TASKS[1], **{"visual.proj": None})
        self.refused(path, "visual.proj", "missing", inputs=[TASKS[0], path])

    def test_unexpected_tensor(self):
        extra = np.zeros(3, np.float32)
        for name in ("visual.extra", "text_projection"):
            path = self.changed(TASKS[1], **{name: extra})
            self.refused(path, name, inputs=[TASKS[0], path],
                         n_ranks=None)

    def test_text_tensor_in_some_inputs_only(self):
        extra = np.ones(3, np.float32)
        zero = self.changed(THETA_0, "zero.safetensors", ln_final=extra)
        path = self.changed(TASKS[1], ln_final=extra)
        self.refused(TASKS[0], "ln_final", pretrained=zero,
                     inputs=[TASKS[0], path])

    def test_nan_in_an_input(self):
        name = "visual.ln_post.bias"
        value = cli.read_safetensors(TASKS[1])[name].copy()
        for bad in (np.nan, np.inf):
            value[5] = bad
            path = self.changed(TASKS[1], **{name: value})
            self.refused(path, name, inputs=[TASKS[0], path], n_ranks=3)
        self.refused(path, name, pretrained=path, n_ranks=None)

    def test_file_that_holds_no_weights(self):
        path = self.dir / "notes.txt"
        path.write_text("not weights\n" * 10)
        self.refused(path, inputs=[path])

    def test_input_missing_on_one_rank_only(self):
        # Rank 1 is given another name, as if its host lacked the file.
        wrapper = self.dir / "bin/magmax_merge"
        wrapper.parent.mkdir()
        wrapper.write_text(
            "#!/bin/bash\n"
            'arguments=("$@")\n'
            'if [ "$OMPI_COMM_WORLD_RANK" = 1 ]; then\n'
            "    arguments[-1]=/nowhere/task_002.h5\n"
            "fi\n"
            f'exec "{cli.command("magmax_merge")[0]}" "${{arguments[@]}}"\n')
        wrapper.chmod(0o755)
        self.refused("rank 1", "/nowhere/task_002.h5", program=wrapper,
                     n_ranks=3)

    def test_output_is_an_input(self):
        task = self.checkpoint()
        link, hard = self.dir / "link.h5", self.dir / "hard.h5"
        link.symlink_to(task)
        os.link(task, hard)
        for output in (task, link, hard):
            self.refused("overwrite", output, inputs=[TASKS[0], task],
                         output=output)
        self.refused("overwrite", pretrained=task, output=task)

    def test_output_whose_temporary_name_is_an_input(self):
        task = self.dir / "merged.h5.tmp"
        shutil.copy(TASKS[0], task)
        self.refused("overwrite", inputs=[task], n_ranks=None)

    def test_output_of_another_format(self):
        self.refused("magmax_convert", ".h5", n_ranks=None,
                     output=self.dir / "merged.safetensors")

    def test_unwritable_folder(self):
        self.refused("/proc/merged.h5", output="/proc/merged.h5")
        self.refused("no such file", output=self.dir / "gone/merged.h5")
        self.refused("not a directory", output=self.output / "merged.h5")
        self.refused(output=self.dir)

    def test_folder_without_permission(self):
        if os.geteuid() == 0:
            self.skipTest("root may write everywhere")
        folder = self.dir / "closed"
        folder.mkdir(0o555)
        self.refused("permission denied", output=folder / "merged.h5")

    def test_full_disk(self):
        folder = self.dir / "small"
        folder.mkdir()
        mounted = os.geteuid() == 0 and subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", folder],
            capture_output=True).returncode == 0
        if not mounted:
            self.skipTest("mounting a small file system needs root")
        self.addCleanup(subprocess.run, ["umount", folder], check=True)
        earlier = folder / "merged.h5"
        earlier.write_bytes(b"an earlier merge")
        for n_ranks in (1, 3):
            self.refused("no space left", output=earlier, n_ranks=n_ranks)

    def test_unknown_method(self):
        proc = self.refused("magmx", "did you mean magmax", "average",
                            "random", "task-arithmetic",
                            args=["--method", "magmx"])
        self.assertEqual(proc.returncode, 2)

    def test_task_arithmetic_without_a_coefficient(self):
        self.refused("--scaling-coef", args=["--method", "task-arithmetic"])

    def test_coefficient_that_is_no_number(self):
        for text in ("nan", "1e60"):
            self.refused("coef", args=["--scaling-coef", text], n_ranks=None)

    def test_result_beyond_fp32(self):
        files = [self.dir / "zero.safetensors", self.dir / "task.safetensors"]
        for path, sign in zip(files, (-1, 1)):
            cli.write_safetensors(path, {
                "visual.proj": np.full(9, sign * 2e38, np.float32)})
        self.refused("visual.proj", "finite", pretrained=files[0],
                     inputs=files[1:])

    def test_no_inputs(self):
        self.refused("no inputs", inputs=[])

    def test_missing_options(self):
        with cli.unchanged(self.dir):
            self.assert_one_line_error(merge("-o", self.output, *TASKS),
                                       "--pretrained")
            self.assert_one_line_error(merge("--pretrained", THETA_0, *TASKS),
                                       "--output")

    def test_unknown_option(self):
        self.refused("--scalling-coef", "--scaling-coef",
                     args=["--scalling-coef", "0.5"], n_ranks=None)

    def test_interrupted_merge_leaves_the_earlier_one(self):
        # Ended while it runs, at whatever it does then.
        for seconds in (0.05, 0.2, 0.4):
            process = cli.start("magmax_merge", "--pretrained", THETA_0, "-o",
                                self.output, *TASKS * 200,
                                stderr=subprocess.DEVNULL)
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            data = self.output.read_bytes()
            if data != b"an earlier merge":
                self.assertEqual(len(cli.read_checkpoint(self.output)), 44)
                self.output.write_bytes(b"an earlier merge")


if __name__ == "__main__":
    cli.main()
