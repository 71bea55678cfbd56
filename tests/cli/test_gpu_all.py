"""bench/gpu/all.sh without a GPU: its options, how it goes on after a stage was
cut off, the packages that it unpacks, and the page made from its results.
"""

import hashlib
import io
import json
import lzma
import os
import signal
import subprocess
import sys
import tarfile

import magmax_cli as cli

BENCH = cli.SOURCE / "bench/gpu"
sys.path.insert(0, str(BENCH))
import report as gpu_report  # noqa: E402
import results as gpu_results  # noqa: E402
import tools as gpu_tools  # noqa: E402

MACHINE = {"device": "A card", "driver": "1.2", "memory": "80 GiB",
           "compute_capability": "9.0", "cuda": "13.0", "cpu": "A host",
           "n_cores": 16, "system": "Linux", "compiler": "13"}


def run(*command):
    return subprocess.run(list(map(str, command)), capture_output=True,
                          text=True, cwd=cli.SOURCE)


def step(name, data=None, stage="time", status="passed", **more):
    return {"stage": stage, "step": name, "status": status, "seconds": 1.0,
            "source": "abc", "device": "A card", "emulated": False,
            "date": "2030-01-02 03:04", "command": "x", "data": data, **more}


MEASURED = [
    {"machine": MACHINE, "source": "abc", "emulated": False, "date": "x"},
    step("limits", [{"limit": "copy", "gb_per_s": 3000.0},
                    {"limit": "copy to device", "gb_per_s": 50.0},
                    {"limit": "copy to host", "gb_per_s": 40.0},
                    {"limit": "bf16 product", "tflop_per_s": 800.0}]),
    step("ops.ViT-B-16.128.bf16", [
        {"op": "layernorm", "calls": 24, "bytes": 3e8, "flop": 0,
         "seconds": 1.25e-4},
        {"op": "qkv", "calls": 12, "bytes": 3e6, "flop": 8e10,
         "seconds": 2e-4}]),
    step("training.ViT-B-16.128.bf16", [
        {"program": "magmax", "images_per_s": r, "gflop_per_image": 100.0}
        for r in (3900, 4000, 9000)] + [
        {"program": "PyTorch", "images_per_s": r} for r in (3200,)]),
    step("attention.197", [{"op": "attention", "flop": 8e9, "seconds": 1e-4},
                           {"op": "attention_grad", "flop": 2e10,
                            "seconds": 2e-4}]),
    step("attention.PyTorch", [
        {"backend": "cuDNN", "tokens": 197, "forward_s": 9e-5,
         "gradient_s": 3e-4},
        {"backend": "flash", "tokens": 197, "not run": "no kernel"}]),
    step("merge", [{"device": "cuda", "bytes_read": 5e10, "bytes_written": 4e10,
                    "seconds": 4.0}]),
    step("op.fill.cuda", stage="test"),
    step("op.gemm.cuda", stage="test", status="failed", reason="a\nwrong by 3"),
    step("op.fill.cuda.racecheck", stage="sanitize", status="not run",
         reason="Device not supported"),
]


