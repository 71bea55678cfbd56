"""bench/gpu/run.py without a GPU: a whole run, and one that goes on from it, on a
stub of a kit whose programs, like NVIDIA's tools, are scripts; how steps end; the
page made from results; a short rehearsal with the programs themselves.

ctest: slow cost=20 processors=2
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import unittest

import magmax_cli as cli

BENCH = cli.SOURCE / "bench/gpu"
sys.path.insert(0, str(BENCH))
import expectations  # noqa: E402
import ncu  # noqa: E402
import process  # noqa: E402
import report as gpu_report  # noqa: E402
import results as gpu_results  # noqa: E402
import steps as gpu_steps  # noqa: E402
import summary as gpu_summary  # noqa: E402
import tables  # noqa: E402
from process import CUT_OFF, FAILED, LEFT_OVER, NOT_RUN, PASSED  # noqa: E402

IDENTITY = {"source": "abc", "kit": "def", "device": "NVIDIA H100 80GB HBM3",
            "emulated": False}
MACHINE = {"device": IDENTITY["device"], "driver": "1.2", "memory": "80 GiB",
           "compute_capability": "9.0", "cuda": "13.0", "cpu": "A host",
           "n_cores": 16, "system": "Linux"}


def run(*command, **more):
    return subprocess.run(list(map(str, command)), capture_output=True,
                          text=True, cwd=cli.SOURCE, check=False, **more)


def record(group, name, data=None, status=PASSED, **more):
    return {"group": group, "step": name, "status": status, "seconds": 1.0,
            **IDENTITY, "date": "2030-01-02 03:04", "command": "x",
            "data": data, **more}


def offer(rank, us, mib=32, **more):
    return {"model": "ViT-B-16", "batch": 128, "product": "qkv",
            "pass": "weight", "epilogue": "none", "addend": False,
            "m": 768, "n": 2304, "k": 25216, "calls": 12, "in_use": True,
            "workspace_mib": mib, "rank": rank, "us": us, "repeats": True,
            **more}


def rounds(program, *images_per_s):
    return [{"program": program, "images_per_s": r, "gflop_per_image": 100.0}
            for r in images_per_s]


MEASURED = [
    {"machine": MACHINE, **IDENTITY, "date": "x"},
    record("start", "libraries", [
        {"library": "libcublasLt.so.13", "path": "/x/libcublasLt.so.13"},
        {"library": "libnccl.so.2", "path": None}]),
    record("ops", "limits", [
        {"limit": "copy", "gb_per_s": 3000.0},
        {"limit": "copy to device", "gb_per_s": 50.0},
        {"limit": "copy to host", "gb_per_s": 40.0},
        {"limit": "bf16 product", "tflop_per_s": 800.0}]),
    record("ops", "ops.ViT-B-16.128.bf16", [
        {"op": "layernorm", "calls": 24, "bytes": 3e8, "flop": 0,
         "seconds": 1.25e-4},
        {"op": "qkv", "calls": 12, "bytes": 3e6, "flop": 8e10,
         "seconds": 2e-4}]),
    record("training", "training.ViT-B-16.128.bf16", [
        {"variant": "", "round": i, "images_per_s": r, "gflop_per_image": 100.0}
        for i, r in enumerate((3900, 4000, 9000))] + [
        {"variant": "", "runs": 3, "same bits": True}]),
    record("variants", "variants", [
        {"variant": "", "images_per_s": 4000}, {"variant": "a=b",
                                                "images_per_s": 4200},
        {"variant": "a=c", "failed": "no such algorithm"},
        {"variant": "a=b", "runs": 1, "same bits": False}], status=FAILED,
        reason="weights differ"),
    record("variants", "algorithms", [
        offer(0, 110.0), offer(1, 90.0, repeats=False), offer(2, 100.0, 128),
        offer(0, 50.0, product="out"), offer(1, 49.0, product="out"),
        {**offer(0, 0.0, product="out", epilogue="BGRADB"),
         "refused": "cublasLtMatmul: NOT_SUPPORTED, 15", "us": None,
         "repeats": None},
        {"products": 3, "left_out": 0}]),
    record("PyTorch", "PyTorch.ViT-B-16.128.bf16",
           rounds("magmax", 3800, 3840) + rounds("PyTorch", 3200),
           status=CUT_OFF, reason="ended after 110 s"),
    record("ops", "attention.197", [
        {"op": "attention", "flop": 8e9, "seconds": 1e-4},
        {"op": "attention_grad", "flop": 2e10, "seconds": 2e-4}]),
    record("attention", "attention.PyTorch", [
        {"backend": "cuDNN", "tokens": 197, "forward_s": 9e-5,
         "gradient_s": 3e-4},
        {"backend": "flash", "tokens": 197, "not run": "no kernel"}]),
    record("merging", "merge", [
        {"device": "cuda", "bytes_read": 5e10, "bytes_written": 4e10,
         "seconds": 4.0}]),
    record("tests", "op.fill.cuda"),
    record("tests", "op.gemm.cuda", status=FAILED, reason="a\nwrong by 3\nb"),
    record("planted faults", "racecheck.planted"),
    record("sanitizers", "racecheck.fill.cuda", status=NOT_RUN,
           reason="Device not supported"),
]


class Page(cli.Case):
    def page_of(self, records, *options):
        path = self.dir / "results.jsonl"
        path.write_text("".join(json.dumps(r) + "\n" for r in records))
        return run(sys.executable, BENCH / "report.py", path, *options)

    def assert_lines(self, page, *lines):
        for line in lines:
            self.assertIn(line + "\n", page)

    def test_numbers_are_those_of_the_results(self):
        proc = self.page_of(MEASURED)
        self.assertEqual(proc.returncode, 0, proc.stderr)
        self.assert_lines(
            proc.stdout,
            # 4000 images/s of 0.1 TFLOP, of 989; 3820 / 3200.
            "NVIDIA H100 80GB HBM3: ViT-B-16, batch 128, bf16 trains at 4,000 "
            "images/s (40.4 % MFU, 1.19 times PyTorch's 3,200); tests: 1 "
            "passed, 1 failed.",
            "| device | NVIDIA H100 80GB HBM3 |",
            "| date | 2030-01-02 03:04 |",
            "| libraries | `/x/libcublasLt.so.13` |",
            "| source, kit (digests) | abc def |",
            "| copy | on the device, read and written | 3000 GB/s |",
            "| ViT-B-16 | 128 | bf16 | 34.9 | 32.0 | 3668 | 4000 | 40.4 % | "
            "50.0 % | 3820 | 3200 | 1.19 |",
            "| ViT-B-32 | 128 | bf16 | 11.7 |  | 10940 |  |  |  |  |  |  |",
            "The weights of 3 runs are the same, bit for bit.",
            "| the default | 4000 | 1.000 |  |  |",
            "| `a=b` | 4200 | 1.050 | NO |  |",
            "| `a=c` |  |  |  | no such algorithm |",
            "| ViT-B-16 | qkv, weight | 768 x 2304 x 25216 | none | yes | 110.0 "
            "| 100.0 | 1.10 | 3, 128 MiB |",
            # 12 times 10 and 1 us.
            "ViT-B-16: the best of all products in use would save 0.13 ms a "
            "step.",
            "- refused: out, weight, BGRADB: cublasLtMatmul: NOT_SUPPORTED, 15",
            # 24 times 125 us.
            "| layernorm | 0.62 | 0.75 | 3.00 | 4.00 |",
            # 300 MB at 3 TB/s: 100 us of 125; 80 GFLOP: 100 of 200.
            "| layernorm | 24 | 300 | 0 | bytes | 100 | 125 | 0.80 |",
            "| qkv | 12 | 3 | 80 | operations | 100 | 200 | 0.50 |",
            "A step's ops one by one: 5.40 ms; their floor: 3.60 ms.",
            # 80 TFLOP/s of 800.
            "| 197 | attention | 100 | 0.10 | 90 |  |  |",
            "| 197 | attention_grad | 200 | 0.12 | 300 |  |  |",
            # 50 GB at 50 GB/s and 40 GB at 40.
            "| `--device cuda` | 4.00 | 2.00 | 0.50 |",
            "| tests | 1 | 1 | 0 | 0 | 0 | 2 |",
            "- tests, failed: `op.gemm.cuda`: wrong by 3",
            "- sanitizers, not run: `racecheck.fill.cuda`: Device not supported",
            "| mistakes that were planted |  | found |  |  |",
            "| `fill.cuda` |  | not run |  |  |")

    def test_the_last_result_of_a_step_counts_and_other_sources_do_not(self):
        again = record("tests", "op.gemm.cuda")
        proc = self.page_of([dict(record("tests", "old"), source="before"),
                             *MEASURED, again])
        self.assert_lines(proc.stdout, "| tests | 2 | 0 | 0 | 0 | 0 | 2 |",
                          "Left out: 1 results of another source, kit or "
                          "device.")

    def test_a_short_call_on_another_card_hides_nothing(self):
        proc = self.page_of([*MEASURED, dict(record("tests", "op.fill.cuda"),
                                             device="Another")])
        self.assert_lines(proc.stdout, "| device | NVIDIA H100 80GB HBM3 |")

    def test_a_rehearsal_makes_no_page(self):
        rehearsed = [dict(r, emulated=True) for r in MEASURED]
        proc = self.page_of(rehearsed)
        self.assertEqual(proc.returncode, 1)
        self.assertIn("rehearsal", proc.stderr)
        proc = self.page_of(rehearsed, "--rehearsal")
        self.assertIn("REHEARSAL without a GPU", proc.stdout)

    def test_the_page_in_docs_is_one_that_the_script_makes(self):
        page = (cli.SOURCE / "docs/gpu-results.md").read_text()
        self.assertNotIn("REHEARSAL", page)
        nothing = gpu_summary.headline(gpu_results.View([]))
        if nothing in page:
            self.assertEqual(
                page, run(sys.executable, BENCH / "report.py").stdout)

    def test_missing_results_are_an_error(self):
        proc = run(sys.executable, BENCH / "report.py", "/no/such")
        self.assertEqual(proc.returncode, 1)
        self.assertIn("/no/such", proc.stderr)

    def test_expectations_are_of_ops_that_are_timed(self):
        source = (BENCH / "op_times_cases.c").read_text()
        for *_, names in expectations.KERNELS:
            for name in names:
                self.assertIn(f'{{"{name}", ', source)
        self.assertLessEqual(set(expectations.STEPS), set(tables.TRAINING))


class Steps(cli.Case):
    """How one ends."""

    @staticmethod
    def end(text, left_s=cli.DEADLINE_S, timeout=cli.DEADLINE_S, **more):
        step = process.Step("x", ["sh", "-c", text], timeout=timeout, **more)
        return process.run_step(step, left_s)

    def test_each_ending_has_its_status_and_reason(self):
        rows = process.json_lines
        for status, text, more in (
                (PASSED, "echo '{\"a\": 1}'", {"parse": rows}),
                (FAILED, "echo it broke; exit 3", {}),
                (NOT_RUN, "echo none here; exit 77", {}),
                (NOT_RUN, "echo Device not supported; exit 1",
                 {"refusals": ("not supported",)}),
                (NOT_RUN, "echo ERR_NVGPUCTRPERM",
                 {"parse": rows, "refusals": ("NVGPUCTRPERM",)}),
                (NOT_RUN, "true", {"not_run": "no such tool"}),
                (PASSED, "exit 99", {"wanted_code": 99}),
                (FAILED, "true", {"wanted_code": 99}),
                (FAILED, "true", {"parse": rows}),
                (FAILED, "kill -SEGV $$", {})):
            ending = self.end(text, **more)
            self.assertEqual(ending.status, status, (text, ending))
            self.assertEqual(ending.reason is None, status == PASSED)
        self.assertEqual(self.end("echo '{\"a\": 1}'", parse=rows).data,
                         [{"a": 1}])
        self.assertIn("it broke", self.end("echo it broke; exit 3").reason)
        self.assertIn("SIGSEGV", self.end("kill -SEGV $$").reason)

    def test_a_tool_that_is_missing_is_not_run_a_program_of_ours_failed(self):
        for command, status in ((["no-such-tool"], NOT_RUN),
                                (["/no/such/program"], FAILED)):
            ending = process.run_step(process.Step("x", command), 30)
            self.assertEqual(ending.status, status)
            self.assertIn(command[0], ending.reason)

    def test_reasons_are_the_last_forty_lines(self):
        reason = self.end("seq 100; exit 1").reason
        self.assertEqual(reason.splitlines()[0], "61")
        self.assertEqual(reason.splitlines()[-1], "ended with 1")

    def test_a_limit_ends_a_step_and_keeps_what_it_measured(self):
        text = "echo '{\"a\": 1}'; echo '{\"b'; sleep 3000"
        limit_s = 0.25
        while True:  # until it is long enough for the first line
            own = self.end(text, timeout=limit_s, parse=process.json_lines)
            of_group = self.end(text, left_s=limit_s, least=0.1, timeout=3000,
                                parse=process.json_lines)
            self.assertEqual((own.status, of_group.status), (FAILED, CUT_OFF))
            if own.data and of_group.data:
                break
            limit_s *= 2
        self.assertEqual(own.data, [{"a": 1}])
        self.assertEqual(of_group.data, [{"a": 1}])
        self.assertEqual(self.end(text, left_s=2).status, LEFT_OVER)

    def test_whoever_left_the_group_or_ignores_signals_ends_too(self):
        pids = self.dir / "pids"
        limit_s = 0.5
        while not pids.exists() or len(pids.read_text().split()) < 2:
            pids.unlink(missing_ok=True)
            limit_s *= 2
            self.end(f"trap '' TERM; setsid sh -c 'echo $$ >>{pids}; "
                     f"sleep 3000' & echo $$ >>{pids}; sleep 3000; sleep 3000",
                     timeout=limit_s, left_s=3000)
        for pid in pids.read_text().split():
            self.wait_for_end(int(pid))

    def test_whoever_is_killed_leaves_nothing_running(self):
        program = ("import process, signal, sys, os\n"
                   "signal.signal(signal.SIGTERM, lambda *_: "
                   "(process.end_all(), os._exit(1)))\n"
                   "process.call(process.Step('x', ['sh', '-c', 'echo $$ "
                   ">pid.new; mv pid.new pid; exec sleep 3000']), 3000)\n")
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
            self.wait_for_end(child)

    def wait_for_end(self, pid):
        cli.wait_until(lambda: not cli.runs(pid), lambda: f"{pid} was gone")


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
            kernels = ncu.parse_ncu(self.OUTPUT.replace("TIME", unit))
            self.assertEqual([k["kernel"] for k in kernels], [
                "nvjet_hsh_128x256_tn", "mm_flat_kernel<4, fill<float> >"])
            self.assertEqual([k["calls"] for k in kernels], [1, 2])
            self.assertEqual(kernels[1]["bytes"], 2e6)
            self.assertAlmostEqual(kernels[0]["seconds"], 1e6 * scale)
            self.assertAlmostEqual(kernels[1]["seconds"], 5001 * scale)
        self.assertEqual(ncu.ncu_value("1.5", "Mbyte"), 1.5e6)

    def test_output_without_kernels_is_no_result(self):
        with self.assertRaises(ValueError):
            ncu.parse_ncu("==ERROR== ERR_NVGPUCTRPERM\n")


VIT_STEP = """
case $MAGMAX_CUDA_VARIANTS in
"?") echo "vit_step: MAGMAX_CUDA_VARIANTS: no variant '?'; there is \
a=x|y|z, b=u|v" >&2; exit 1 ;;
a=z) echo "vit_step: error: no algorithm"; exit 1 ;;
esac
[ -z "$FAIL_STEP" ] || { echo "vit_step: CUDA error 700"; exit 1; }
echo '{"train_images_per_s": 3700, "train_gflop_per_image": 105.4,'\
     '"n_params": 7, "weights_fnv": "12"}'
