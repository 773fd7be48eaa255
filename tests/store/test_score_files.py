"""The files of a scoring: the journal, the CSV that grows, Parquet, and the disks that fail them."""

import csv
import errno
import json
import math
import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from measure import FakeProxies, swap_by_place

from jnas import spaces
from jnas.config import score as scoring_config
from jnas.errors import InputError, RunError
from jnas.run.progress import Progress
from jnas.run.score import score
from jnas.store import records
from jnas.store.records import Evaluation
from jnas.store.score_files import as_csv, columns, journal_path, open_csv, open_journal, write_parquet

ROOT = Path(__file__).parents[2]
SPACE = spaces.get("nasbench201")
SMALL = {"network": {"channels": 1, "cells_per_stage": 1, "batch": 4}}
CONFIG = scoring_config.from_mapping(SMALL)
CHUNK = 4


@pytest.fixture
def scorer(monkeypatch):
    stand_in = FakeProxies(swap_by_place, CHUNK)
    monkeypatch.setattr("jnas.run.score.proxies", stand_in)
    return stand_in


def call(out, architectures="random:20", proxies=("naswot",)):
    return score(
        "nasbench201", architectures, list(proxies), out=out, settings=SMALL, progress=Progress(quiet=True)
    )


def chunks(scorer) -> list[list[str]]:
    return [names for _, names in scorer.asked]


def journal_rows(out: Path) -> list[tuple]:
    """What is on disk, read by SQLite alone."""
    with closing(sqlite3.connect(f"{journal_path(out).absolute().as_uri()}?mode=ro", uri=True)) as db:
        return db.execute("SELECT subject, objective, value, status FROM evaluations").fetchall()


# ------------------------------------------------------------------------------------------------ the journal


def evaluation(name: str, value: float) -> Evaluation:
    return Evaluation("score", name, "zen", 0, 0, value, "ok", 0.0)


def test_a_file_written_from_the_journal_is_the_file_written_at_once(scorer, tmp_path):
    """Also for a negative zero, whose sign SQLite does not keep."""
    scorer.value = lambda row, name: (-0.0, "ok")
    call(tmp_path / "a.csv", "random:3")
    at_once = (tmp_path / "a.csv").read_bytes()
    call(tmp_path / "a.csv", "random:3")
    assert (tmp_path / "a.csv").read_bytes() == at_once


def test_a_row_is_on_disk_when_add_returns(tmp_path):
    out = tmp_path / "a.csv"
    with open_journal(out, CONFIG) as journal:
        journal.add([evaluation("x", 1.5)])
        assert journal_rows(out) == [("x", "zen", 1.5, "ok")]


def test_the_folder_is_made(tmp_path):
    with open_journal(tmp_path / "new" / "folder" / "a.csv", CONFIG):
        pass
    assert journal_path(tmp_path / "new" / "folder" / "a.csv").exists()


def test_two_scorings_into_one_file_are_refused(tmp_path):
    """Both would write the same CSV, each over the other's rows."""
    with open_journal(tmp_path / "a.csv", CONFIG) as journal:
        with (
            pytest.raises(InputError, match=re.escape(str(tmp_path / "a.csv"))),
            open_journal(tmp_path / "a.csv", CONFIG),
        ):
            pass
        journal.add([evaluation("x", 1.5)])
    with open_journal(tmp_path / "a.csv", CONFIG) as journal:
        assert list(journal.values("score")) == [("x", "zen")]


def test_settings_are_compared_as_they_are_read_today(tmp_path):
    """A key that a later jnas knows has its default in the settings of an earlier one."""
    out = tmp_path / "a.csv"
    with open_journal(out, CONFIG):
        pass
    with closing(sqlite3.connect(journal_path(out))) as db, db:
        (text,) = db.execute("SELECT value FROM meta WHERE key='settings'").fetchone()
        stored = json.loads(text)
        del stored["network"]["initialisation"]
        db.execute("UPDATE meta SET value=? WHERE key='settings'", (json.dumps(stored),))
    with open_journal(out, CONFIG):
        pass
    with closing(sqlite3.connect(journal_path(out))) as db, db:
        stored["network"]["forgotten"] = 1
        db.execute("UPDATE meta SET value=? WHERE key='settings'", (json.dumps(stored),))
    with pytest.raises(InputError, match="its settings cannot be read"), open_journal(out, CONFIG):
        pass


# ------------------------------------------------------------------------------------- what is not ours to use


