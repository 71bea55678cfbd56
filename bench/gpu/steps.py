"""The list of what bench/gpu/run.py does, in order of worth: what comes late can
be cut off without losing what came before. To change the order, or a limit, edit
GROUPS, at the end."""

import json
import os
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from machine import find_program
from ncu import REFUSALS as NCU_REFUSALS, parse_ncu
from process import Step, json_lines

HERE = Path(__file__).resolve().parent

# Towers, batches and precisions that are trained beside PyTorch.
MAIN = ("ViT-B-16", 128, "bf16")
LARGE = ("ViT-L-14", 64, "bf16")
OTHERS = (("ViT-B-32", 128, "bf16"), ("ViT-B-16", 256, "bf16"),
          ("ViT-B-16", 128, "tf32"))
# As in attention_torch.py: model, batch, tokens.
LENGTHS = (("ViT-B-16", 128, 197), ("ViT-L-14", 128, 257),
           ("ViT-B-32", 128, 50), ("ViT-L-14", 32, 577))

# Errors that calls return are ours to check, and some tests provoke them; of
# products, whose kernels are not ours, only what they are given is checked.
NOT_OURS = [word for name in ("gemm", "gemv", "cutlass", "cublas", "nvjet")
            for word in ("--kernel-name-exclude", f"kns={name}")]
SANITIZERS = {"memcheck": ["--report-api-errors", "no"], "racecheck": NOT_OURS,
              "initcheck": NOT_OURS, "synccheck": NOT_OURS}
PLANTED = ("memcheck", "racecheck", "initcheck")  # as planted.cu
FOUND = 99
# What compute-sanitizer says of a machine that it cannot work on.
SANITIZER_REFUSALS = ("Device not supported", "device is not supported",
                      "Failed to initialize", "Unable to find",
                      "not supported on this", "InitializationError",
                      "initialization failed")
# Op tests that go first through the sanitizers, and which of their tests.
SANITIZED = ("attention.cuda.bf16", "layernorm.cuda.bf16",
             "linear_grad.cuda.bf16", "softmax_cross_entropy.cuda")
SANITIZED_TESTS = "*match_double_precision"
# Tests that are seconds under emulation.
REHEARSED = ("op.linear.cuda.bf16", "op.layernorm.cuda.bf16",
             "op.fill.cuda.bf16", "op.softmax_cross_entropy.cuda")


@dataclass
class Group:
    name: str
    limit_s: float
    jobs: int    # more than one only where nothing is timed
    steps: object
    vital: bool = False  # where it fails, only what finds faults runs
    finds_faults: bool = False


class Kit:
    """The ready-made folder, and how its programs are called."""

    def __init__(self, folder, emulate, out):
        self.folder = Path(folder).resolve()
        self.emulate = emulate
        self.out = Path(out).resolve()
        self.about = json.loads((self.folder / "kit.json").read_text(
            encoding="utf-8"))
        names = (("bin-test/libmagmax_cuda_on_cpu.so",
                  "bin-test/libmagmax_nccl_on_cpu.so") if emulate else
                 ("lib/magmax/libmagmax_cuda.so",
                  "lib/magmax/libmagmax_nccl.so"))
        self.modules = [self.folder / name for name in names]
        self.bench_env = {"MAGMAX_CUDA_MODULE": str(self.modules[0]),
                          "MAGMAX_NCCL_MODULE": str(self.modules[1]),
                          "OMP_WAIT_POLICY": "passive",
                          "OMP_NUM_THREADS": str(min(16, os.cpu_count()))}

    def bench(self, program):
        return self.folder / "bin-bench" / program

    def python(self, script, *arguments):
        return [sys.executable, HERE / script, *arguments]

    def sizes(self, model, batch):
        """Those; in a rehearsal a tiny model's."""
        if self.emulate:
            return self.folder / "golden/tiny/model.json", 2
        return model, batch

    def tests(self):
        """Tests of the device cuda, as tests.json has them."""
        listed = json.loads((self.folder / "tests.json").read_text(
            encoding="utf-8"))
        return [Step(t["name"], [self.resolve(word) for word in t["command"]],
                     {k: self.resolve(v) for k, v in t["env"].items()},
                     timeout=min(t["timeout"], 60), cwd=self.folder)
                for t in listed if "cuda" in t["labels"]
                and (not self.emulate or t["name"] in REHEARSED)]

    def resolve(self, word):
        return str(word).replace("@KIT@", str(self.folder))


def name_of(what, model, batch, precision):
    return f"{what}.{model}.{batch}.{precision}"


# ---- the steps of each group ------------------------------------------------