class Page(cli.Case):
    def page_of(self, records):
        path = self.dir / "results.jsonl"
        path.write_text("".join(json.dumps(r) + "\n" for r in records))
        return run(sys.executable, BENCH / "report.py", path)

    def test_numbers_are_those_of_the_results(self):
        proc = self.page_of(MEASURED)
        self.assertEqual(proc.returncode, 0, proc.stderr)
        for line in (
                "| device | A card |",
                "| date | 2030-01-02 03:04 |",
                "| copy | on the device, read and written | 3000 GB/s |",
                # 4000 images/s of 0.1 TFLOP: half of 800; 4000 / 3200.
                "| ViT-B-16 | 128 | bf16 | 4000 | 50.0 % | 3200 | 1.25 |",
                "| ViT-B-32 | 128 | bf16 |  |  |  |  |",
                # 300 MB at 3 TB/s: 100 µs of 125; 80 GFLOP: 100 of 200.
                "| layernorm | 24 | 300 | 0 | bytes | 100 | 125 | 0.80 |",
                "| qkv | 12 | 3 | 80 | operations | 100 | 200 | 0.50 |",
                "A step's ops one by one: 5.40 ms; their floor: 3.60 ms.",
                # 80 TFLOP/s of 800.
                "| 197 | attention | 100 | 0.10 | 90 |  |  |",
                "| 197 | attention_grad | 200 | 0.12 | 300 |  |  |",
                # 50 GB at 50 GB/s and 40 GB at 40.
                "| `--device cuda` | 4.00 | 2.00 | 0.50 |",
                "| test | 1 | 1 | 0 | 2 |",
                "- test, failed: `op.gemm.cuda`: wrong by 3",
                "- sanitize, not run: `op.fill.cuda.racecheck`: "
                "Device not supported"):
            self.assertIn(line + "\n", proc.stdout)
        self.assertNotIn(gpu_report.NOTHING, proc.stdout)

    def test_the_last_result_of_a_step_counts_and_other_sources_do_not(self):
        again = step("op.gemm.cuda", stage="test")
        proc = self.page_of([dict(step("old", stage="test"), source="before"),
                             *MEASURED, again])
        self.assertIn("| test | 2 | 0 | 0 | 2 |\n", proc.stdout)

    def test_a_rehearsal_makes_no_page(self):
        proc = self.page_of([dict(r, emulated=True) for r in MEASURED])
        self.assertEqual(proc.returncode, 1)
        self.assertIn("rehearsal", proc.stderr)
        proc = run(sys.executable, BENCH / "report.py",
                   self.dir / "results.jsonl", "--rehearsal")
        self.assertIn(gpu_report.REHEARSAL, proc.stdout)

    def test_the_page_in_docs_is_one_that_the_script_makes(self):
        page = (cli.SOURCE / "docs/gpu-results.md").read_text()
        self.assertNotIn(gpu_report.REHEARSAL, page)
        if gpu_report.NOTHING in page:
            self.assertEqual(
                page, run(sys.executable, BENCH / "report.py").stdout)

    def test_missing_results_are_an_error(self):
        proc = run(sys.executable, BENCH / "report.py", "/no/such")
        self.assertEqual(proc.returncode, 1)
        self.assertIn("/no/such", proc.stderr)


class Options(cli.Case):
    def gpu_all(self, *arguments):
        return run("bash", BENCH / "all.sh", "--work", self.dir, *arguments)

    def test_unknown_stage_lists_the_known_ones(self):
        proc = self.gpu_all("tset")
        self.assertEqual(proc.returncode, 2)
        for text in ("tset", "build, test, sanitize, time"):
            self.assertIn(text, proc.stderr)

    def test_unknown_option_and_bad_limit_are_errors(self):
        for arguments in (("--emulat",), ("--limit", "0"), ("--jobs", "x")):
            proc = self.gpu_all("--packages", "none", *arguments, "--nothing")
            self.assertEqual(proc.returncode, 2, proc.stderr)

    def test_missing_packages_say_how_to_get_them(self):
        proc = self.gpu_all("--emulate", "--packages", "/no/such", "build")
        self.assertEqual(proc.returncode, 1)
        self.assertIn("packages.sh", proc.stderr)

    def test_help_describes_every_option(self):
        text = self.gpu_all("--help").stdout
        for option in ("--out", "--work", "--packages", "--limit", "--jobs",
                       "--only", "--again", "--emulate"):
            self.assertIn(option, text)


