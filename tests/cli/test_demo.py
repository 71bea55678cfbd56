"""The demo as a user runs it: everything it promises is there, and
merging helps.

ctest: slow cost=100
"""

import json
import os
import re
import shutil
import subprocess
import unittest

import magmax_cli as cli


class Demo(cli.Case):
    @unittest.skipUnless(os.path.isdir("/usr/share/datasets/fashion-mnist"),
                         "Fashion-MNIST is not installed")
    @unittest.skipUnless(shutil.which("gnuplot") and shutil.which("jq"),
                         "gnuplot or jq is not installed")
    def test_the_demo_prints_a_table_in_which_magmax_beats_both_ends(self):
        out = self.dir / "out"
        proc = subprocess.run([cli.SOURCE / "demo.sh", out],
                              env=cli.environment({"OMP_NUM_THREADS": None}),
                              capture_output=True, text=True, timeout=3 * cli.DEADLINE_S)
        self.assertEqual(proc.returncode, 0, proc.stdout + proc.stderr)
        self.assertRegex(proc.stderr, r"done in \d+ s")
        table = (out / "table.txt").read_text()
        self.assertTrue(proc.stdout.endswith(table))
        rows = [json.loads(line)
                for line in (out / "scores.jsonl").read_text().splitlines()]
        self.assertEqual(len(rows), 8)
        for row in rows:
            self.assertEqual(len(row["accuracy"]), 5)
            self.assertTrue(re.search(re.escape(row["model"]), table))
        mean = {row["model"]: row["mean"] for row in rows}
        # Half a point: the resolution that the demo claims.
        self.assertGreater(mean["MagMax"], mean["theta_0"] + 0.005)
        self.assertGreater(mean["MagMax"], mean["last sequential"] + 0.005)
        picture = (out / "accuracy.png").read_bytes()
        self.assertEqual(picture[:8], b"\x89PNG\r\n\x1a\n")
        self.assertGreater(len(picture), 10000)


if __name__ == "__main__":
    cli.main()