def foreign(path: Path) -> None:
    path.write_text("my precious numbers\n")


def folder(path: Path) -> None:
    path.mkdir()


def text_as_journal(path: Path) -> None:
    journal_path(path).write_text("no database at all, but long enough to look like one\n" * 50)


def folder_as_journal(path: Path) -> None:
    journal_path(path).mkdir()


def other_database(path: Path) -> None:
    with closing(sqlite3.connect(journal_path(path))) as db, db:
        db.execute("CREATE TABLE meta (number INTEGER)")


def other_configuration(path: Path) -> None:
    with open_journal(path, scoring_config.from_mapping({"seed": 7, "ntk": {"batch": 8}, **SMALL})):
        pass


def older_journal(path: Path) -> None:
    with closing(sqlite3.connect(journal_path(path))) as db, db:
        db.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
        db.execute("CREATE TABLE scores (architecture TEXT, proxy TEXT, value REAL, status TEXT)")


def file_as_folder(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_text("")


@pytest.mark.parametrize(
    "spoil, message",
    [
        (foreign, "exists and is not an unfinished or finished scoring: give another --out"),
        (folder, "is a folder: give a file ending in .csv or .parquet"),
        (text_as_journal, "'.*a.csv.journal' is damaged"),
        (folder_as_journal, "cannot use '.*a.csv.journal'"),
        (other_database, "a.csv.journal"),
        (
            other_configuration,
            r"another configuration \(seed: 7 -> 0; ntk.batch: 8 -> 32\): choose another --out",
        ),
        (older_journal, "is in format 1, of an earlier jnas: finish it by that one, or choose another --out"),
        (file_as_folder, "cannot write '.*a.csv'"),
    ],
)
def test_what_lies_there_is_refused_and_kept(scorer, tmp_path, spoil, message):
    out = tmp_path / "out" / "a.csv"
    out.parent.mkdir()
    spoil(out)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(InputError, match=message) as raised:
        call(out)
    assert "\n" not in str(raised.value)
    assert scorer.asked == []
    assert before.items() <= {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}.items()


def test_a_journal_damaged_in_the_middle(scorer, tmp_path):
    """Rows are gone, not only the head: nothing is computed, nothing is overwritten."""
    out = tmp_path / "a.csv"
    call(out, "random:400")
    raw = bytearray(journal_path(out).read_bytes())
    raw[4096:] = b"\xa5" * (len(raw) - 4096)
    journal_path(out).write_bytes(raw)
    table, computed = out.read_bytes(), len(scorer.asked)
    with pytest.raises(InputError, match=r"a.csv.journal' is damaged .*delete it"):
        call(out, "random:400")
    assert (
        len(scorer.asked) == computed and out.read_bytes() == table and journal_path(out).read_bytes() == raw
    )


def test_after_the_journal_was_deleted_as_told_the_table_is_computed_anew(scorer, tmp_path):
    out = tmp_path / "a.csv"
    call(out)
    table = out.read_bytes()
    text_as_journal(out)
    with pytest.raises(InputError, match="delete"):
        call(out)
    journal_path(out).unlink()
    # The table is in the way by now, which is said as well.
    with pytest.raises(InputError, match="give another --out"):
        call(out)
    out.unlink()
    call(out)
    assert out.read_bytes() == table


@pytest.mark.parametrize("name", ["/dev/null/a.csv", "/proc/a.csv"])
def test_an_unwritable_folder(scorer, name):
    if not Path(name).parent.exists():
        pytest.skip(f"no {Path(name).parent} here")
    with pytest.raises(InputError, match=f"cannot write '{name}'.*give another --out"):
        call(name)
    assert scorer.asked == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(scorer, tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(InputError, match=r"cannot write .*Permission denied"):
            call(tmp_path / "a.csv")
    finally:
        tmp_path.chmod(0o700)
    assert scorer.asked == []


def test_a_call_that_could_not_make_its_journal_does_not_bar_the_next(scorer, tmp_path, monkeypatch):
    """No file is left behind that the same command would then take for somebody else's."""
    out, connect = tmp_path / "a.csv", sqlite3.connect

    def fail(*arguments, **options):
        raise sqlite3.OperationalError("unable to open database file")

    monkeypatch.setattr(records.sqlite3, "connect", fail)
    with pytest.raises(InputError, match=r"cannot use '.*a.csv.journal' \(unable to open database file\)"):
        call(out)
    monkeypatch.setattr(records.sqlite3, "connect", connect)
    assert len(call(out)) == 20


# ---------------------------------------------------------------------------------------------------- full disks


def stored_or_shown(out: Path, shown: str, computed) -> bool:
    """Whether each computed architecture is in the journal or on stdout, which must be CSV."""
    lines = list(csv.DictReader(shown.splitlines()))
    values = {(line["subject"], line["objective"], float(line["value"]), line["status"]) for line in lines}
    values |= set(journal_rows(out))
    expected = {
        (name, "naswot", swap_by_place(SPACE.from_string(name), "naswot")[0], "ok")
        for chunk in computed
        for name in chunk
    }
    return expected == values


class FullDatabase(sqlite3.Connection):
    """A disk with room for so many chunks."""

    room = 2

    def executemany(self, *arguments):
        if FullDatabase.room == 0:
            raise sqlite3.OperationalError("database or disk is full")
        FullDatabase.room -= 1
        return super().executemany(*arguments)


def test_a_disk_full_for_the_journal(scorer, tmp_path, monkeypatch, capsys):
    out, connect = tmp_path / "a.csv", sqlite3.connect
    call(tmp_path / "expected.csv")
    scorer.asked.clear()
    # The settings are stored first.
    monkeypatch.setattr(FullDatabase, "room", 3)
    monkeypatch.setattr(records.sqlite3, "connect", lambda *a, **k: connect(*a, factory=FullDatabase, **k))
    with pytest.raises(RunError, match=r"cannot write '.*a.csv.journal' .*full.*run the same command again"):
        call(out)
    monkeypatch.setattr(records.sqlite3, "connect", connect)
    shown = capsys.readouterr().out
    assert len(scorer.asked) == 3 and len(journal_rows(out)) == 2 * CHUNK
    assert stored_or_shown(out, shown, chunks(scorer))
    call(out)
    assert out.read_bytes() == (tmp_path / "expected.csv").read_bytes()


class FullStream:
    """A text stream onto a disk with room for so many flushes."""

    def __init__(self, stream, room):
        self._stream, self._room = stream, room

    def write(self, text):
        return self._stream.write(text)

    def flush(self):
        if self._room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        self._room -= 1
        self._stream.flush()

    def close(self):
        self._stream.close()


@pytest.mark.parametrize("room", [0, 1, 3])
def test_a_disk_full_for_the_table(scorer, tmp_path, monkeypatch, capsys, room):
    out, opened = tmp_path / "a.csv", Path.open

    def full(self, mode="r", *arguments, **options):
        stream = opened(self, mode, *arguments, **options)
        return FullStream(stream, room) if self == out and mode == "w" else stream

    call(tmp_path / "expected.csv")
    scorer.asked.clear()
    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(RunError, match=r"cannot write '.*a.csv' \(No space left on device\)"):
        call(out)
    monkeypatch.setattr(Path, "open", opened)
    # The head of the table takes the first flush.
    assert len(scorer.asked) == room
    assert stored_or_shown(out, capsys.readouterr().out, chunks(scorer))
    call(out)
    assert out.read_bytes() == (tmp_path / "expected.csv").read_bytes()


FULL = f"""
import sys
from measure import FakeProxies, swap_by_place
from jnas import cli
from jnas.run import compilation_cache, score

class Told(FakeProxies):
    def __call__(self, space, *arguments, **options):
        estimator = super().__call__(space, *arguments, **options)
        def evaluate(key, candidates):
            print("computed", *[space.to_string(a) for a in candidates.architectures], file=sys.stderr)
            return estimator.evaluate(key, candidates)
        return estimator._replace(evaluate=evaluate)

score.proxies = Told(swap_by_place, {CHUNK})
compilation_cache.enable_compilation_cache = lambda: None
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.fixture
def small_disk(tmp_path):
    """A folder with a file system of its own, of 192 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=192k", "tmpfs", place], check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a small file system cannot be mounted here")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_disk_that_is_really_full(small_disk, tmp_path):
    out = small_disk / "a.csv"

    def run():
        arguments = ["score", "--proxies", "naswot", "--archs", "random:900", "--out", str(out)]
        return subprocess.run(
            [sys.executable, "-c", FULL, *arguments],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])},
            capture_output=True,
            text=True,
            timeout=120,
        )

    done = run()
    lines = done.stderr.splitlines()
    computed = [line.split()[1:] for line in lines if line.startswith("computed ")]
    assert done.returncode == 1, done.stderr
    complaints = [line for line in lines if line.startswith("jnas: ")]
    assert len(complaints) == 1 and re.search(
        r"jnas: failed: cannot write '.*a\.csv(\.journal)?' .*then run the same command again", complaints[0]
    )
    assert computed
    # The journal needs room even to be read where its last writer was cut off.
    subprocess.run(["mount", "-o", "remount,size=4m", small_disk], check=True)
    assert stored_or_shown(out, done.stdout, computed)
    before = {name for chunk in computed for name in chunk}
    again = run()
    assert again.returncode == 0, again.stderr
    later = {
        word for line in again.stderr.splitlines() if line.startswith("computed ") for word in line.split()
    }
    # At most what was shown, and not stored, is computed a second time.
    assert len(before & later) <= CHUNK
    with out.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 900
    for row in rows[::90]:
        representative = np.asarray(SPACE.canonical(SPACE.from_string(row["architecture"])))
        assert float(row["naswot"]) == swap_by_place(representative, "naswot")[0]


