import contextlib
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
from jnas.store.records import Evaluation, Records, open_records, read_records


def evaluation(candidate: int, value: float, repeat: int = 0, proxy: str = "ntk") -> Evaluation:
    return Evaluation("prune", 0, repeat, candidate, proxy, f"candidate {candidate}", value, 0.5)


# Each example waits for the disk some times.
@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(), min_size=1, max_size=20))
def test_values_come_back_exactly(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("records") / "records.sqlite"
    with open_records(path, "digest") as records:
        records.add(evaluation(number, value) for number, value in enumerate(values))
    with open_records(path, "digest") as records:
        stored = records.values("prune", 0, "ntk", 0)
    assert list(stored) == list(range(len(values)))
    for old, new in zip(values, stored.values(), strict=True):
        # Equal as numbers: SQLite drops the sign of a zero.
        assert old == new or (math.isnan(old) and math.isnan(new))


def test_what_is_not_finite_has_a_status(tmp_path):
    path = tmp_path / "records.sqlite"
    with open_records(path, "digest") as records:
        records.add(evaluation(n, value) for n, value in enumerate([1.0, math.nan, math.inf, -math.inf]))
        statuses = (
            sqlite3.connect(path).execute("SELECT status FROM evaluations ORDER BY candidate").fetchall()
        )
    assert [status for (status,) in statuses] == ["ok", "nan", "inf", "-inf"]
    assert [entry.status for entry in read_records(path)] == ["ok", "nan", "inf", "-inf"]


def test_look_up_is_by_stage_round_repeat_and_proxy(tmp_path):
    with open_records(tmp_path / "records.sqlite", "digest") as records:
        records.add([evaluation(0, 1.0), evaluation(0, 2.0, repeat=1), evaluation(0, 3.0, proxy="regions")])
        assert records.values("prune", 0, "ntk", 0) == {0: 1.0}
        assert records.values("prune", 0, "ntk", 1) == {0: 2.0}
        assert records.values("prune", 0, "regions", 0) == {0: 3.0}
        assert records.values("prune", 1, "ntk", 0) == {}
        records.add([evaluation(0, 4.0)])
        assert records.values("prune", 0, "ntk", 0) == {0: 4.0}


def test_a_failing_batch_leaves_nothing_of_itself(tmp_path):
    def failing():
        yield evaluation(0, 1.0)
        raise ZeroDivisionError

    with open_records(tmp_path / "records.sqlite", "digest") as records:
        with pytest.raises(ZeroDivisionError):
            records.add(failing())
        assert records.all() == []


WRITER = """
import itertools, sys
from pathlib import Path
from jnas.store.records import Evaluation, open_records
with open_records(Path(sys.argv[1]), "digest") as records:
    start = 1 + max((entry.round for entry in records.all()), default=-1)
    for number in itertools.count(start):
        records.add(Evaluation("prune", number, 0, c, "ntk", "", number + c / 8, 0.0) for c in range(8))
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
        with open_records(path, "digest") as records:
            stored = records.all()
        rounds = {entry.round for entry in stored}
        # Every batch whose call returned is there, each is whole, and at most one more.
        assert rounds == set(range(len(rounds)))
        assert not reported or max(reported) <= max(rounds) <= max(reported) + 1
        assert len(stored) == 8 * len(rounds)
        assert all(entry.value == entry.round + entry.candidate / 8 for entry in stored)


@pytest.mark.parametrize("damage", ["garbage", "half", "header only", "a page overwritten"])
def test_a_damaged_file_is_named(tmp_path, damage):
    path = tmp_path / "records.sqlite"
    with open_records(path, "digest") as records:
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
        open_records(path, "digest"),
    ):
        pass


def test_an_empty_file_is_a_new_one(tmp_path):
    path = tmp_path / "records.sqlite"
    path.touch()
    with open_records(path, "digest") as records:
        assert records.all() == []


def test_records_of_another_configuration_or_format(tmp_path):
    path = tmp_path / "records.sqlite"
    with open_records(path, "digest"):
        pass
    with pytest.raises(InputError, match="another configuration"), open_records(path, "other"):
        pass
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE meta SET value = '99' WHERE key = 'schema'")
    with pytest.raises(InputError, match="format 99"), open_records(path, "digest"):
        pass


def test_a_full_disk_stops_the_run_and_keeps_the_rest(tmp_path):
    path = tmp_path / "records.sqlite"
    with open_records(path, "digest") as records:
        records.add([evaluation(0, 1.0)])
        limit(records, pages=8)
        with pytest.raises(RunError, match=r"full.*free the disk"):
            for batch in range(100):
                records.add(evaluation(n, 1.0) for n in range(100 * batch + 1, 100 * batch + 101))
    with open_records(path, "digest") as records:
        assert records.values("prune", 0, "ntk", 0)[0] == 1.0
        assert len(records.all()) % 100 == 1


def limit(records: Records, pages: int) -> None:
    records._connection.execute(f"PRAGMA max_page_count = {pages}")


def test_a_folder_that_is_not_there():
    with pytest.raises(InputError, match="unable to open"), open_records(Path("/dev/null/records"), "digest"):
        pass
    with pytest.raises(InputError, match="unable to open"):
        read_records(Path(os.devnull) / "records")


def _root() -> Path:
    return Path(__file__).parents[2]