class Steps(cli.Case):
    def open(self, source="abc"):
        return gpu_results.Results(self.dir / "r.jsonl", MACHINE, source, False,
                                   self.dir / "out")

    @staticmethod
    def shell(name, text, timeout=cli.DEADLINE_S, **more):
        return gpu_results.Step(name, ["sh", "-c", text], timeout=timeout,
                                **more)

    def run_all(self, steps, limit_s=cli.DEADLINE_S, source="abc"):
        results = self.open(source)
        results.begin_stage(limit_s)
        with open(os.devnull, "w") as nowhere:
            with cli.contextlib.redirect_stdout(nowhere):
                left = results.run_all("test", steps, 1)
        return results, left

    def test_each_ending_has_its_status_and_reason(self):
        results, left = self.run_all([
            self.shell("good", "echo '{\"a\": 1}'", parse=gpu_results.json_lines),
            self.shell("bad", "echo it broke; exit 3"),
            self.shell("skip", "echo none here; exit 77"),
            self.shell("refused", "echo Device not supported; exit 1",
                       refusals=("not supported",)),
            self.shell("refused quietly", "echo ERR_NVGPUCTRPERM",
                       parse=gpu_results.json_lines,
                       refusals=("NVGPUCTRPERM",)),
            self.shell("found", "exit 99", wanted_code=99),
            self.shell("not found", "true", wanted_code=99),
            self.shell("no data", "true", parse=gpu_results.json_lines),
            self.shell("slow", "sleep 3000", timeout=0.3),
            gpu_results.Step("missing", ["/no/such/program"])])
        done = results.done("test")
        self.assertEqual(left, 0)
        self.assertEqual({n: r["status"] for n, r in done.items()}, {
            "good": "passed", "bad": "failed", "skip": "not run",
            "refused": "not run", "refused quietly": "not run",
            "found": "passed", "not found": "failed", "no data": "failed",
            "slow": "failed", "missing": "failed"})
        self.assertEqual(done["good"]["data"], [{"a": 1}])
        self.assertIn("it broke", done["bad"]["reason"])
        self.assertIn("/no/such/program", done["missing"]["reason"])
        copied = gpu_results.read_records(self.dir / "out/results.jsonl")
        self.assertEqual(copied, results.records())

    def test_a_stage_that_was_cut_off_goes_on_where_it_stopped(self):
        count = self.dir / "count"
        steps = [self.shell("first", f"echo x >>{count}"),
                 self.shell("second", f"[ -e {self.dir}/go ] || sleep 3000")]
        self.run_all(steps[:1])
        _, left = self.run_all(steps, limit_s=1.5)
        self.assertEqual(left, 1)
        (self.dir / "go").touch()
        with open(self.dir / "r.jsonl", "a") as file:
            file.write('{"stage": "test", "st')  # a line that was cut off
        results, left = self.run_all(steps)
        self.assertEqual(left, 0)
        self.assertEqual(count.read_text(), "x\n")
        self.assertEqual(set(results.done("test")), {"first", "second"})

    def test_whoever_is_killed_leaves_nothing_running(self):
        program = ("import results as gpu_results, signal, sys\n"
                   "signal.signal(signal.SIGTERM, gpu_results.end_all)\n"
                   "gpu_results.call(gpu_results.Step('x', ['sh', '-c', "
                   "'echo $$ >pid.new; mv pid.new pid; exec sleep 3000']), 3000)\n")
        for number in (signal.SIGKILL, signal.SIGTERM):
            pid = self.dir / "pid"
            pid.unlink(missing_ok=True)
            runner = subprocess.Popen([sys.executable, "-c", program],
                                      cwd=self.dir,
                                      env={**os.environ, "PYTHONPATH": BENCH})
            cli.wait_until(pid.exists, lambda: "the step ran", runner)
            child = int(pid.read_text())
            runner.send_signal(number)
            runner.wait()
            cli.wait_until(lambda: not cli.runs(child),
                           lambda: "the step's program was gone")

    def test_another_source_runs_everything_again(self):
        count = self.dir / "count"
        steps = [self.shell("first", f"echo x >>{count}")]
        self.run_all(steps)
        self.run_all(steps, source="def")
        self.assertEqual(count.read_text(), "x\nx\n")


class Kernels(cli.Case):
    OUTPUT = """==PROF== Connected to process 17 (vit_step)
==PROF== Profiling "mm_fill_kernel": 0%....50%....100% - 1 pass
{"model": "ViT-B-16"}
==PROF== Disconnected from process 17
"ID","Process ID","Process Name","Host Name","Kernel Name","Context",\
"Stream","dram__bytes.sum","gpu__time_duration.sum"
"","","","","","","","byte","TIME"
"0","17","vit_step","localhost",\
"void mm_flat_kernel<4, (anonymous namespace)::fill<float> >(T2, long)",\
"1","13","1,000,000","2,500.5"
"1","17","vit_step","localhost","nvjet_hsh_128x256_tn(Params)",\
"1","13","0","1,000,000"
"2","17","vit_step","localhost",\
"void mm_flat_kernel<4, (anonymous namespace)::fill<float> >(T2, long)",\
"1","13","1,000,000","2,500.5"
"""

    def test_numbers_and_names_are_read_as_ncu_writes_them(self):
        for unit, scale in (("ns", 1e-9), ("nsecond", 1e-9), ("us", 1e-6)):
            kernels = gpu_tools.parse_ncu(self.OUTPUT.replace("TIME", unit))
            self.assertEqual([k["kernel"] for k in kernels], [
                "nvjet_hsh_128x256_tn", "mm_flat_kernel<4, fill<float> >"])
            self.assertEqual([k["calls"] for k in kernels], [1, 2])
            self.assertEqual(kernels[1]["bytes"], 2e6)
            self.assertAlmostEqual(kernels[0]["seconds"], 1e6 * scale)
            self.assertAlmostEqual(kernels[1]["seconds"], 5001 * scale)
        self.assertEqual(gpu_tools.ncu_value("1.5", "Mbyte"), 1.5e6)

    def test_output_without_kernels_is_no_result(self):
        with self.assertRaises(ValueError):
            gpu_tools.parse_ncu("==ERROR== ERR_NVGPUCTRPERM\n")


