"""A real scoring in a process of its own, killed and interrupted, then run again."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from jnas import cli

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 300
# Where SIGINT is ignored, as it is for the background jobs of a shell, Python leaves it so.
RUN = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from jnas.cli import command
command()
"""
# So many small chunks that a kill falls between two of them, and the work is still seconds.
ARGUMENTS = [
    "--proxies", "swap", "--archs", "random:9000", "--seed", "3",
    "--network.channels", "1", "--network.cells_per_stage", "1", "--network.batch", "8",
]  # fmt: skip


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def command(out: Path) -> list[str]:
    return [sys.executable, "-c", RUN, "score", *ARGUMENTS, "--out", str(out)]


def finish(out: Path) -> str:
    """Run to the end; what it said on stderr."""
    done = subprocess.run(
        command(out), env=ENVIRONMENT, capture_output=True, text=True, timeout=PATIENCE_SECONDS
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> bytes:
    """The file of an uninterrupted scoring."""
    out = tmp_path_factory.mktemp("uninterrupted") / "scores.csv"
    assert cli.main(["score", *ARGUMENTS, "--out", str(out)]) == 0
    table = out.read_bytes()
    assert table.count(b"\n") == 9001
    return table


def stored(out: Path) -> dict[str, tuple]:
    """The values in the journal by architecture, read by SQLite alone."""
    try:
        with closing(sqlite3.connect(f"{out.absolute().as_uri()}.journal?mode=ro", uri=True)) as db:
            return {row[1]: row for row in db.execute("SELECT * FROM evaluations")}
    except sqlite3.OperationalError:
        return {}


def stop(out: Path, number: int, more_than: int) -> subprocess.CompletedProcess:
    """Start, and send the signal as soon as more than so many values are stored."""
    process = subprocess.Popen(
        command(out), env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    started = time.monotonic()
    try:
        while len(stored(out)) <= more_than:
            assert process.poll() is None, f"ended too early: {process.communicate()[1]}"
            assert time.monotonic() - started < PATIENCE_SECONDS
            time.sleep(0.005)
        process.send_signal(number)
        output, errors = process.communicate(timeout=PATIENCE_SECONDS)
    finally:
        process.kill()
        process.wait()
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def test_a_scoring_that_was_killed_and_interrupted_ends_as_if_it_had_not_been(expected, tmp_path):
    out = tmp_path / "my scores.csv"
    assert stop(out, signal.SIGKILL, 0).returncode == -signal.SIGKILL
    first = stored(out)
    # The table is the beginning of the final one, though perhaps not to the end of a row.
    assert expected.startswith(out.read_bytes()) and out.read_bytes() != expected

    done = stop(out, signal.SIGINT, len(first) + 500)
    assert (done.returncode, done.stdout) == (130, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith("jnas: interrupted; nothing finished is lost, to resume run again: jnas score ")
    assert last.endswith(f"--out '{out}'") and "Traceback" not in done.stderr
    second = stored(out)
    # What was on disk at the kill is still there, to the last bit.
    assert first.items() <= second.items() and len(first) < len(second)
    assert expected.startswith(out.read_bytes()) and out.read_bytes() != expected

    assert f"{len(second):,} of them done before" in finish(out)
    assert second.items() <= stored(out).items()
    assert out.read_bytes() == expected
