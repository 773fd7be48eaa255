import contextlib
import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jnas.errors import InputError, RunError
from jnas.settings import Settings
from jnas.store.records import Evaluation, Records, open_records, read_records


def evaluation(place: int, value: float, objective: str = "ntk", round: int = 0) -> Evaluation:
    status = "ok" if math.isfinite(value) else "not_finite"
    return Evaluation("prune", f"candidate {place}", objective, round, place, value, status, 0.5)


class Config(Settings, frozen=True, kw_only=True):
    seed: int = 1
    memory: int = 0


def open_file(path, parts=(), **settings):
    """The records, whose settings may differ in the memory alone."""
    return open_records(path, Config(**settings), ["memory"], parts)


# Each example waits for the disk some times.
@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(), min_size=1, max_size=20))
def test_values_come_back_exactly(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("records") / "records.sqlite"
    with open_file(path) as records:
        records.add(evaluation(number, value) for number, value in enumerate(values))
    with open_file(path) as records:
        stored = records.values("prune")
    assert list(stored) == [(f"candidate {place}", "ntk") for place in range(len(values))]
    for old, new in zip(values, (entry.value for entry in stored.values()), strict=True):
        # Equal as numbers: SQLite drops the sign of a zero.
        assert old == new or (math.isnan(old) and math.isnan(new))


def test_look_up_is_by_stage_subject_and_objective(tmp_path):
    with open_file(tmp_path / "records.sqlite") as records:
        first, second = evaluation(0, 1.0, round=1), evaluation(0, 2.0, round=2)
        records.add([second, first, evaluation(0, 3.0, objective="regions")])
        assert records.values("prune")["candidate 0", "ntk"] == first
        assert records.values("prune")["candidate 0", "regions"].value == 3.0
        assert records.values("search") == {}
        records.add([first._replace(value=4.0)])
        assert records.values("prune")["candidate 0", "ntk"].value == 4.0


def test_rounds_have_information(tmp_path):
    with open_file(tmp_path / "records.sqlite") as records:
        records.note("search", 1, {"best": [1, 2], "value": 0.1})
        records.note("search", 0, {})
        records.note("search", 0, {"best": None})
        rows = records.connection.execute("SELECT * FROM rounds ORDER BY round").fetchall()
    stored = [(stage, number, json.loads(info)) for stage, number, info in rows]
    assert stored == [("search", 0, {"best": None}), ("search", 1, {"best": [1, 2], "value": 0.1})]


def test_evaluations_of_another_file_are_taken_over(tmp_path):
    with open_file(tmp_path / "part") as part:
        part.add([evaluation(0, 1.0), evaluation(1, math.nan)])
    with open_file(tmp_path / "whole", memory=2) as whole:
        whole.add([evaluation(2, 3.0)])
    with open_file(tmp_path / "whole", [tmp_path / "part"]) as whole:
        assert [entry.place for entry in whole.all()] == [0, 1, 2]
    with (
        pytest.raises(InputError, match=r"part: holds results of another configuration \(seed: 1 -> 2\)"),
        open_file(tmp_path / "other", [tmp_path / "part"], seed=2),
    ):
        pass


def test_a_failing_batch_leaves_nothing_of_itself(tmp_path):
    def failing():
        yield evaluation(0, 1.0)
        raise ZeroDivisionError

    with open_file(tmp_path / "records.sqlite") as records:
        with pytest.raises(ZeroDivisionError):
            records.add(failing())
        assert records.all() == []


WRITER = """
import itertools, sys
from pathlib import Path
from jnas.settings import Settings
from jnas.store.records import Evaluation, open_records
class Config(Settings, frozen=True, kw_only=True):
    seed: int = 1
with open_records(Path(sys.argv[1]), Config()) as records:
    start = 1 + max((entry.round for entry in records.all()), default=-1)
    for number in itertools.count(start):
        records.add(Evaluation("prune", str(c), "ntk", number, c, number + c / 8, "ok", 0.0) for c in range(8))
        print(number, flush=True)
"""


def test_kill_loses_at_most_the_call_in_flight(tmp_path):
    path = tmp_path / "records.sqlite"
    for attempt in range(3):
        command = [sys.executable, "-c", WRITER, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=_root()) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.03 * attempt)
            process.send_signal(signal.SIGKILL)
            reported = [int(line) for line in process.stdout.read().split()]
        with open_file(path) as records:
            stored = records.all()
        rounds = {entry.round for entry in stored}
        # Every batch whose call returned is there, each is whole, and at most one more.
        assert rounds == set(range(len(rounds)))
        assert not reported or max(reported) <= max(rounds) <= max(reported) + 1
        assert len(stored) == 8 * len(rounds)
        assert all(entry.value == entry.round + entry.place / 8 for entry in stored)


@pytest.mark.parametrize("damage", ["garbage", "half", "header only", "a page overwritten"])
def test_a_damaged_file_is_named(tmp_path, damage):
    path = tmp_path / "records.sqlite"
    with open_file(path) as records:
        records.add(evaluation(n, float(n)) for n in range(500))
    content = path.read_bytes()
    path.write_bytes(
        {
            "garbage": b"no database " * 100,
            "half": content[: len(content) // 2],
            "header only": content[:100],
            "a page overwritten": content[:8192] + b"\xff" * 4096 + content[12288:],
        }[damage]
    )
    with (
        pytest.raises(InputError, match=r"records\.sqlite' is damaged .*delete it"),
        open_file(path),
    ):
        pass


def test_an_empty_file_is_a_new_one(tmp_path):
    path = tmp_path / "records.sqlite"
    path.touch()
    with open_file(path) as records:
        assert records.all() == []


def test_records_of_another_configuration_or_format(tmp_path):
    path = tmp_path / "records.sqlite"
    with open_file(path):
        pass
    with pytest.raises(InputError, match="another configuration"), open_file(path, seed=2):
        pass
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE meta SET value = '99' WHERE key = 'format'")
    with pytest.raises(InputError, match="format 99"), open_file(path):
        pass


def test_a_full_disk_stops_the_run_and_keeps_the_rest(tmp_path):
    path = tmp_path / "records.sqlite"
    with open_file(path) as records:
        records.add([evaluation(0, 1.0)])
        limit(records, pages=8)
        with pytest.raises(RunError, match=r"full.*free the disk"):
            for batch in range(100):
                records.add(evaluation(n, 1.0) for n in range(100 * batch + 1, 100 * batch + 101))
    with open_file(path) as records:
        assert records.values("prune")["candidate 0", "ntk"].value == 1.0
        assert len(records.all()) % 100 == 1


def limit(records: Records, pages: int) -> None:
    records.connection.execute(f"PRAGMA max_page_count = {pages}")


def test_a_folder_that_is_not_there():
    with (
        pytest.raises(InputError, match="cannot use '/dev/null/records'"),
        open_file(Path("/dev/null/records")),
    ):
        pass
    with pytest.raises(InputError, match="unable to open"):
        read_records(Path(os.devnull) / "records")


def _root() -> Path:
    return Path(__file__).parents[2]