"""
OP_TIMES = """
echo '{"op": "qkv", "calls": 12, "bytes": 3e6, "flop": 8e10, "seconds": 1e-4}'
"""
SANITIZER = """
case " $* " in *planted*) exit 99 ;; esac
echo "[  PASSED  ] 1 test(s)."
"""


class Lines(cli.Case):
    def test_the_line_that_says_most_is_found(self):
        for reason, line in (
                ("[ RUN      ] op_refuses_it\n[       OK ] op_refuses_it\n"
                 "[  ERROR   ] --- 3 != 4\n[  FAILED  ] 1 test(s)",
                 "[  ERROR   ] --- 3 != 4"),
                ("========= COMPUTE-SANITIZER\n========= Invalid read\n"
                 "========= ERROR SUMMARY: 1 error", "========= Invalid read"),
                ("a\nb", "b"), ("", ""), (None, "")):
            self.assertEqual(gpu_summary.telling_line(reason), line)

    def test_a_library_that_the_first_module_lacks_is_an_error(self):
        (self.dir / "ldd").write_text(
            "#!/bin/sh\necho ' libcublasLt.so.13 => not found'\n"
            "echo ' libc.so.6 => /lib/libc.so.6 (0x1)'\n"
            "[ $1 = b ] || echo ' libnccl.so.2 => /x/libnccl.so.2 (0x1)'\n")
        (self.dir / "ldd").chmod(0o755)
        env = {**os.environ, "PATH": f"{self.dir}:/usr/bin:/bin"}
        proc = run(sys.executable, BENCH / "machine.py", "a", env=env)
        self.assertEqual(proc.returncode, 1)
        self.assertIn("not found: libcublasLt.so.13", proc.stderr)
        self.assertIn('"library": "libnccl.so.2", "path": "/x/libnccl.so.2"',
                      proc.stdout)


class WholeRun(cli.Case):
    """On a kit and a machine that are scripts."""

    def setUp(self):
        super().setUp()
        self.kit, self.tools = self.dir / "kit", self.dir / "tools"
        self.out = self.dir / "out"
        for name, text in (
                ("bin-bench/vit_step", VIT_STEP),
                ("bin-bench/op_times", OP_TIMES),
                ("bin-bench/gpu_limits", "echo '{\"limit\": \"copy\"}'"),
                ("bin-bench/product_probe", "echo '{}'"),
                ("bin-bench/nccl_alone", "echo '{}'"),
                ("bin-test/op_test", "[ ! -e $FAULT ] || "
                 "{ echo 'error: 3 is not 4'; exit 1; }"),
                ("lib/magmax/libmagmax_cuda.so", ""),
                ("bin/magmax_merge", "exit 0")):
            self.script(self.kit / name, text)
        tests = [{"name": name, "command": ["@KIT@/bin-test/op_test", "cuda"],
                  "env": {"FAULT": f"@KIT@/{name}.fault"}, "timeout": 120,
                  "labels": labels}
                 for name, labels in (("op.fill.cuda.bf16", ["op", "cuda"]),
                                      ("op.layernorm.cuda.bf16", ["cuda"]),
                                      ("op.gemm.cuda.tf32", ["cuda"]),
                                      ("unit.step.cuda", ["cuda"]),
                                      ("parity.runs_gpu", ["cuda"]),
                                      ("mpi.merge.cuda.n1", ["cuda"]),
                                      ("op.fill.cpu", ["op"]))]
        (self.kit / "tests.json").write_text(json.dumps(tests))
        self.about(emulated=False)
        for name, text in (
                ("nvidia-smi", "echo 'NVIDIA H200, 580.1, 143771 MiB, 9.0'"),
                ("ncu", f"cat <<'CSV'\n{Kernels.OUTPUT}CSV"),
                ("compute-sanitizer", SANITIZER), ("ldd", "exit 0")):
            self.script(self.tools / name, text)
        (self.tools / "torch.py").write_text("raise ImportError('none here')")

    @staticmethod
    def script(path, text):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def about(self, **more):
        (self.kit / "kit.json").write_text(json.dumps(
            {"source": "abc", "digest": "def", "cuda": "13.0", **more}))

    def gpu_run(self, *options, **env):
        return run(sys.executable, BENCH / "run.py", "--kit", self.kit, "--out",
                   self.out, "--limit", 3000, "--slower", 40, *options,
                   env={**os.environ, "PATH": f"{self.tools}:/usr/bin:/bin",
                        "PYTHONPATH": self.tools, "CUDA_HOME": "/no", **env})

    def statuses(self):
        view = gpu_results.View(gpu_results.read_records(
            self.out / "results.jsonl"))
        return {name: r["status"] for name, r in view.steps.items()}

    def test_everything_runs_once_and_one_sentence_says_what_came_of_it(self):
        (self.kit / "op.gemm.cuda.tf32.fault").touch()
        proc = self.gpu_run()
        self.assertEqual(proc.returncode, 1, proc.stdout + proc.stderr)
        status = self.statuses()
        failed = {n for n, s in status.items() if s == FAILED}
        # Of the variants a=z fails; merging needs real programs.
        self.assertEqual(failed, {"op.gemm.cuda.tf32", "variants", "merge",
                                  "memcheck.gemm.cuda.tf32"} & failed)
        self.assertLessEqual({"op.gemm.cuda.tf32", "variants"}, failed)
        self.assertEqual({n for n, s in status.items() if s == NOT_RUN},
                         {n for n in status if "PyTorch" in n
                          or n.startswith("prepare.")})
        for name in ("start.step", "training.ViT-B-16.128.bf16", "nccl_alone",
                     "kernels.ViT-B-16.128.bf16", "racecheck.planted",
                     "racecheck.layernorm.cuda.bf16", "parity.runs_gpu",
                     "ops.ViT-L-14.64.bf16", "synccheck.fill.cuda.bf16"):
            self.assertEqual(status[name], PASSED, name)
        lines = (self.out / "summary.txt").read_text().splitlines()
        self.assertTrue(proc.stdout.endswith("\n".join(lines) + "\n"))
        self.assertLessEqual(len(lines), 60)
        # 3700 images of 105.4 GFLOP, of 989 TFLOP/s.
        self.assertIn("NVIDIA H200: ViT-B-16, batch 128, bf16 trains at 3,700 "
                      "images/s (39.4 % MFU); tests: ", lines[0])
        self.assertIn("  op.gemm.cuda.tf32: error: 3 is not 4", lines)
        self.assertIn("source abc, kit def", lines[-1])
        page = (self.out / "gpu-results.md").read_text()
        self.assertIn(lines[0], page)
        self.assertIn("| `a=y` | 3700 | 1.000 | yes |  |\n", page)
        self.assertIn("| `a=z` |  |  |  | vit_step: error: no algorithm |\n",
                      page)

        # What failed, and no more, goes on from there.
        (self.kit / "op.gemm.cuda.tf32.fault").unlink()
        first = self.dir / "first.jsonl"
        shutil.copy(self.out / "results.jsonl", first)
        proc = self.gpu_run("--rest", first, "--only", "^(op|unit|start)[.]")
        self.assertEqual(self.statuses()["op.gemm.cuda.tf32"], PASSED)
        self.assertEqual(
            re.findall(r"(?m)^passed +\S+ s  (\S+)", proc.stdout),
            ["start.op.fill.cuda.bf16", "start.step", "op.gemm.cuda.tf32"])

    def test_time_that_is_up_leaves_whole_results(self):
        self.script(self.kit / "bin-test/op_test", "sleep 5")
        proc = self.gpu_run("--limit", 8, "--only", "^(op[.]|training)")
        self.assertEqual(proc.returncode, 3, proc.stdout + proc.stderr)
        self.assertEqual(set(self.statuses().values()),
                         {PASSED, CUT_OFF, LEFT_OVER} & set(
                             self.statuses().values()))
        self.assertIn(LEFT_OVER, self.statuses().values())
        self.assertIn("left over:", (self.out / "summary.txt").read_text())

    def test_a_training_step_that_fails_leaves_what_finds_faults(self):
        proc = self.gpu_run(FAIL_STEP="1")
        self.assertEqual(proc.returncode, 1)
        self.assertIn("NVIDIA H200: stopped: start.step: vit_step: CUDA error "
                      "700; tests: ", proc.stdout)
        status = self.statuses()
        self.assertEqual(status["op.gemm.cuda.tf32"], PASSED)
        self.assertEqual(status["racecheck.layernorm.cuda.bf16"], PASSED)
        self.assertNotIn("training.ViT-B-16.128.bf16", status)

    def test_a_sanitizer_that_finds_nothing_is_not_believed(self):
        self.script(self.tools / "compute-sanitizer", "exit 0")
        self.gpu_run("--only", "planted|layernorm.*bf16")
        status = self.statuses()
        self.assertEqual(status["racecheck.planted"], FAILED)
        self.assertEqual(status["racecheck.layernorm.cuda.bf16"], NOT_RUN)

    def test_output_of_another_form_costs_no_more_than_its_page(self):
        self.script(self.kit / "bin-bench/product_probe",
                    "echo '{\"repeats\": true}'")
        (self.kit / "tests.json").write_text("[{}]")
        proc = self.gpu_run("--only", "^(tests$|algorithms|limits|nvidia)")
        self.assertEqual(proc.returncode, 1, proc.stdout)
        self.assertIn("no page: KeyError", proc.stdout)
        status = self.statuses()
        self.assertEqual((status["tests"], status["limits"]), (FAILED, PASSED))

    def test_without_a_gpu_or_with_the_wrong_kit_nothing_runs(self):
        self.script(self.tools / "nvidia-smi", "exit 1")
        for options, about, text in (
                ((), {"emulated": False}, "no GPU"),
                ((), {"emulated": True}, "--emulate"),
                (("--emulate",), {"emulated": False}, "emulated kit")):
            self.about(**about)
            proc = self.gpu_run(*options)
            self.assertEqual(proc.returncode, 1)
            self.assertIn("stopped: ", proc.stdout)
            self.assertIn(text, proc.stdout)
            self.assertEqual(self.statuses(), {})

    def test_the_end_from_outside_prints_what_there_is(self):
        self.script(self.kit / "bin-test/op_test", "sleep 3000")
        process_ = subprocess.Popen(
            [sys.executable, BENCH / "run.py", "--kit", self.kit, "--out",
             self.out, "--only", "op.gemm|libraries"],
            stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PATH": f"{self.tools}:/usr/bin:/bin"})
        line = process_.stdout.readline()
        process_.send_signal(signal.SIGTERM)
        rest, _ = process_.communicate()
        self.assertIn("libraries", line)
        self.assertIn("start ", rest)
        self.assertEqual(process_.returncode, 128 + signal.SIGTERM)


class Options(cli.Case):
    def gpu_run(self, *arguments):
        return run(sys.executable, BENCH / "run.py", *arguments)

    def test_help_describes_every_option(self):
        text = self.gpu_run("--help").stdout
        for option in ("--out", "--kit", "--limit", "--rest", "--only",
                       "--emulate", "--list"):
            self.assertIn(option, text)

    def test_wrong_options_are_errors(self):
        for arguments, text in ((("--emulat",), "no kit.json"),
                                (("--limit", "0"), "positive"),
                                (("--nothing",), "--nothing"),
                                (("--rest", "/no/such"), "/no/such"),
                                (("--kit", "/no/such"), "kit.json")):
            proc = self.gpu_run(*arguments)
            self.assertEqual(proc.returncode, 2, proc.stderr)
            self.assertIn(text, proc.stderr)

    def test_limits_down_to_the_models_are_nine_minutes(self):
        names = [group.name for group in gpu_steps.GROUPS]
        first = gpu_steps.GROUPS[:names.index("models") + 1]
        self.assertLessEqual(sum(group.limit_s for group in first), 540)
        self.assertEqual(len(self.gpu_run("--list").stdout.splitlines()),
                         len(names))

    def test_commands_in_the_documentation_fit_in_a_line(self):
        text = (cli.SOURCE / "docs/gpu-run.md").read_text()
        commands = [c for c in re.findall(r"(?m)(?:^    .*\n)+", text)
                    if "$OUT" in c]
        self.assertEqual(len(commands), 2)
        for command in commands:
            self.assertLess(len(command), 2000)


BENCH_BIN = cli.BUILD / "bin-bench"


@unittest.skipUnless((BENCH_BIN / "op_times").exists(),
                     "built without benchmarks")
class Rehearsal(cli.Case):
    """The programs of this build, kernels/cuda run by the CPU."""

    def make_kit(self):
        kit = self.dir / "kit"
        kit.mkdir()
        for name in ("bin", "bin-test", "bin-bench", "golden"):
            (kit / name).symlink_to(cli.BUILD / name)
        (kit / "tests").symlink_to(cli.SOURCE / "tests")
        (kit / "kit.json").write_text(json.dumps(
            {"source": "abc", "digest": "def", "emulated": True}))
        (kit / "tests.json").write_text(json.dumps([
            {"name": f"op.{op}.cuda.bf16", "labels": ["cuda"], "timeout": 120,
             "env": {"MAGMAX_CUDA_MODULE":
                     "@KIT@/bin-test/libmagmax_cuda_on_cpu.so"},
             "command": [f"@KIT@/bin-test/op_test_{op}", "cuda:bf16"]}
            for op in ("fill", "layernorm")]))
        return kit

    def test_what_it_prints_is_understood(self):
        proc = run(sys.executable, BENCH / "run.py", "--kit", self.make_kit(),
                   "--out", self.dir / "out", "--emulate", "--limit", 3000, "--slower", 40,
                   "--only", "^(start|op[.]|training.ViT-B-16.128|variants|"
                   "algorithms|limits|ops.ViT-B-16.128.bf16|"
                   "attention[.]50|nccl|merge|memcheck)")
        view = gpu_results.View(gpu_results.read_records(
            self.dir / "out/results.jsonl"))
        failed = {n: r for n, r in view.steps.items() if r["status"] == FAILED}
        self.assertEqual(failed, {}, proc.stdout + proc.stderr)
        self.assertIn("REHEARSAL without a GPU", proc.stdout)
        self.assertFalse((self.dir / "out/gpu-results.md").exists())
        page = gpu_report.page(view)
        for line in ("The weights of 3 runs are the same, bit for bit.",
                     "| mistakes that were planted | not run |"):
            self.assertIn(line, page)


if __name__ == "__main__":
    cli.main()