def start(kit):
    model, batch = kit.sizes("ViT-B-16", 8)
    smi = find_program("nvidia-smi")
    return [
        Step("nvidia-smi", [smi or "nvidia-smi"], parse=str.splitlines,
             not_run="no device: emulated" if kit.emulate else None),
        Step("libraries", kit.python("machine.py", *kit.modules),
             parse=json_lines),
        *(replace(t, name=f"start.{t.name}") for t in kit.tests()
          if t.name == "op.fill.cuda.bf16"),
        Step("start.step", [kit.bench("vit_step"), model, batch, 1, "train",
                            "cuda:bf16"], kit.bench_env, parse=json_lines)]


def is_first_test(name):
    return name.startswith(("op.", "unit.", "parity.vit"))


def place_of(name):
    """Ops first; bf16, then tf32, then fp32."""
    return (not name.startswith("op."), ".bf16" not in name,
            ".tf32" not in name)


def tests(kit):
    """PyTorch compiles meanwhile what it is timed with later."""
    chosen = [t for t in kit.tests() if is_first_test(t.name)]
    chosen.sort(key=lambda t: place_of(t.name))
    return [training_step(kit, *MAIN, prepare=True), *chosen]


def training(kit):
    model, batch = kit.sizes(*MAIN[:2])
    return [Step(name_of("training", *MAIN), kit.python(
        "alternate.py", 3, "--", kit.bench("vit_step"), model, batch,
        1 if kit.emulate else 30, "train", "cuda:bf16"), kit.bench_env,
        parse=json_lines)]


def variants(kit):
    """cuBLASLt's algorithms, then every variant for as long as there is time."""
    model, batch = kit.sizes(*MAIN[:2])
    table = kit.out / "product_table.inc"
    probe = [kit.bench("product_probe"), "--seconds", 15, "--table", table]
    if kit.emulate:
        probe = [kit.bench("product_probe_on_cpu"), "--quick", "--table", table,
                 model, batch]
    return [
        Step("algorithms", probe, kit.bench_env, timeout=25, parse=json_lines),
        Step("variants", kit.python(
            "alternate.py", "--variants", 1 if kit.emulate else 3, "--",
            kit.bench("vit_step"), model, batch, 1 if kit.emulate else 20,
            "train", "cuda:bf16"),
            {**kit.bench_env, "MAGMAX_CUDA_ALGORITHMS": str(table)},
            timeout=150, parse=json_lines)]


def op_times(kit, what, model, batch, precision, *more):
    sized, images = kit.sizes(model, batch)
    quick = ["--quick"] if kit.emulate else []
    return Step(what, [kit.bench("op_times"), f"cuda:{precision}", sized, images,
                       *more, *quick], kit.bench_env, parse=json_lines)


def ops(kit):
    limits = "gpu_limits_on_cpu" if kit.emulate else "gpu_limits"
    quick = ["--quick"] if kit.emulate else []
    return [Step("limits", [kit.bench(limits), *quick], kit.bench_env,
                 parse=json_lines),
            op_times(kit, name_of("ops", *MAIN), *MAIN),
            *(op_times(kit, f"attention.{tokens}", model, batch, "bf16",
                       "--tokens", 9 if kit.emulate else tokens,
                       "--only", "attention")
              for model, batch, tokens in LENGTHS)]


def kernels(kit):
    model, batch = kit.sizes(*MAIN[:2])
    program = find_program("ncu")
    return [Step(
        name_of("kernels", *MAIN),
        [program or "ncu", "--clock-control", "none", "--cache-control", "none",
         "--csv", "--page", "raw", "--print-units", "base",
         "--metrics", "gpu__time_duration.sum,dram__bytes.sum",
         kit.bench("vit_step"), model, batch, 1, "train", "cuda:bf16"],
        {**kit.bench_env, "LC_ALL": "C"}, parse=parse_ncu,
        refusals=NCU_REFUSALS,
        not_run="no device: emulated" if kit.emulate else None)]


def attention(kit):
    quick = ["--quick"] if kit.emulate else []
    return [Step("attention.PyTorch", kit.python("attention_torch.py", *quick),
                 kit.bench_env, parse=json_lines, refusals=("not run",))]


def training_step(kit, model, batch, precision, prepare=False):
    """Rounds beside PyTorch; to prepare, only what PyTorch compiles for it."""
    sized, images = kit.sizes(model, batch)
    steps = 1 if kit.emulate else 20
    return Step(
        name_of("prepare" if prepare else "PyTorch", model, batch, precision),
        kit.python("step_torch.py", sized, images, precision,
                   0 if prepare else 1 if kit.emulate else 3, steps,
                   "cpu" if kit.emulate else "cuda", "--",
                   kit.bench("vit_step"), sized, images, steps, "train",
                   f"cuda:{precision}"),
        kit.bench_env, timeout=150, least=20 if not kit.emulate else 3,
        parse=json_lines)


