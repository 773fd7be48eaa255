"""Real processes that score together by `jax.distributed`: the same file as one writes, also after an interruption."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 300
# Where SIGINT is ignored, as it is for the background jobs of a shell, Python leaves it so.
RUN = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from jnas.cli import main
sys.exit(main())
"""
# So many small chunks that an interruption falls between two of them, and the work is still seconds.
ARGUMENTS = [
    "--proxies", "swap", "--archs", "random:9000", "--out", "scores.csv",
    "--network.channels", "1", "--network.cells_per_stage", "1", "--network.batch", "8",
]  # fmt: skip


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """Two devices in each process."""
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    }


def start(folder: Path, environment: dict[str, str], *more: str) -> subprocess.Popen:
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-c", RUN, "score", *ARGUMENTS, *more],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_two(base: Path, environment: dict[str, str], *more: str) -> list[subprocess.Popen]:
    """The first in the folder `here`, the second, as if on another machine, in `there`."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    options = ["--coordinator", coordinator, "--processes", "2", *more]
    return [
        start(base / folder, environment, *options, "--process", str(number))
        for number, folder in enumerate(("here", "there"))
    ]


def end(*processes: subprocess.Popen) -> list[tuple[int, str, str]]:
    """(exit status, stdout, stderr) of each, all within the time."""
    try:
        texts = [process.communicate(timeout=PATIENCE_SECONDS) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [(process.returncode, *text) for process, text in zip(processes, texts, strict=True)]


def complaint(errors: str) -> str:
    return next((line for line in errors.splitlines() if line.startswith("jnas: ")), errors)


def stored(out: Path) -> int:
    """How many values are in the journal, read by SQLite alone."""
    try:
        with closing(sqlite3.connect(f"{out.absolute().as_uri()}.journal?mode=ro", uri=True)) as db:
            return db.execute("SELECT COUNT(*) FROM scores").fetchone()[0]
    except sqlite3.OperationalError:
        return 0


def test_two_processes_that_were_interrupted_write_the_file_of_one(tmp_path, environment):
    ((status, _, errors),) = end(start(tmp_path / "alone", environment))
    assert status == 0, errors
    expected, out = (tmp_path / "alone" / "scores.csv").read_bytes(), tmp_path / "here" / "scores.csv"

    both, started = start_two(tmp_path, environment), time.monotonic()
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

    first, second = end(*start_two(tmp_path, environment))
    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    assert f"{before:,} of them done before" in first[2] and "on 4 x cpu of 2 processes" in first[2]
    assert out.read_bytes() == expected
    # The second one reads and writes no file, and says nothing.
    assert second[1] == "" and "scoring" not in second[2] and list((tmp_path / "there").iterdir()) == []


def test_what_the_first_process_cannot_do_ends_all(tmp_path, environment):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "scores.csv").write_text("my precious numbers\n")
    first, second = end(*start_two(tmp_path, environment))
    reason = "'scores.csv' exists and is not an unfinished or finished scoring"
    assert first[0] == 2 and complaint(first[2]).startswith(f"jnas: error: {reason}")
    assert second[0] == 1 and complaint(second[2]).startswith(
        f"jnas: failed: process 0 of 2 failed: {reason}"
    )
