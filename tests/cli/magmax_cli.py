"""What the tests of the programs share: run one, make its inputs, check it.

A test is a file test_X.py beside this one:

    import magmax_cli as cli

    class Merge(cli.Case):
        def test_unknown_method_names_the_known_ones(self):
            proc = cli.run("magmax_merge", "--method", "magmx", n_ranks=2)
            self.assert_one_line_error(proc, "magmx", "magmax", "average")

    if __name__ == "__main__":
        cli.main()

Under ctest the environment names the build; by hand, set MAGMAX_BIN to its
"bin" folder (default: build/release/bin) and run the file with python3.
"""

import contextlib
import hashlib
import json
import os
import re
import signal
import struct
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

import h5py
import numpy as np

SOURCE = Path(os.environ.get("MAGMAX_SOURCE")
              or Path(__file__).resolve().parents[2])
BIN = Path(os.environ.get("MAGMAX_BIN") or SOURCE / "build/release/bin")
TEST_BIN = Path(os.environ.get("MAGMAX_TEST_BIN") or BIN.parent / "bin-test")
BUILD = Path(os.environ.get("MAGMAX_BUILD") or BIN.parent)
GOLDEN = Path(os.environ.get("MAGMAX_GOLDEN") or BUILD / "golden")

# The GPUs of the tests, and their sums over ranks.
CUDA_ON_CPU = str(os.environ.get("MAGMAX_CUDA_ON_CPU")
                  or TEST_BIN / "libmagmax_cuda_on_cpu.so")
NCCL_ON_CPU = str(os.environ.get("MAGMAX_NCCL_ON_CPU")
                  or TEST_BIN / "libmagmax_nccl_on_cpu.so")
SANITIZED = os.environ.get("MAGMAX_SANITIZED") == "1"

# Until something that a test waits for is given up: only what hangs takes so
# long, on a machine however slow. Tests say nothing of time.
DEADLINE_S = 1200

MPI_ENV = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMP_WAIT_POLICY": "passive",
}


# ---- running programs -------------------------------------------------------

class Finished:
    """What a program left: returncode (negative: ended by that signal),
    stdout, stderr, args, seconds."""

    def __init__(self, args, returncode, stdout, stderr, seconds):
        self.args = [str(a) for a in args]
        self.returncode = returncode
        self.stdout = stdout
        self.stderr = stderr
        self.seconds = seconds

    def __str__(self):
        return (f"$ {' '.join(self.args)}\n"
                f"exit code {self.returncode} after {self.seconds:.1f} s\n"
                f"--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}\n---")

    def json(self):
        """stdout, which must be exactly one JSON document."""
        try:
            return json.loads(self.stdout)
        except ValueError as error:
            raise AssertionError(
                f"stdout is no JSON: {error}\n{self}") from error


def command(program, *args, n_ranks=None):
    """The command line of run(): a name is looked up in the build's bin and
    bin-test folders; with n_ranks it runs under mpirun, else without."""
    program = str(program)
    if "/" not in program:
        for folder in (BIN, TEST_BIN):
            if (folder / program).exists():
                program = str(folder / program)
                break
        else:
            raise FileNotFoundError(
                f"{program} is neither in {BIN} nor in {TEST_BIN}")
    line = [program, *map(str, args)]
    if n_ranks is not None:
        # Signals are not passed on: an mpirun that gets SIGCONT would pass it on
        # to a rank that a test has stopped.
        line = ["mpirun", "--mca", "ess_base_forward_signals", "none",
                "--oversubscribe", "--bind-to", "none", "-np", str(n_ranks),
                *line]
    return line


def environment(env=None):
    """The environment of run(): this one's, MPI's needs, then `env` (a value
    of None removes a variable)."""
    full = {**os.environ, **MPI_ENV}
    full.setdefault("OMP_NUM_THREADS", "1")
    for name, value in (env or {}).items():
        if value is None:
            full.pop(name, None)
        else:
            full[name] = str(value)
    return full


def start(program, *args, n_ranks=None, env=None, cwd=None, **popen):
    """As run(), without waiting: a Popen in a process group of its own."""
    return subprocess.Popen(
        command(program, *args, n_ranks=n_ranks), env=environment(env),
        cwd=cwd, start_new_session=True, **popen)


