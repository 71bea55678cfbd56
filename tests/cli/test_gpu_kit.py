"""What bench/gpu/kit.sh packs, on a stub of a build: programs that find their
libraries wherever the folder lies, tests made from ctest's list, refusals.

ctest: slow
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile

import magmax_cli as cli

BENCH = cli.SOURCE / "bench/gpu"
sys.path.insert(0, str(BENCH))
import elf  # noqa: E402
import kit as gpu_kit  # noqa: E402
import vendor  # noqa: E402


def run(*command, **more):
    return subprocess.run(list(map(str, command)), capture_output=True,
                          text=True, check=False, **more)


class Rig(cli.Case):
    def setUp(self):
        super().setUp()
        self.build, self.folder = self.dir / "build", self.dir / "kit"
        for name in ("bin", "bin-test"):
            (self.build / name).mkdir(parents=True)
        (self.folder / "lib").mkdir(parents=True)
        self.kit = gpu_kit.Kit(self.folder)

    def assert_fails(self, call, *texts):
        with self.assertRaises(SystemExit) as caught:
            call()
        for text in texts:
            self.assertIn(text, str(caught.exception))


class Libraries(Rig):
    def test_open_mpi_runs_from_the_folder_wherever_it_lies(self):
        gpu_kit.add_open_mpi(self.kit)
        self.assertEqual(gpu_kit.add_libraries(self.kit), [])
        gpu_kit.add_scripts(self.folder, cli.BUILD)
        moved = self.dir / "else where"
        self.folder.rename(moved)
        mpirun = moved / "lib/openmpi/mpirun"
        for name, path in elf.loaded_libraries([mpirun]).items():
            if not elf.OF_THE_MACHINE.match(name):
                self.assertTrue(path.startswith(str(moved)), f"{name}: {path}")
        proc = run(moved / "exec", "mpirun", "--oversubscribe", "-np", 2,
                   "sh", "-c", "echo $OMPI_COMM_WORLD_RANK:$LD_LIBRARY_PATH",
                   env={"PATH": "/usr/bin:/bin"})
        ranks = [line.split(":") for line in proc.stdout.splitlines()]
        self.assertEqual(sorted(rank[0] for rank in ranks), ["0", "1"],
                         proc.stderr)
        # Programs that are not ours must not find our libraries.
        for folder in ranks[0][1:]:
            self.assertFalse(list(cli.Path(folder).glob("lib*.so*")), folder)

    def test_a_missing_library_is_named(self):
        program = shutil.which("orterun")
        self.kit.add(cli.Path(program), "bin-test")
        self.assertIn("bin-test/orterun loads libopen-rte.so.40",
                      gpu_kit.missing_libraries(self.kit))
        self.assertEqual(
            elf.parse_ldd("\tlibx.so.1 => not found\n"
                          "\tlibc.so.6 => /lib/libc.so.6 (0x00007f)\n"
                          "\tlinux-vdso.so.1 (0x00007f)\n"),
            {"libx.so.1": None, "libc.so.6": "/lib/libc.so.6"})

    def test_a_build_without_programs_says_what_to_build(self):
        self.assert_fails(lambda: gpu_kit.add_programs(self.kit, self.build),
                          "gpu_kit", str(self.build))

    def test_programs_lose_their_symbols_and_keep_their_search_path(self):
        program = self.build / "bin/magmax_merge"
        shutil.copy(cli.BIN / "magmax_merge", program)
        gpu_kit.add_programs(self.kit, self.build)
        packed = self.folder / "bin/magmax_merge"
        self.assertNotIn(".symtab", run("readelf", "-S", packed).stdout)
        tags = elf.DT_RPATH, elf.DT_RUNPATH
        self.assertEqual(elf.Dynamic(packed).strings(*tags),
                         elf.Dynamic(program).strings(*tags))


class Tests(Rig):
    def listing(self):
        source = gpu_kit.SOURCE
        (self.folder / "bin-test").mkdir()
        (self.folder / "bin").mkdir()
        (self.folder / "tests/parity").mkdir(parents=True)
        for name in ("bin-test/mpi_test_x", "bin/mpirun", "tests/parity/t.py"):
            (self.folder / name).touch()
        test = {
            "name": "mpi.x.cuda.n1",
            "command": ["/usr/bin/timeout", "-k", "5", "/usr/bin/mpiexec", "-n",
                        "1", f"{self.build}/bin-test/mpi_test_x"],
            "properties": [
                {"name": "LABELS", "value": ["mpi", "fast", "cuda"]},
                {"name": "TIMEOUT", "value": 140.0},
                {"name": "ENVIRONMENT", "value": [
                    "OMP_NUM_THREADS=1", f"MAGMAX_SOURCE={source}",
                    f"MAGMAX_CUDA_MODULE={self.build}/lib/m.so"]}]}
        python = {"name": "parity.t",
                  "command": ["/usr/bin/python3.11",
                              f"{source}/tests/parity/t.py"],
                  "properties": [{"name": "LABELS", "value": ["cuda"]}]}
        other = {"name": "unit.x", "properties": []}
        return json.dumps({"tests": [test, other, python]})

    def made_from(self, text):
        return gpu_kit.tests_of(text, self.build, self.folder)

    def test_ctests_list_becomes_one_that_holds_in_any_folder(self):
        first, second = self.made_from(self.listing())
        self.assertEqual(first, {
            "name": "mpi.x.cuda.n1",
            "command": ["timeout", "-k", "5", "@KIT@/bin/mpirun", "-n", "1",
                        "@KIT@/bin-test/mpi_test_x"],
            "env": {"OMP_NUM_THREADS": "1", "MAGMAX_SOURCE": "@KIT@",
                    "MAGMAX_CUDA_MODULE": "@KIT@/lib/m.so"},
            "timeout": 140.0, "labels": ["mpi", "fast", "cuda"]})
        self.assertEqual(second["command"],
                         ["python3", "@KIT@/tests/parity/t.py"])

    def test_programs_that_are_missing_are_named(self):
        text = self.listing()
        (self.folder / "bin-test/mpi_test_x").unlink()
        self.assert_fails(lambda: self.made_from(text), "mpi.x.cuda.n1",
                          "bin-test/mpi_test_x is not in the kit")
        unbuilt = json.loads(text)
        del unbuilt["tests"][0]["command"]
        self.assert_fails(lambda: self.made_from(json.dumps(unbuilt)),
                          "mpi.x.cuda.n1 is not built")
        self.assert_fails(lambda: self.made_from('{"tests": []}'), "no tests")

    def test_tests_of_the_device_cuda_have_its_label(self):
        text = run("ctest", "--test-dir", cli.BUILD, "-L", "^cuda$",
                   "--show-only=json-v1").stdout
        names = {t["name"] for t in json.loads(text)["tests"]}
        self.assertLessEqual({"op.fill.cuda", "op.gemm.cuda.bf16",
                              "unit.step.cuda", "mpi.merge.cuda.n1",
                              "parity.vit.cuda.tf32"}, names)
        self.assertFalse([n for n in names if "cuda" not in n
                          and n != "parity.runs_gpu"])


class Archive(Rig):
    def test_it_unpacks_to_the_folder_and_is_the_same_again(self):
        (self.folder / "run").write_text("#!/bin/sh\n")
        (self.folder / "run").chmod(0o755)
        packed = []
        for name in ("a", "b"):
            os.utime(self.folder / "run", (len(packed), len(packed)))
            target = self.dir / name
            n_bytes = gpu_kit.archive(self.folder, target, 10_000)
            packed.append(target.read_bytes())
            self.assertEqual(n_bytes, len(packed[-1]))
        self.assertEqual(*packed)
        with tarfile.open(self.dir / "a") as tar:
            self.assertEqual(tar.getmember("kit/run").mode, 0o755)

    def test_one_that_is_too_large_is_refused_and_removed(self):
        (self.folder / "data").write_bytes(os.urandom(5000))
        self.assert_fails(lambda: gpu_kit.archive(
            self.folder, self.dir / "kit.tar.xz", 4000), "more than 4000")
        self.assertEqual(sorted(p.name for p in self.dir.iterdir()),
                         ["build", "kit"])


class Vendor(Rig):
    def library(self, folder, name):
        path = self.dir / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        return path

    def test_a_toolkit_comes_before_python_packages(self):
        toolkit = self.library("toolkit/lib64", "libcublasLt.so.13")
        self.library("site/nvidia/cu13/lib", "libcublasLt.so.13")
        nccl = self.library("site/nvidia/nccl/lib", "libnccl.so.2")
        nvrtc = self.library("toolkit/lib64", "libnvrtc.so.13")
        (self.folder / "kit.json").write_text(json.dumps(
            {"vendor": ["libcublasLt.so.13", "libnccl.so.2", "libnone.so.1"]}))
        env = {**os.environ, "CUDA_HOME": str(self.dir / "toolkit"),
               "PYTHONPATH": str(self.dir / "site")}
        for _ in range(2):
            proc = run(sys.executable, BENCH / "vendor.py", self.folder,
                       env=env)
            self.assertEqual(proc.returncode, 0, proc.stderr)
        self.assertIn(f"libcublasLt.so.13: {toolkit.resolve()}\n", proc.stdout)
        self.assertIn("libnone.so.1: not found\n", proc.stdout)
        lib = self.folder / "lib"
        self.assertEqual((lib / "libcublasLt.so.13").resolve(),
                         toolkit.resolve())
        self.assertEqual((lib / "libnvrtc.so.13").resolve(), nvrtc.resolve())
        places = [f for f in vendor.folders([str(self.dir / "site")])
                  if f.is_relative_to(self.dir)]
        self.assertEqual(vendor.find("libnccl.so.2", places, {}), nccl)


class Options(cli.Case):
    def test_help_describes_every_option(self):
        for script, options in (("kit.sh", ("--out", "--emulate", "--jobs")),
                                ("try_kit.sh", ("--roots", "--toolkit"))):
            text = run("bash", BENCH / script, "--help").stdout
            for option in options:
                self.assertIn(option, text)

    def test_an_unknown_option_is_an_error(self):
        for script in ("kit.sh", "try_kit.sh"):
            proc = run("bash", BENCH / script, "--emulat")
            self.assertEqual(proc.returncode, 2)
            self.assertIn("--emulat", proc.stderr)


if __name__ == "__main__":
    cli.main()
