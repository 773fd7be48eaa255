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
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jnas.errors import InputError, RunError

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


class Records:
    """The evaluations in one file; made by `open_records`."""

    def __init__(self, connection: sqlite3.Connection, path: Path):
        self._connection = connection
        self._path = path

    def add(self, evaluations: Iterable[Evaluation]) -> None:
        """Store evaluations, all or none; one stored before under the same first five fields is replaced.

        Raises `RunError` when the disk is full or the file system fails.
        """
        # SQLite has no nan: the value stays empty.
        rows = [(*e[:5], None if math.isnan(e.value) else float(e.value), *e[6:]) for e in evaluations]
        with translated(self._path), self._connection:
            self._connection.executemany("INSERT OR REPLACE INTO evaluations VALUES (?,?,?,?,?,?,?,?)", rows)

    def note(self, stage: str, round: int, info: Mapping[str, Any]) -> None:
        """Store the information of a round, plain values by name. Raises `RunError` when the disk is full."""
        with translated(self._path), self._connection:
            self._connection.execute(
                "INSERT OR REPLACE INTO rounds VALUES (?,?,?)", (stage, round, json.dumps(info))
            )

    def rounds(self, stage: str) -> dict[int, dict[str, Any]]:
        """The information of each round, by its number."""
        query = "SELECT round, info FROM rounds WHERE stage=? ORDER BY round"
        with translated(self._path):
            return {round: json.loads(info) for round, info in self._connection.execute(query, (stage,))}

    def values(self, stage: str) -> dict[tuple[str, str], Evaluation]:
        """The first evaluation of each subject and objective, exactly as it was added."""
        first: dict[tuple[str, str], Evaluation] = {}
        for evaluation in self._select("WHERE stage=? ORDER BY round, place", stage):
            first.setdefault((evaluation.subject, evaluation.objective), evaluation)
        return first

    def all(self) -> list[Evaluation]:
        """Every evaluation by stage, round, place and objective."""
        return self._select("ORDER BY stage, round, place, objective, subject")

    def merge(self, path: Path, compare: Callable[[str], Sequence[str]]) -> None:
        """Take over the evaluations in another file of the same settings. Raises `InputError` as `open_records`."""
        with _connect(path, read_only=True) as other:
            _require_same_settings(path, other, compare)
            self.add(Records(other, path)._select(""))

    def _select(self, condition: str, *values: Any) -> list[Evaluation]:
        with translated(self._path):
            rows = self._connection.execute(f"SELECT * FROM evaluations {condition}", values).fetchall()
        evaluations = map(Evaluation._make, rows)
        return [e._replace(value=math.nan) if e.value is None else e for e in evaluations]


@contextlib.contextmanager
def open_records(path: Path, settings: str, compare: Callable[[str], Sequence[str]]) -> Iterator[Records]:
    """The records in the file `path`, made where there are none, for this process alone.

    Args:
      settings: everything that the values depend on, as text; kept in a new file.
      compare: the settings kept in the file to their differences from these ones, a line each. They are read again,
        so that a key that is new since then has its default in both.

    Raises `InputError` for a file that is no database, is damaged, in use, of another format or of other settings;
    `RunError` when the disk is full.
    """
    try:
        stream = path.open("a")
    except OSError as error:
        raise InputError(
            f"cannot use '{path}' ({error.strerror}): remove it, or choose another --out"
        ) from None
    with stream:
        try:
            # The system lets go of such a lock when its process ends, however it ends.
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(
                f"'{path}' is in use by another process: wait for it, or choose another --out"
            ) from None
        with _connect(path) as connection:
            with translated(path), connection:
                # In one transaction: a kill leaves all tables or none.
                connection.execute("BEGIN IMMEDIATE")
                for statement in _SCHEMA.split(";"):
                    connection.execute(statement)
                meta = [("format", FORMAT), ("settings", settings)]
                connection.executemany("INSERT OR IGNORE INTO meta VALUES (?,?)", meta)
            _require_same_settings(path, connection, compare)
            yield Records(connection, path)


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
    path: Path, connection: sqlite3.Connection, compare: Callable[[str], Sequence[str]]
) -> None:
    with translated(path):
        (stored,) = connection.execute("SELECT value FROM meta WHERE key='settings'").fetchone()
    try:
        changes = compare(stored)
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
        raise InputError(
            f"'{path}' is damaged ({_one_line(error)}): restore it, or delete it to evaluate everything anew"
        ) from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).replace("***", "").split())