def stop(process):
    """End a process of start(), and what it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(5)
        return
    kill(process)


def kill(process):
    """End a process of start() and its ranks at once, and wait until they are
    gone: ranks have process groups of their own, and outlive their mpirun for a
    while."""
    ranks = list(pids_by_rank(process).values())
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for pid in ranks:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
    wait_until(lambda: not any(map(runs, ranks)), lambda: "ranks were gone")


def runs(pid):
    """Whether there is such a process, other than a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text.rsplit(")", 1)[1].split()[0] not in "ZX"


def wait_until(is_so, what, process=None):
    """Until is_so() is true. `what`: gives the message where it never is, or
    where the process that it is to come from ends before."""
    end = time.monotonic() + DEADLINE_S
    while not is_so():
        if process and process.poll() is not None and not is_so():
            raise AssertionError(
                f"ended with {process.returncode} before {what()}")
        if time.monotonic() > end:
            raise AssertionError(f"waited {DEADLINE_S} s until {what()}")
        time.sleep(0.02)


def rank_of(pid):
    """The rank that a process of mpirun is; None for another process."""
    try:
        text = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None
    found = re.search(rb"(?:^|\0)OMPI_COMM_WORLD_RANK=(\d+)\0", text)
    return int(found.group(1)) if found else None


def pids_by_rank(mpirun):
    """{rank: process} of an mpirun that start() gave."""
    children = Path(f"/proc/{mpirun.pid}/task/{mpirun.pid}/children")
    try:
        pids = list(map(int, children.read_text().split()))
    except OSError:
        return {}
    ranks = {rank_of(pid): pid for pid in pids}
    ranks.pop(None, None)
    return ranks


def run(program, *args, n_ranks=None, env=None, cwd=None, stdin=None):
    """Run a program to its end and return a Finished. `stdin`: text.
    One that does not end fails the test."""
    begin = time.monotonic()
    process = start(program, *args, n_ranks=n_ranks, env=env, cwd=cwd,
                    stdin=subprocess.PIPE if stdin is not None
                    else subprocess.DEVNULL,
                    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                    errors="replace")
    try:
        out, err = process.communicate(stdin, DEADLINE_S)
    except subprocess.TimeoutExpired:
        stop(process)
        out, err = process.communicate()
        raise AssertionError(f"still running after {DEADLINE_S} s\n" + str(
            Finished(process.args, process.returncode, out, err,
                     time.monotonic() - begin))) from None
    finally:
        if process.poll() is None:
            stop(process)
    return Finished(process.args, process.returncode, out, err,
                    time.monotonic() - begin)


def run_ok(program, *args, **options):
    """As run(); the program must succeed."""
    proc = run(program, *args, **options)
    assert proc.returncode == 0, f"failed\n{proc}"
    return proc


# ---- what stderr says -------------------------------------------------------

def stderr_lines(proc):
    """Lines of stderr without mpirun's banners and empty lines."""
    lines, inside = [], False
    for line in proc.stderr.splitlines():
        if re.fullmatch(r"-{40,}", line.strip()):
            inside = not inside
        elif not inside and line.strip() and not line.startswith("[warn] "):
            lines.append(line)
    return lines


def error_lines(proc):
    """The lines "program: what went wrong"; warnings are none."""
    program = next(Path(a).name for a in proc.args
                   if Path(a).name.startswith("magmax"))
    return [line for line in stderr_lines(proc)
            if line.startswith(f"{program}: ")
            and not line.startswith(f"{program}: warning: ")]


def assert_one_line_error(proc, *fragments):
    """The program failed by itself, saying why in exactly one line "program:
    ..." that holds every fragment (upper and lower case alike); no sanitizer
    spoke, no rank was killed."""
    assert proc.returncode != 0, f"expected a failure\n{proc}"
    assert 0 < proc.returncode < 126, f"ended by a signal\n{proc}"
    for sign in ("AddressSanitizer", "LeakSanitizer", "runtime error:",
                 "MPI_ABORT", "exited on signal", "Assertion"):
        assert sign not in proc.stderr, f"found {sign!r}\n{proc}"
    lines = error_lines(proc)
    assert len(lines) == 1, f"{len(lines)} error lines, not one\n{proc}"
    for fragment in fragments:
        assert str(fragment).lower() in lines[0].lower(), \
            f"the error does not name {fragment!r}\n{proc}"
    return lines[0]


# ---- what a folder holds ----------------------------------------------------

