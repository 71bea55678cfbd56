"""Ranks that make different collective calls, in builds that compare them
(comm/check_same.h): one line says what differs, and all end.

ctest: processors=1
"""

import unittest

import magmax_cli as cli

PROGRAM = "mpi_test_check_same"


@unittest.skipIf(cli.run(PROGRAM, "built").returncode == 77,
                 "built without MAGMAX_CHECK_COLLECTIVES")
class Collectives(cli.Case):
    def check(self, how, message):
        proc = cli.run(PROGRAM, how, n_ranks=3)
        self.assertNotEqual(proc.returncode, 0)
        self.assertNotIn("went on", proc.stdout)
        lines = [line for line in proc.stderr.splitlines()
                 if "magmax: bug: " in line]
        self.assertEqual(len(lines), 1, proc)
        self.assertRegex(lines[0], message)

    def test_a_length_that_differs_is_named(self):
        self.check("length", r"mm_comm_broadcast: n_bytes must be the same on "
                   r"every rank: 8 on rank 0, 16 on rank 2$")

    def test_so_is_a_text(self):
        self.check("text", r"check_all_kinds: path must be the same on every "
                   r"rank: 'a\.h5' on rank 0, 'b\.h5' on rank 2$")

    def test_so_is_a_range_of_the_gradient(self):
        self.check("range", r"mm_reducer_ready: lo must be the same on every "
                   r"rank: 0 on rank 0, 1 on rank 2$")

    def test_different_calls_do_not_wait_for_each_other(self):
        self.check("call", r"ranks call different collectives: "
                   r"mm_comm_sum_double on rank 0, mm_comm_barrier on rank 2$")

    def test_nor_does_a_rank_that_leaves(self):
        self.check("leaving", r"ranks call different collectives: "
                   r"mm_comm_barrier on rank 0, mm_comm_destroy on rank 2$")


if __name__ == "__main__":
    cli.main()