class Packages(cli.Case):
    """A package made here, unpacked by bench/gpu/prefix.py."""

    def make_package(self, files):
        tar = io.BytesIO()
        with tarfile.open(fileobj=tar, mode="w") as archive:
            for name, content in files.items():
                member = tarfile.TarInfo("./" + name)
                if isinstance(content, str):
                    member.type, member.linkname = tarfile.SYMTYPE, content
                    archive.addfile(member)
                else:
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
        data = lzma.compress(tar.getvalue())
        package = (b"!<arch>\n" + b"data.tar.xz".ljust(48)
                   + str(len(data)).encode().ljust(10) + b"`\n" + data)
        folder = self.dir / "packages"
        folder.mkdir(exist_ok=True)
        (folder / "a.deb").write_bytes(package)
        (folder / "SHA256SUMS").write_text(
            hashlib.sha256(package).hexdigest() + "  a.deb\n")
        return folder

    def unpack(self, folder):
        return run(sys.executable, BENCH / "prefix.py", folder,
                   self.dir / "prefix")

    def test_links_stay_inside_and_programs_know_where_they_lie(self):
        proc = self.unpack(self.make_package({
            "lib/x86_64-linux-gnu/libx.so.1": b"library",
            "usr/lib/x86_64-linux-gnu/libx.so":
                "/lib/x86_64-linux-gnu/libx.so.1",
            "usr/lib/x86_64-linux-gnu/libx.a": b"not needed",
            "usr/share/doc/x/readme": b"not needed",
            "usr/bin/orterun": b"program", "usr/bin/orted": b"program"}))
        self.assertEqual(proc.returncode, 0, proc.stderr)
        prefix = self.dir / "prefix"
        link = prefix / "usr/lib/x86_64-linux-gnu/libx.so"
        self.assertEqual(link.read_bytes(), b"library")
        self.assertTrue(link.resolve().is_relative_to(prefix.resolve()))
        self.assertFalse((prefix / "usr/share/doc").exists())
        self.assertFalse(link.with_suffix(".a").exists())
        self.assertIn(str(prefix), (prefix / "bin/mpirun").read_text())

    def test_every_library_of_a_build_is_among_those_that_are_collected(self):
        needed = set(run(cli.SOURCE / ".ci/install.sh", "--list",
                         "build").stdout.split())
        of_the_machine = {"gcc", "libc6-dev", "cmake", "ninja-build",
                          "pkg-config", "hdf5-tools"}
        collected = set((BENCH / "packages.sh").read_text().split())
        self.assertIn("libhdf5-openmpi-dev", needed)
        self.assertEqual(needed - of_the_machine - collected, set())

    def test_a_damaged_package_is_refused(self):
        folder = self.make_package({"usr/bin/orterun": b"program"})
        with open(folder / "a.deb", "ab") as file:
            file.write(b"x")
        proc = self.unpack(folder)
        self.assertEqual(proc.returncode, 1)
        self.assertIn("a.deb is damaged", proc.stderr)

    def test_a_folder_without_packages_says_how_to_make_it(self):
        proc = self.unpack(self.dir)
        self.assertEqual(proc.returncode, 1)
        self.assertIn("packages.sh", proc.stderr)


if __name__ == "__main__":
    cli.main()