# ------------------------------------------------------------------------------------------------------- tables


def test_columns():
    assert columns(["zen"]) == ["architecture", "zen", "zen_status", "params", "flops"]
    assert columns(["flops", "zen"]) == [
        "architecture", "flops", "flops_status", "zen", "zen_status", "params",
    ]  # fmt: skip


def test_the_csv_is_plain_and_complete_after_each_append(tmp_path):
    path = tmp_path / "a.csv"
    with open_csv(path, columns(["zen"])) as append:
        assert path.read_bytes() == b"architecture,zen,zen_status,params,flops\n"
        append([["|a|", 0.1, "ok", 3, 4], ["|b|", math.nan, "not_finite", 5, 6]])
        assert path.read_bytes().splitlines()[1:] == [b"|a|,0.1,ok,3,4", b"|b|,nan,not_finite,5,6"]
        append([])
        append([["|c|", np.float64(1) / 3, "ok", 7, 8]])
    assert path.read_bytes().splitlines()[3:] == [b"|c|,0.3333333333333333,ok,7,8"]
    assert as_csv([["x,y", 1]]) == '"x,y",1\n'


def test_parquet_equals_csv(scorer, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    expected = call(tmp_path / "a.csv", proxies=["naswot", "params"])
    scores = call(tmp_path / "a.parquet", proxies=["naswot", "params"])
    table = parquet.read_table(tmp_path / "a.parquet").to_pydict()
    with (tmp_path / "a.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(table) == list(rows[0]) == list(expected.columns)
    for name, values in table.items():
        assert [type(values[0])(row[name]) for row in rows] == values
        assert scores[name].tolist() == values
    assert {type(table[name][0]) for name in ("naswot",)} == {float} and type(table["params"][0]) is int
    assert [p.name for p in tmp_path.iterdir() if "tmp" in p.name] == []


def test_parquet_keeps_what_is_not_finite(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    write_parquet(tmp_path / "a.parquet", {"zen": np.array([math.nan, math.inf, -math.inf, 0.1])})
    values = parquet.read_table(tmp_path / "a.parquet").to_pydict()["zen"]
    assert math.isnan(values[0]) and values[1:] == [math.inf, -math.inf, 0.1]


def test_parquet_goes_on_from_the_journal(scorer, tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / "a.parquet"
    call(out, "random:8")
    first = {name for chunk in chunks(scorer) for name in chunk}
    scorer.asked.clear()
    call(out, "random:20")
    assert scorer.asked and not first & {name for chunk in chunks(scorer) for name in chunk}
    assert parquet.read_table(out).num_rows == 20


def test_a_disk_full_for_parquet_keeps_the_table_before(scorer, tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / "a.parquet"
    call(out, "random:8")
    kept = out.read_bytes()

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("jnas.store.folder.os.fsync", full)
        with pytest.raises(RunError, match=r"cannot write '.*a.parquet' \(No space left on device\)"):
            call(out, "random:20")
    assert out.read_bytes() == kept
    scorer.asked.clear()
    call(out, "random:20")
    assert scorer.asked == [] and parquet.read_table(out).num_rows == 20


def test_parquet_without_pyarrow_is_said_before_the_work(scorer, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"pip install 'jnas\[parquet\]', or write a .csv"):
        call(tmp_path / "a.parquet")
    assert scorer.asked == [] and list(tmp_path.iterdir()) == []
