"""Every evaluation as it happened, in one SQLite file with one writer: runs, scorings and tables of accuracies.

    evaluations   stage, subject, objective, round, place: value (higher is better), status, seconds
    rounds        stage, round: what a strategy told of it, as JSON
    meta          format of the file, settings of its first writer

A call that returned is on disk: `kill -9` at any moment loses at most the call in flight. Values are stored as the
64-bit floats they are, so that a resumed run continues from exactly the numbers of the interrupted one.
"""

import contextlib
import fcntl
import json
import math
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from jnas.config import read
from jnas.errors import InputError, RunError
from jnas.settings import Settings

FORMAT = "2"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS evaluations (
    stage TEXT NOT NULL, subject TEXT NOT NULL, objective TEXT NOT NULL, round INTEGER NOT NULL,
    place INTEGER NOT NULL, value REAL, status TEXT NOT NULL, seconds REAL NOT NULL,
    PRIMARY KEY (stage, subject, objective, round, place)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rounds (
    stage TEXT NOT NULL, round INTEGER NOT NULL, info TEXT NOT NULL, PRIMARY KEY (stage, round)
) WITHOUT ROWID;
"""
_TABLES = {"meta", "evaluations", "rounds"}


class Evaluation(NamedTuple):
    """One value of one objective.

    stage: part of a run, such as `search`.
    subject: the object of the value, such as an architecture's text.
    objective: a name of `Estimator.objectives`, or of a curve.
    round, place: the first question for it, and the place among its candidates; an epoch of a curve.
    status: one of `jnas.types.STATUSES`.
    seconds: the time that it took.
    """

    stage: str
    subject: str
    objective: str
    round: int
    place: int
    value: float
    status: str
    seconds: float


# What makes a question another one although it is about the same object.
_QUALIFIED = re.compile(r"(.*?)(?:, parent (-?\d+))?(?:, fidelity (\S+))?", re.DOTALL)


def qualified(text: str, parent: int | None, fidelity: float | None) -> str:
    """The subject of an evaluation of `text` that inherits weights, or is of a share of the full training."""
    text += "" if parent is None else f", parent {parent:d}"
    return text + ("" if fidelity is None else f", fidelity {fidelity:g}")


def unqualified(subject: str) -> tuple[str, float]:
    """The text of a subject and its fidelity, 1 where it says none."""
    match = _QUALIFIED.fullmatch(subject)
    assert match
    return match[1], float(match[3] or 1)


@dataclass(frozen=True)
class Records:
    """The evaluations in one file; made by `open_records`."""

    connection: sqlite3.Connection
    path: Path

    def add(self, evaluations: Iterable[Evaluation]) -> None:
        """Store evaluations, all or none; one stored before under the same first five fields is replaced.

        Raises `RunError` when the disk is full or the file system fails.
        """
        # SQLite has no nan: the value stays empty.
        rows = [(*e[:5], None if math.isnan(e.value) else float(e.value), *e[6:]) for e in evaluations]
        with translated(self.path), self.connection:
            self.connection.executemany("INSERT OR REPLACE INTO evaluations VALUES (?,?,?,?,?,?,?,?)", rows)

    def note(self, stage: str, round: int, info: Mapping[str, Any]) -> None:
        """Store the information of a round, plain values by name. Raises `RunError` when the disk is full."""
        row = stage, round, json.dumps(info)
        with translated(self.path), self.connection:
            self.connection.execute("INSERT OR REPLACE INTO rounds VALUES (?,?,?)", row)

    def values(self, stage: str) -> dict[tuple[str, str], Evaluation]:
        """The first evaluation of each subject and objective, exactly as it was added."""
        first: dict[tuple[str, str], Evaluation] = {}
        for evaluation in self._select("WHERE stage=? ORDER BY round, place", stage):
            first.setdefault((evaluation.subject, evaluation.objective), evaluation)
        return first

    def all(self) -> list[Evaluation]:
        """Every evaluation by stage, round, place and objective."""
        return self._select("ORDER BY stage, round, place, objective, subject")

    def _select(self, condition: str, *values: Any) -> list[Evaluation]:
        with translated(self.path):
            rows = self.connection.execute(f"SELECT * FROM evaluations {condition}", values).fetchall()
        evaluations = map(Evaluation._make, rows)
        return [e._replace(value=math.nan) if e.value is None else e for e in evaluations]


@contextlib.contextmanager
def open_records(
    path: Path, config: Settings, free: Sequence[str] = (), parts: Sequence[Path] = ()
) -> Iterator[Records]:
    """The records in the file `path`, made where there are none, for this process alone.

    Args:
      config: everything that the values depend on, kept in a new file. A key that is new since then has its default
        there too.
      free: names of fields of `config` on which no value depends.
      parts: further files of the same settings, whose evaluations are taken over.

    Raises `InputError` for a file that is no database, is damaged, in use, of another format or of other settings;
    `RunError` when the disk is full.
    """
    with (
        locked(path, f"cannot use '{path}'", f"'{path}' is in use by another process"),
        _connect(path) as connection,
    ):
        settings = {name: value for name, value in read.to_mapping(config).items() if name not in free}
        with translated(path), connection:
            # In one transaction: a kill leaves all tables or none.
            connection.execute("BEGIN IMMEDIATE")
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            meta = [("format", FORMAT), ("settings", json.dumps(settings, sort_keys=True))]
            connection.executemany("INSERT OR IGNORE INTO meta VALUES (?,?)", meta)
        _require_same_settings(path, connection, config, free)
        records = Records(connection, path)
        for part in parts:
            with _connect(part, read_only=True) as other:
                _require_same_settings(part, other, config, free)
                records.add(Records(other, part).all())
        yield records


@contextlib.contextmanager
def locked(path: Path, cannot: str, busy: str) -> Iterator[None]:
    """Hold the file `path`, made where it is missing, for this process alone; the errors begin with `cannot`, `busy`.

    The system lets go of such a lock when its process ends, however it ends: no kill leaves a stale one.
    """
    try:
        stream = path.open("a")
    except OSError as error:
        raise InputError(f"{cannot} ({error.strerror}): give another --out") from None
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"{busy}: wait for it, or give another --out") from None
        yield


def read_records(path: Path) -> list[Evaluation]:
    """Every evaluation in the file `path`, only read. Raises `InputError` as `open_records` does."""
    with _connect(path, read_only=True) as connection:
        return Records(connection, path).all()


@contextlib.contextmanager
def _connect(path: Path, read_only: bool = False) -> Iterator[sqlite3.Connection]:
    with translated(path):
        address = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"
        connection = sqlite3.connect(address, uri=True, timeout=10)
    with contextlib.closing(connection):
        with translated(path):
            tables = {
                name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")
            }
        if tables in ({"meta", "evaluations"}, {"meta", "scores"}):
            raise InputError(
                f"'{path}' is in format 1, of an earlier jnas: finish it by that one, or choose another --out"
            )
        if (tables or read_only) and tables != _TABLES:
            raise InputError(f"'{path}' is a database of something else: choose another --out")
        with translated(path):
            if not read_only:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=FULL")
            problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if problem != "ok":
                raise sqlite3.DatabaseError(problem)
            meta = dict(connection.execute("SELECT key, value FROM meta")) if tables else {"format": FORMAT}
        if meta.get("format") != FORMAT:
            raise InputError(
                f"'{path}' is in format {meta.get('format')}, not {FORMAT}: use the jnas that wrote it, "
                "or choose another --out"
            )
        yield connection


def _require_same_settings(
    path: Path, connection: sqlite3.Connection, config: Settings, free: Sequence[str]
) -> None:
    with translated(path):
        (stored,) = connection.execute("SELECT value FROM meta WHERE key='settings'").fetchone()
    try:
        old = read.from_mapping(type(config), json.loads(stored))
        changes = read.differences(
            msgspec.structs.replace(old, **{name: getattr(config, name) for name in free}), config
        )
    except ValueError as error:
        raise InputError(f"{path}: its settings cannot be read ({error}): choose another --out") from None
    if changes:
        raise InputError(
            f"{path}: holds results of another configuration ({'; '.join(changes)}): choose another --out"
        )


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """SQLite's exceptions as ours: a damaged file is input, a failing machine is not."""
    try:
        yield
    except sqlite3.OperationalError as error:
        text = str(error)
        if any(sign in text for sign in ("unable to open", "readonly", "no such table", "locked")):
            raise InputError(
                f"cannot use '{path}' ({text}): make it readable and writable, or choose another --out"
            ) from None
        raise RunError(
            f"cannot write '{path}' ({text}): free the disk, then run the same command again"
        ) from error
    except sqlite3.DatabaseError as error:
        text = " ".join(str(error).replace("***", "").split())
        raise InputError(
            f"'{path}' is damaged ({text}): restore it, or delete it to evaluate everything anew"
        ) from None
