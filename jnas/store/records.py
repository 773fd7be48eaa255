"""Every evaluation of a run as it happened, in one SQLite file with one writer.

A call that returned is on disk: `kill -9` at any moment loses at most the call in flight. Values are stored
as the 64-bit floats they are, so that a resumed run continues from exactly the numbers of the interrupted
one; a value that is not finite is stored with its status and never stops anything.
"""

import contextlib
import math
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from jnas.errors import InputError, RunError

SCHEMA_VERSION = "1"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS evaluations (
    stage TEXT NOT NULL, round INTEGER NOT NULL, repeat INTEGER NOT NULL, candidate INTEGER NOT NULL,
    proxy TEXT NOT NULL, subject TEXT NOT NULL, value REAL, status TEXT NOT NULL, seconds REAL NOT NULL,
    PRIMARY KEY (stage, round, repeat, candidate, proxy)
) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Evaluation:
    """One value of one proxy: `subject` says of what (an architecture, 'supernet', 'edge 3 without ...')."""

    stage: str
    round: int
    repeat: int
    candidate: int
    proxy: str
    subject: str
    value: float
    seconds: float

    @property
    def status(self) -> str:
        """'ok', or what kept the value from being a number: 'nan', 'inf', '-inf'."""
        return "ok" if math.isfinite(self.value) else str(self.value)


class Records:
    """The evaluations of one run; made by `open_records`."""

    def __init__(self, connection: sqlite3.Connection, path: Path):
        self._connection = connection
        self._path = path

    def add(self, evaluations: Iterable[Evaluation]) -> None:
        """Store evaluations, all or none; one stored before under the same five keys is replaced.

        Raises `RunError` when the disk is full or the file system fails.
        """
        rows = [
            # SQLite has no nan: the value stays empty, and the status says so.
            (e.stage, e.round, e.repeat, e.candidate, e.proxy, e.subject,
             None if math.isnan(e.value) else float(e.value), e.status, float(e.seconds))
            for e in evaluations
        ]  # fmt: skip
        with translated(self._path), self._connection:
            self._connection.executemany(
                "INSERT OR REPLACE INTO evaluations VALUES (?,?,?,?,?,?,?,?,?)", rows
            )

    def values(self, stage: str, round: int, proxy: str, repeat: int) -> dict[int, float]:
        """The finished values by candidate, exactly as they were added; empty where nothing is finished."""
        query = "SELECT candidate, value FROM evaluations WHERE stage=? AND round=? AND proxy=? AND repeat=?"
        with translated(self._path):
            rows = self._connection.execute(query, (stage, round, proxy, repeat)).fetchall()
        return {candidate: math.nan if value is None else value for candidate, value in rows}

    def all(self) -> list[Evaluation]:
        """Every evaluation, ordered by its five keys."""
        query = (
            "SELECT stage, round, repeat, candidate, proxy, subject, value, seconds FROM evaluations"
            " ORDER BY stage, round, repeat, candidate, proxy"
        )
        with translated(self._path):
            rows = self._connection.execute(query).fetchall()
        return [
            Evaluation(*row) if row[6] is not None else replace(Evaluation(*row), value=math.nan)
            for row in rows
        ]


@contextlib.contextmanager
def open_records(path: Path, digest: str) -> Iterator[Records]:
    """The records in the file `path`, made where there are none, for the configuration with this digest.

    The caller sees to it that nobody else writes the file (`run_folder.open_run` locks the folder).
    Raises `InputError` for a file that is no database, is damaged, of another version or of another
    configuration; `RunError` when the disk is full.
    """
    with translated(path):
        connection = sqlite3.connect(path, timeout=10)
    try:
        with translated(path):
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if problem != "ok":
                raise sqlite3.DatabaseError(problem)
            with connection:
                connection.executescript(_SCHEMA)
                meta = [("schema", SCHEMA_VERSION), ("config", digest)]
                connection.executemany("INSERT OR IGNORE INTO meta VALUES (?,?)", meta)
            stored = dict(connection.execute("SELECT key, value FROM meta").fetchall())
        if stored["schema"] != SCHEMA_VERSION:
            raise InputError(
                f"{path}: written in format {stored['schema']}, not {SCHEMA_VERSION}: choose another --out"
            )
        if stored["config"] != digest:
            raise InputError(f"{path}: holds the records of another configuration: choose another --out")
        yield Records(connection, path)
    finally:
        connection.close()


def read_records(path: Path) -> list[Evaluation]:
    """Every evaluation in the file `path`, only read. Raises `InputError` as `open_records` does."""
    with (
        translated(path),
        contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db,
    ):
        return Records(db, path).all()


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
