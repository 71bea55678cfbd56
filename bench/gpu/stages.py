"""The stages of bench/gpu/all.sh, which describes them and the options."""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

sys.dont_write_bytecode = True

from report import TRAINING, Results as Report, page
from results import Results, Step, end_all, json_lines, source_digest
from tools import (describe_machine, find_program, output_of, parse_ncu,
                       toolkit_hints)

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("build", "test", "sanitize", "time")
# Errors that calls return are ours to check, and some tests provoke them; of
# products, whose kernels are not ours, only what they are given is checked.
NOT_OURS = [word for name in ("gemm", "gemv", "cutlass", "cublas", "nvjet")
            for word in ("--kernel-name-exclude", f"kns={name}")]
SANITIZERS = {"memcheck": ["--report-api-errors", "no"], "racecheck": NOT_OURS,
              "initcheck": NOT_OURS, "synccheck": NOT_OURS}
PLANTED = ("memcheck", "racecheck", "initcheck")  # as bench/gpu/planted.cu
FOUND = 99
# What compute-sanitizer says of a machine that it cannot work on.
REFUSALS = ("Device not supported", "device is not supported",
            "Failed to initialize", "Unable to find", "not supported on this",
            "InitializationError", "initialization failed")
NCU_REFUSALS = ("there is no ncu", "LibraryNotLoaded", "ERR_NVGPUCTRPERM",
                "Failed to initialize", "No supported GPUs")


def say(text):
    print(f"gpu_all: {text}", file=sys.stderr, flush=True)


def parse_arguments():
    parser = argparse.ArgumentParser(prog="bench/gpu/all.sh", add_help=False)
    parser.add_argument("stages", nargs="*", metavar="STAGE")
    parser.add_argument("--out")
    parser.add_argument("--work", default="build/gpu")
    parser.add_argument("--packages", default="build/gpu-packages")
    parser.add_argument("--limit", type=float, default=520)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--only", type=re.compile, default=re.compile(""))
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--emulate", action="store_true")
    args = parser.parse_args()
    unknown = [s for s in args.stages if s not in STAGES]
    if unknown:
        parser.error(f"unknown stage '{unknown[0]}'; there are: "
                     + ", ".join(STAGES))
    if args.limit <= 0 or args.jobs <= 0:
        parser.error("--limit and --jobs must be positive")
    args.stages = args.stages or list(STAGES)
    args.work = Path(args.work).absolute()
    return args


class Session:
    """What the stages share."""

    def __init__(self, args):
        self.args = args
        self.emulate = args.emulate
        self.prefix = args.work / "prefix"
        self.build = args.work / ("emulated" if args.emulate else "release")
        machine = describe_machine(args.emulate)
        if machine["device"] is None and set(args.stages) != {"build"}:
            say("no GPU: nvidia-smi shows none. --emulate rehearses without one")
            sys.exit(1)
        machine["device"] = machine["device"] or "none"
        self.machine = machine
        self.results = Results(args.work / "results.jsonl", machine,
                               source_digest(ROOT), args.emulate, args.out)

    def use_packages(self):
        """Unpack them and run what follows with them."""
        packages = self.args.packages
        if packages == "none":
            return
        if not Path(packages).is_dir():
            say(f"no {packages}: make it where there is a network with "
                "bench/gpu/packages.sh, or give --packages none")
            sys.exit(1)
        subprocess.run([sys.executable, ROOT / "bench/gpu/prefix.py", packages,
                        self.prefix], check=True)
        os.environ["PATH"] = f"{self.prefix}/bin:{os.environ['PATH']}"
        for line in (self.prefix / "environment").read_text(
                encoding="utf-8").splitlines():
            name, value = line.removeprefix("export ").split("=", 1)
            os.environ[name] = value.strip("'")

    def module(self):
        """The CUDA backend that programs are to open."""
        return self.build / ("bin-test/libmagmax_cuda_on_cpu.so" if self.emulate
                             else "lib/magmax/libmagmax_cuda.so")


# ---- stages: the steps of each -----------------------------------------------