def pytorch(kit):
    return [training_step(kit, *MAIN)]


def passed_tests(output):
    """How many op tests passed: a pattern that fits none must not."""
    n_passed = int(re.search(r"PASSED\s*\] (\d+) test", output).group(1))
    if not n_passed:
        raise ValueError("no test ran")
    return n_passed


def sanitized(kit, name, tool, command, **more):
    program = find_program("compute-sanitizer")
    reason = "no device: emulated" if kit.emulate else \
        None if program else "compute-sanitizer is missing"
    return Step(f"{tool}.{name}",
                [program or "compute-sanitizer", "--tool", tool,
                 "--error-exitcode", FOUND, *SANITIZERS[tool], *command],
                refusals=SANITIZER_REFUSALS, not_run=reason, cwd=kit.folder,
                **more)


def planted(kit):
    """Whether the tools find what was planted; without, they prove nothing."""
    return [sanitized(kit, "planted", tool,
                      [kit.bench("gpu_planted"), tool], wanted_code=FOUND)
            for tool in PLANTED]


def sanitizers(kit, tools=("memcheck", "racecheck"), first=True):
    steps = []
    for tool in tools:
        for test in kit.tests():
            name = test.name.removeprefix("op.")
            if not test.name.startswith("op.") or (first and
                                                   name not in SANITIZED):
                continue
            pattern = [SANITIZED_TESTS] if name in SANITIZED else []
            steps.append(sanitized(
                kit, name, tool, test.command + pattern, env=test.env,
                parse=passed_tests,
                needs=f"{tool}.planted" if tool in PLANTED else None))
    return steps


def models(kit):
    """The other towers, briefly; NCCL; the golden numbers."""
    steps = []
    for model, batch, precision in (LARGE, *OTHERS[:2]):
        sized, images = kit.sizes(model, batch)
        steps.append(Step(
            name_of("training", model, batch, precision), kit.python(
                "alternate.py", 1, "--", kit.bench("vit_step"), sized, images,
                1 if kit.emulate else 20, "train", f"cuda:{precision}"),
            kit.bench_env, parse=json_lines))
    steps.append(Step("nccl_alone", [kit.bench("nccl_alone"), "cuda",
                                     *([1000] if kit.emulate else [])],
                      kit.bench_env, parse=json_lines))
    first = ("parity.runs_gpu", "parity.clip.cuda.bf16", "parity.clip.cuda")
    return steps + sorted((t for t in kit.tests() if t.name in first),
                          key=lambda t: first.index(t.name))


def large(kit):
    return [training_step(kit, *LARGE)]


def other_tests(kit):
    done = {s.name for s in models(kit)}
    return [t for t in kit.tests()
            if not is_first_test(t.name) and t.name not in done]


def other_models(kit):
    return [*(training_step(kit, *other) for other in OTHERS),
            *(op_times(kit, name_of("ops", *other), *other)
              for other in (LARGE, *OTHERS[::2]))]


def merging(kit):
    quick = ["--quick"] if kit.emulate else []
    return [Step("merge", kit.python("merge.py", kit.folder / "bin",
                                     1 if kit.emulate else 3, *quick),
                 kit.bench_env, timeout=150, parse=json_lines)]


def other_sanitizers(kit):
    first = {s.name for s in sanitizers(kit)}
    return [s for s in sanitizers(kit, SANITIZERS, first=False)
            if s.name not in first]


# ---- the list ---------------------------------------------------------------

# Seconds of the groups down to "models" are nine minutes together; what these
# leave goes to those below.
GROUPS = (
    #     name                seconds  at once
    Group("start",                 40, 1, start, vital=True),
    Group("tests",                 75, 5, tests, finds_faults=True),
    Group("training",              25, 1, training),
    Group("variants",              70, 1, variants),
    Group("ops",                   40, 1, ops),
    Group("kernels",               35, 1, kernels),
    Group("attention",             20, 1, attention),
    Group("PyTorch",               95, 1, pytorch),
    Group("planted faults",        15, 3, planted, finds_faults=True),
    Group("sanitizers",            75, 8, sanitizers, finds_faults=True),
    Group("models",                50, 1, models),
    Group("L-14 and PyTorch",     110, 1, large),
    Group("other tests",           90, 4, other_tests, finds_faults=True),
    Group("other models",         200, 1, other_models),
    Group("merging",              100, 1, merging),
    Group("other sanitizers",     200, 8, other_sanitizers),
)
