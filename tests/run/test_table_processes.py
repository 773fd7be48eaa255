"""Real processes that train a table together by `jax.distributed`: the table of one, also after a kill."""

import signal
import time

import numpy as np
import small_digits
from jnas_processes import PATIENCE_SECONDS, complaint, end, start, start_two, stored

from jnas.estimators import compact_table

ARGUMENTS = [
    "table", "build", "--data", "../small.npz", "--out", "t.npz", "--seeds", "2", "--channels", "2", "--epochs", "2",
    "--curve", "1,2", "--batch", "50", "--cells",
]  # fmt: skip


def test_two_processes_that_were_killed_train_the_table_of_one(tmp_path):
    small_digits.write(tmp_path / "small.npz", 200, 80)
    ((status, said, errors),) = end(start(tmp_path / "alone", 2, [*ARGUMENTS, "60"]))
    assert status == 0 and "60 cells of nasbench201" in said, errors
    expected = compact_table.read(tmp_path / "alone" / "t.npz")

    both, started = start_two(tmp_path, [*ARGUMENTS, "60"]), time.monotonic()
    while not stored(tmp_path / "here" / "t.npz"):
        assert time.monotonic() - started < PATIENCE_SECONDS
        assert all(process.poll() is None for process in both)
        time.sleep(0.005)
    for process in both:
        process.send_signal(signal.SIGKILL)
    end(*both)
    assert not (tmp_path / "here" / "t.npz").exists()

    first, second = end(*start_two(tmp_path, [*ARGUMENTS, "60"]))
    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    assert " 0 done before" not in first[2] and "done before" in first[2]
    # The second one reads and writes no file, and says nothing.
    assert second[1] == "" and "training" not in second[2] and list((tmp_path / "there").iterdir()) == []
    table = compact_table.read(tmp_path / "here" / "t.npz")
    np.testing.assert_array_equal(table.architectures, expected.architectures)
    np.testing.assert_array_equal(table.accuracy, expected.accuracy)


def test_processes_that_are_asked_for_different_tables(tmp_path):
    small_digits.write(tmp_path / "small.npz", 200, 80)
    first, second = end(*start_two(tmp_path, [*ARGUMENTS, "8"], ["--seed", "1"]))
    reason = "the processes were asked for different tables: give all the same command"
    for status, _, errors in (first, second):
        assert status != 0 and reason in complaint(errors)