def build_steps(session):
    args = session.args
    configure = ["cmake", f"-DMAGMAX_PREFIX={session.prefix}"]
    if args.packages != "none":
        configure += ["-C", ROOT / "bench/gpu/prefix.cmake"]
    configure += [
        "-S", ROOT, "-B", session.build, "-G", "Ninja",
        "-DCMAKE_BUILD_TYPE=Release", "-DMAGMAX_BENCH=ON", "-DMAGMAX_TESTS=ON",
        "-DMAGMAX_CUDA=ON", f"-DPython3_EXECUTABLE={sys.executable}",
        "-DMAGMAX_TEST_CUDA=" + ("emulated" if session.emulate else "gpu")]
    settings, env = toolkit_hints()
    configure += settings
    capability = session.machine["compute_capability"]
    if capability:
        configure.append("-DCMAKE_CUDA_ARCHITECTURES="
                         + capability.replace(".", ""))
    return [Step("configure", configure, env, timeout=300),
            Step("build", ["ninja", "-C", session.build, "-j", args.jobs], env,
                 timeout=3600)]


def ctest_cases(session):
    """The tests of the device cuda: name, command, environment."""
    text = output_of("ctest", "--test-dir", str(session.build),
                     "--show-only=json-v1")
    if not text:
        say("no tests: run the stage build first")
        sys.exit(1)
    cases = []
    for test in json.loads(text)["tests"]:
        properties = {p["name"]: p["value"] for p in test["properties"]}
        env = dict(e.split("=", 1) for e in properties.get("ENVIRONMENT", []))
        module = env.get("MAGMAX_CUDA_MODULE", "")
        if session.emulate:
            wanted = re.search(r"\.cuda\b|_cuda$", test["name"])
        else:
            wanted = (module == str(session.module()) and
                      re.search(r"\.cuda\b", test["name"])
                      or test["name"].endswith("_gpu"))
        if not wanted:
            continue
        # ctest leaves the command out where the program is not built.
        command = test.get("command", [test["name"] + ": program not built"])
        cases.append(Step(test["name"], command, env,
                          timeout=600, cwd=ROOT))
    return cases


def test_steps(session):
    return ctest_cases(session)


def sanitize_steps(session):
    """First whether the tools find what was planted."""
    program = find_program("compute-sanitizer") or "compute-sanitizer"

    def checked(name, tool, command, **more):
        return Step(f"{name}.{tool}",
                    [program, "--tool", tool, "--error-exitcode", FOUND,
                     *SANITIZERS[tool], *command],
                    timeout=180, refusals=REFUSALS, cwd=ROOT, **more)

    planted = session.build / "bin-bench/gpu/planted"
    steps = [checked("planted", tool, [planted, tool], wanted_code=FOUND)
             for tool in PLANTED]
    steps += [checked(case.name, tool, case.command, env=case.env)
              for case in ctest_cases(session) if case.name.startswith("op.")
              for tool in SANITIZERS]
    return steps


def why_not_sanitized(session, steps):
    """A reason to run none of them, or None. The first one is the trial."""
    if session.emulate:
        return "no device: emulated"
    if not find_program("compute-sanitizer"):
        return "compute-sanitizer is missing"
    first = session.results.done("sanitize").get(steps[0].name) \
        or session.results.run("sanitize", steps[0])
    return first["reason"] if first and first["status"] == "not run" else None


def training_steps(session, env):
    """A training step beside PyTorch's; what is compared is one step's name."""
    small = session.emulate
    program = session.build / "bin-bench/vit_step"
    for model, batch, precision in TRAINING[:1] if small else TRAINING:
        name = f"training.{model}.{batch}.{precision}"
        if small:
            model, batch = ROOT / "tests/golden/tiny/model.json", 2
        steps = 1 if small else 20
        yield Step(name, [
            sys.executable, ROOT / "bench/gpu/step_torch.py", model, batch,
            precision, 1 if small else 3, steps, "cpu" if small else "cuda",
            "--", program, model, batch, steps, "train", f"cuda:{precision}"],
            env, timeout=300, parse=json_lines)