def listing(folder):
    """{path below folder: digest of the content} of all files and folders."""
    folder, found = Path(folder), {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = "-> " + os.readlink(path)
        elif path.is_dir():
            found[name + "/"] = ""
        elif path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


@contextlib.contextmanager
def unchanged(folder, but=()):
    """The body adds, changes and removes no file of a folder, except names
    that match one of the regular expressions `but`."""
    before = listing(folder)
    yield
    after = listing(folder)
    for name in sorted(before.keys() | after.keys()):
        if any(re.fullmatch(pattern, name) for pattern in but):
            continue
        if before.get(name) != after.get(name):
            what = ("left behind" if name not in before
                    else "removed" if name not in after else "changed")
            raise AssertionError(f"{what}: {name} in {folder}")


def temporary_folder():
    """A tempfile.TemporaryDirectory for one test."""
    return tempfile.TemporaryDirectory(prefix="magmax-test-")


# ---- inputs -----------------------------------------------------------------

def make_model(path, image_size=8, patch_size=4, width=16, layers=2,
               head_width=8, embed_dim=8, quick_gelu=False, **vision):
    """Write a small model's JSON; returns the configuration. Further keyword
    arguments go into vision_cfg."""
    config = {
        "embed_dim": embed_dim,
        "quick_gelu": quick_gelu,
        "vision_cfg": {
            "image_size": image_size, "patch_size": patch_size,
            "width": width, "layers": layers, "head_width": head_width,
            **vision},
    }
    Path(path).write_text(json.dumps(config, indent=1) + "\n")
    return config


def model_shapes(config):
    """{name: shape} of a configuration's image tower, in open_clip's order."""
    vision = config["vision_cfg"]
    width, patch = vision["width"], vision["patch_size"]
    hidden = int(width * vision.get("mlp_ratio", 4.0))
    tokens = (vision["image_size"] // patch) ** 2 + 1
    shapes = {
        "visual.class_embedding": (width,),
        "visual.positional_embedding": (tokens, width),
        "visual.proj": (width, config["embed_dim"]),
        "visual.conv1.weight": (width, 3, patch, patch),
        "visual.ln_pre.weight": (width,),
        "visual.ln_pre.bias": (width,),
    }
    for layer in range(vision["layers"]):
        block = f"visual.transformer.resblocks.{layer}."
        shapes.update({block + name: shape for name, shape in {
            "ln_1.weight": (width,), "ln_1.bias": (width,),
            "attn.in_proj_weight": (3 * width, width),
            "attn.in_proj_bias": (3 * width,),
            "attn.out_proj.weight": (width, width),
            "attn.out_proj.bias": (width,),
            "ln_2.weight": (width,), "ln_2.bias": (width,),
            "mlp.c_fc.weight": (hidden, width), "mlp.c_fc.bias": (hidden,),
            "mlp.c_proj.weight": (width, hidden),
            "mlp.c_proj.bias": (width,)}.items()})
    shapes["visual.ln_post.weight"] = (width,)
    shapes["visual.ln_post.bias"] = (width,)
    return shapes


def random_weights(config, seed=0, scale=1.0):
    """{name: fp32 array} for a configuration: layer norms near the identity,
    matrices with the deviation that keeps activations near one."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, shape in model_shapes(config).items():
        noise = rng.standard_normal(shape).astype(np.float32)
        if ".ln_" in name:
            value = 0.02 * noise + np.float32(name.endswith("weight"))
        elif name == "visual.proj":
            value = noise / np.sqrt(shape[0])
        elif len(shape) > 1 and name != "visual.positional_embedding":
            value = noise / np.sqrt(np.prod(shape[1:]))
        else:
            value = 0.1 * noise
        weights[name] = (scale * value).astype(np.float32)
    return weights


def write_safetensors(path, tensors, metadata=None):
    """Write {name: array} as a safetensors file."""
    kinds = {"float32": "F32", "float64": "F64", "float16": "F16",
             "uint8": "U8", "int8": "I8", "int16": "I16", "int32": "I32",
             "int64": "I64", "bool": "BOOL"}
    header, offset, blobs = {}, 0, []
    if metadata:
        header["__metadata__"] = metadata
    for name, array in tensors.items():
        array = np.ascontiguousarray(array)
        blobs.append(array.tobytes())
        header[name] = {"dtype": kinds[array.dtype.name],
                        "shape": list(np.shape(tensors[name])),
                        "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    Path(path).write_bytes(struct.pack("<Q", len(text)) + text
                           + b"".join(blobs))


def read_safetensors(path):
    """{name: array} of a safetensors file, in the file's order."""
    kinds = {"F32": np.float32, "F64": np.float64, "F16": np.float16,
             "U8": np.uint8, "I8": np.int8, "I16": np.int16,
             "I32": np.int32, "I64": np.int64, "BOOL": np.bool_}
    data = Path(path).read_bytes()
    length, = struct.unpack("<Q", data[:8])
    tensors = {}
    for name, entry in json.loads(data[8:8 + length]).items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        tensors[name] = np.frombuffer(
            data[8 + length + begin:8 + length + end],
            kinds[entry["dtype"]]).reshape(entry["shape"])
    return tensors


def read_checkpoint(path):
    """{name: array} of a checkpoint's /model group."""
    with h5py.File(path, "r") as file:
        return {name: data[()] for name, data in file["model"].items()}


def make_npz(path, n_train=64, n_test=32, n_classes=4, size=8, seed=0,
             grey=False, n_domains=0, compressed=False, **arrays):
    """Write a data set of noisy class patterns, learnable in a few steps, with
    every class equally often; returns its arrays. Keyword arguments replace
    arrays by name, or remove them (None)."""
    rng = np.random.default_rng(seed)
    shape = (size, size) if grey else (size, size, 3)
    patterns = rng.integers(40, 216, (n_classes, *shape))
    data = {}
    for split, n in (("train", n_train), ("test", n_test)):
        labels = rng.permutation(np.arange(n) % n_classes)
        noise = rng.normal(0, 20, (n, *shape))
        images = np.clip(patterns[labels] + noise, 0, 255)
        if n_domains:
            domains = rng.permutation(np.arange(n) % n_domains)
            odd = domains % 2 == 1
            images[odd] = 255 - images[odd]
            data[f"{split}_domains"] = domains.astype(np.int64)
        data[f"{split}_images"] = images.astype(np.uint8)
        data[f"{split}_labels"] = labels.astype(np.int64)
    data.update(arrays)
    data = {name: value for name, value in data.items() if value is not None}
    (np.savez_compressed if compressed else np.savez)(path, **data)
    return data


def make_head(path, n_classes=4, embed_dim=8, scale=20.0, seed=0):
    """Write a head of orthonormal rows (random ones where there are more rows
    than dimensions) times `scale`, as HDF5, or as safetensors by the name;
    returns the array."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n_classes, embed_dim))
    if n_classes <= embed_dim:
        rows = np.linalg.qr(rows.T)[0].T
    else:
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    weight = np.ascontiguousarray(scale * rows, np.float32)
    if str(path).endswith(".safetensors"):
        write_safetensors(path, {"weight": weight})
    else:
        with h5py.File(path, "w") as file:
            file["weight"] = weight
    return weight


def assert_same_weights(a, b, what="weights"):
    """Two {name: array} hold the same names, shapes and bits."""
    assert list(sorted(a)) == list(sorted(b)), \
        f"{what}: other names: {sorted(a.keys() ^ b.keys())}"
    for name in a:
        assert a[name].shape == b[name].shape, f"{what}: shape of {name}"
        same = a[name].tobytes() == b[name].tobytes()
        assert same, (f"{what}: {name} differs by up to "
                      f"{np.abs(a[name] - b[name]).max()}")


# ---- test cases -------------------------------------------------------------

class Case(unittest.TestCase):
    """A test with a temporary folder `self.dir`, removed afterwards."""

    longMessage = True

    def setUp(self):
        folder = temporary_folder()
        self.addCleanup(folder.cleanup)
        self.dir = Path(folder.name)

    assert_one_line_error = staticmethod(assert_one_line_error)
    assert_same_weights = staticmethod(assert_same_weights)

    def make_inputs(self, n_classes=4, **data):
        """model.json, theta0.safetensors, head.h5 and data.npz in self.dir;
        returns the arguments that name them to magmax_train."""
        config = make_model(self.dir / "model.json")
        write_safetensors(self.dir / "theta0.safetensors",
                          random_weights(config))
        make_head(self.dir / "head.h5", n_classes)
        make_npz(self.dir / "data.npz", n_classes=n_classes, **data)
        return ["--model", self.dir / "model.json",
                "--load", self.dir / "theta0.safetensors",
                "--head", self.dir / "head.h5",
                "--dataset", self.dir / "data.npz"]


def main():
    """Run the file's tests; exit code 77 where all of them were skipped."""
    result = unittest.main(module="__main__", exit=False, verbosity=2).result
    if not result.wasSuccessful():
        raise SystemExit(1)
    if result.skipped and len(result.skipped) >= result.testsRun:
        raise SystemExit(77)
