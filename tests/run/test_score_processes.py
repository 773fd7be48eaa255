"""Real processes that score together by `jax.distributed`: the same file as one writes, also after an interruption."""

import signal
import time

from jnas_processes import PATIENCE_SECONDS, complaint, end, start, start_two, stored

# So many small chunks that an interruption falls between two of them, and the work is still seconds.
ARGUMENTS = [
    "score", "--proxies", "swap", "--archs", "random:4000", "--out", "scores.csv",
    "--network.channels", "1", "--network.cells_per_stage", "1", "--network.batch", "8",
]  # fmt: skip


def test_two_processes_that_were_interrupted_write_the_file_of_one(tmp_path):
    ((status, _, errors),) = end(start(tmp_path / "alone", 2, ARGUMENTS))
    assert status == 0, errors
    expected, out = (tmp_path / "alone" / "scores.csv").read_bytes(), tmp_path / "here" / "scores.csv"

    both, started = start_two(tmp_path, ARGUMENTS), time.monotonic()
    while not stored(out) and all(process.poll() is None for process in both):
        assert time.monotonic() - started < PATIENCE_SECONDS
        time.sleep(0.005)
    both[1].send_signal(signal.SIGINT)
    first, second = end(*both)
    assert (first[0], second[0]) == (1, 130), first[2] + second[2]
    assert complaint(first[2]).startswith("jnas: failed: process 1 of 2 was interrupted")
    assert complaint(second[2]).startswith("jnas: interrupted; nothing finished is lost")
    before = stored(out)
    assert before > 0 and expected.startswith(out.read_bytes()) and out.read_bytes() != expected

    first, second = end(*start_two(tmp_path, ARGUMENTS))
    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    assert f"{before:,} of them done before" in first[2] and "on 4 x cpu of 2 processes" in first[2]
    assert out.read_bytes() == expected
    # The second one reads and writes no file, and says nothing.
    assert second[1] == "" and "scoring" not in second[2] and list((tmp_path / "there").iterdir()) == []


def test_what_the_first_process_cannot_do_ends_all(tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "scores.csv").write_text("my precious numbers\n")
    first, second = end(*start_two(tmp_path, ARGUMENTS))
    reason = "'scores.csv' exists and is not an unfinished or finished scoring"
    assert first[0] == 2 and complaint(first[2]).startswith(f"jnas: error: {reason}")
    assert second[0] == 1 and complaint(second[2]).startswith(
        f"jnas: failed: process 0 of 2 failed: {reason}"
    )