def time_steps(session):
    small = session.emulate
    env = {"MAGMAX_CUDA_MODULE": str(session.module()),
           "TORCHINDUCTOR_CACHE_DIR": str(session.args.work / "inductor"),
           "OMP_NUM_THREADS": str(min(4, os.cpu_count()))}
    bench, bin_folder = session.build / "bin-bench", session.build / "bin"
    quick = ["--quick"] if small else []
    tiny = ROOT / "tests/golden/tiny/model.json"
    steps = [Step("limits", [bench / ("gpu_limits_on_cpu" if small
                                      else "gpu_limits"), *quick],
                  env, timeout=120, parse=json_lines)]
    for model, batch, precision in TRAINING:
        steps.append(Step(
            f"ops.{model}.{batch}.{precision}",
            [bench / "op_times", f"cuda:{precision}", tiny if small else model,
             2 if small else batch, *quick], env, parse=json_lines))
    # As in attention_torch.py.
    for model, batch, tokens in (("ViT-B-32", 128, 50), ("ViT-B-16", 128, 197),
                                 ("ViT-L-14", 128, 257), ("ViT-L-14", 32, 577)):
        steps.append(Step(
            f"attention.{tokens}",
            [bench / "op_times", "cuda:bf16", tiny if small else model,
             2 if small else batch, "--tokens", 9 if small else tokens,
             "--only", "attention", *quick], env, parse=json_lines))
    steps.append(Step("attention.PyTorch",
                      [sys.executable, ROOT / "bench/gpu/attention_torch.py",
                       *quick], env, parse=json_lines))
    steps += training_steps(session, env)
    steps.append(Step("merge", [sys.executable, ROOT / "bench/gpu/merge.py",
                                bin_folder, session.args.work / "merge",
                                1 if small else 3, *quick],
                      env, timeout=400, parse=json_lines))
    steps.append(Step(
        "kernels.ViT-B-16.128.bf16",
        [find_program("ncu") or "ncu", "--clock-control", "none", "--csv",
         "--page", "raw", "--print-units", "base",
         "--metrics", "gpu__time_duration.sum,dram__bytes.sum",
         bench / "vit_step", "ViT-B-16", 128, 1, "train", "cuda:bf16"],
        {**env, "LC_ALL": "C"}, timeout=240, parse=parse_ncu,
        refusals=NCU_REFUSALS))
    return steps


# ---- running them -----------------------------------------------------------

def run_stage(session, stage):
    """How many steps failed, and how many the limit left over."""
    args, results = session.args, session.results
    if args.again or stage == "build":
        results.forget(stage)
    results.begin_stage(args.limit)
    steps = [s for s in {"build": build_steps, "test": test_steps,
                         "sanitize": sanitize_steps,
                         "time": time_steps}[stage](session)
             if args.only.search(s.name)]
    jobs = {"build": 1, "time": 1, "test": min(args.jobs, 4),
            "sanitize": min(args.jobs, 8)}[stage]
    if stage == "sanitize" and steps:
        reason = why_not_sanitized(session, steps)
        if reason:
            done = results.done(stage)
            for step in steps:
                if step.name not in done:
                    results.add(stage, step.name, "not run", reason=reason)
    n_left = results.run_all(stage, steps, jobs)
    names = {s.name for s in steps}
    ended = [r for n, r in results.done(stage).items() if n in names]
    n_failed = sum(r["status"] == "failed" for r in ended)
    n_passed = sum(r["status"] == "passed" for r in ended)
    print(f"{stage}: {n_passed} passed, {n_failed} failed, "
          f"{len(ended) - n_passed - n_failed} not run, {n_left} left over",
          flush=True)
    return n_failed, n_left


def main():
    args = parse_arguments()
    os.chdir(ROOT)
    signal.signal(signal.SIGTERM, end_all)
    # Where pip has put CMake and ninja.
    os.environ["PATH"] += f"{os.pathsep}{Path(sys.executable).parent}"
    session = Session(args)
    session.use_packages()
    n_failed = n_left = 0
    for stage in args.stages:
        failed, left = run_stage(session, stage)
        n_failed += failed
        n_left += left
        if stage == "build" and failed + left:
            break
    if args.out:
        report = page(Report(session.results.records()))
        (Path(args.out) / "gpu-results.md").write_text(report, encoding="utf-8")
    if n_left:
        say("not finished: give the same command again")
        return 3
    return 1 if n_failed else 0


sys.exit(main())
