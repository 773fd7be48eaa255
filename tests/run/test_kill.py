"""`kill -9` of a real search in a process of its own, resumed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import yaml

from jnas.config.search import from_mapping
from jnas.errors import InputError
from jnas.run.progress import Progress
from jnas.run.search import run
from jnas.store.records import read_records

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 300


def records_of(folder: Path) -> list:
    try:
        return read_records(folder / "records.sqlite")
    except InputError:
        return []


def kill_when(command: list[str], reached) -> None:
    """Start `command`, kill it as soon as `reached()` holds."""
    process = subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    started = time.monotonic()
    try:
        while not reached():
            assert process.poll() is None, f"ended before it was killed: {process.communicate()[1]}"
            assert time.monotonic() - started < PATIENCE_SECONDS
            time.sleep(0.02)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL


def test_a_search_that_was_killed_twice_ends_as_if_it_had_not_been(tiny_run, tiny, tmp_path):
    config, folder = tmp_path / "tiny.yaml", tmp_path / "run"
    config.write_text(yaml.safe_dump(tiny))
    command = [sys.executable, "-m", "jnas", "search", str(config), "--out", str(folder)]

    kill_when(command, lambda: len(records_of(folder)) > 0)
    first = records_of(folder)
    assert {record.stage for record in first} == {"search"} and not (folder / "result.json").exists()

    kill_when(command, lambda: any(r.stage == "training" for r in records_of(folder)))
    # The records of the first kill are still there, to the last bit, and was not evaluated again.
    assert first == [record for record in records_of(folder) if record in first]

    result = run(from_mapping(tiny), folder, Progress(quiet=True))
    times = {"seconds", "search_seconds"}
    assert {key: result[key] for key in result.keys() - times} == {
        key: tiny_run[1][key] for key in tiny_run[1].keys() - times
    }
