# ctest: processors=1
"""What `cmake --install` puts where, and whether it works from there."""

import subprocess

import magmax_cli as cli

PROGRAMS = ["magmax_train", "magmax_merge", "magmax_eval", "magmax_head",
            "magmax_pack", "magmax_convert"]


class Install(cli.Case):
    def setUp(self):
        super().setUp()
        self.prefix = self.dir / "prefix"
        proc = subprocess.run(
            ["cmake", "--install", cli.BUILD, "--prefix", self.prefix],
            stdin=subprocess.DEVNULL, capture_output=True, text=True)
        self.assertEqual(proc.returncode, 0, proc.stdout + proc.stderr)

    def test_programs_run_from_where_they_are_installed(self):
        for program in PROGRAMS:
            proc = cli.run_ok(self.prefix / "bin" / program, "--version")
            self.assertRegex(proc.stdout, rf"^{program} \d+\.\d+\.\d+\n$")

    def test_batch_scripts_find_the_installed_programs(self):
        scripts = self.prefix / "share/magmax/slurm"
        for name in ("train.sbatch", "merge.sbatch", "eval.sbatch"):
            self.assertTrue((scripts / name).is_file(), name)
        proc = cli.run_ok(
            "/bin/bash", "-c", f". '{scripts}/env.sh'; "
            "realpath \"$(magmax_program magmax_train)\"",
            env={"MAGMAX_BIN": None})
        self.assertEqual(proc.stdout.strip(),
                         str((self.prefix / "bin/magmax_train").resolve()))

    def test_licence_is_installed(self):
        licence = self.prefix / "share/doc/magmax/LICENSE"
        self.assertIn("Apache License", licence.read_text())


if __name__ == "__main__":
    cli.main()
