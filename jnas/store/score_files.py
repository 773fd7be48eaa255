"""The files of a scoring: a journal that survives a kill, and the table as CSV or Parquet.

    OUT           one row an architecture, in the order asked for; a CSV grows while rows are computed
    OUT.journal   SQLite: every value as the 64-bit float it is, by architecture and proxy

The journal belongs to one configuration, but not to a list of architectures or proxies: asking for more goes
on from what is there. A call that returned is on disk.
"""

import contextlib
import csv
import fcntl
import io
import json
import math
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from jnas.config import read
from jnas.config import score as scoring_config
from jnas.errors import InputError, RunError
from jnas.settings import Settings
from jnas.store.records import translated

SUFFIXES = (".csv", ".parquet")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS scores (
    architecture TEXT NOT NULL, proxy TEXT NOT NULL, value REAL, status TEXT NOT NULL,
    PRIMARY KEY (architecture, proxy)
) WITHOUT ROWID;
"""
Values = Mapping[str, tuple[float, str]]


class Journal:
    """The scores computed so far; made by `open_journal`."""

    def __init__(self, connection: sqlite3.Connection, path: Path):
        self._connection, self._path = connection, path

    def add(self, rows: Iterable[tuple[str, str, float, str]]) -> None:
        """Store (architecture, proxy, value, status), all or none. Raises `RunError` when the disk is full."""
        # SQLite has no nan: the value stays empty.
        stored = [(a, p, None if math.isnan(v) else float(v), s) for a, p, v, s in rows]
        with translated(self._path), self._connection:
            self._connection.executemany("INSERT OR REPLACE INTO scores VALUES (?,?,?,?)", stored)

    def read(self, proxies: Sequence[str]) -> dict[str, dict[str, tuple[float, str]]]:
        """`{architecture: {proxy: (value, status)}}` of these proxies."""
        marks = ",".join("?" * len(proxies))
        query = f"SELECT architecture, proxy, value, status FROM scores WHERE proxy IN ({marks})"
        found: dict[str, dict[str, tuple[float, str]]] = {}
        with translated(self._path):
            for architecture, proxy, value, status in self._connection.execute(query, tuple(proxies)):
                found.setdefault(architecture, {})[proxy] = (math.nan if value is None else value, status)
        return found


@contextlib.contextmanager
def open_journal(out: Path, config: Settings) -> Iterator[Journal]:
    """The journal beside `out`, for this configuration.

    config: of a scoring or a table.
    Raises `InputError` when the journal is damaged, in use, of another configuration or cannot be written, and when
    `out` exists without one.
    """
    path = journal_path(out)
    if out.is_dir():
        raise InputError(f"--out '{out}' is a folder: give a file ending in {' or '.join(SUFFIXES)}")
    if out.exists() and out.stat().st_size and not path.exists():
        raise InputError(f"'{out}' exists and is not an unfinished or finished scoring: give another --out")
    if path.is_dir():
        raise InputError(f"cannot use '{path}' (it is a folder): remove it, or give another --out")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("a")
        if out.exists():
            out.open("a").close()
    except OSError as error:
        raise InputError(f"cannot write '{out}' ({error.strerror}): give another --out") from None
    with stream:
        try:
            # The system lets go of such a lock when its process ends, however it ends.
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(
                f"'{path}' is in use by another scoring: wait for it, or give another --out"
            ) from None
        with translated(path):
            connection = sqlite3.connect(path, timeout=0.5)
        try:
            with translated(path):
                tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
            if tables and not tables >= {"meta", "scores"}:
                raise InputError(f"'{path}' is a database of something else: choose another --out")
            with translated(path):
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=FULL")
                with connection:
                    connection.executescript(_SCHEMA)
                    digest, settings = scoring_config.digest(config), scoring_config.described(config)
                    connection.execute("INSERT OR IGNORE INTO meta VALUES ('config', ?)", (digest,))
                    connection.execute(
                        "INSERT OR IGNORE INTO meta SELECT 'settings', ? FROM meta "
                        "WHERE key='config' AND value=?",
                        (settings, digest),
                    )
                stored = dict(connection.execute("SELECT key, value FROM meta"))
            if stored["config"] != digest:
                raise InputError(
                    f"{path}: holds scores of another configuration{_changes(stored.get('settings'), config)}: "
                    "choose another --out"
                )
            yield Journal(connection, path)
        finally:
            connection.close()


def _changes(settings: str | None, config: Settings) -> str:
    """The differences in brackets; nothing where they are not known: journals once held no settings."""
    try:
        old = read.from_mapping(type(config), json.loads(settings or ""))
    except (ValueError, InputError):
        return ""
    # Settings that do not change the scores are not compared.
    free = {name: getattr(config, name) for name in scoring_config.FREE if hasattr(config, name)}
    changes = read.differences(msgspec.structs.replace(old, **free), config)
    return f" ({'; '.join(changes)})" if changes else ""


def journal_path(out: Path) -> Path:
    """Where the journal of `out` lies."""
    return out.with_name(f"{out.name}.journal")


def columns(proxies: Sequence[str]) -> list[str]:
    """The columns of the table: architecture, each proxy with its status, params and flops."""
    scored = [name for proxy in proxies for name in (proxy, f"{proxy}_status")]
    return ["architecture", *scored, *(name for name in ("params", "flops") if name not in proxies)]


class CsvTable:
    """A CSV that grows by whole rows; each is on its way to the disk when `append` returns."""

    def __init__(self, path: Path, proxies: Sequence[str]):
        self._path = path
        with _writing(path):
            self._stream = path.open("w", encoding="utf-8", newline="")
        self._writer = csv.writer(self._stream, lineterminator="\n")
        try:
            self._write([columns(proxies)])
        except RunError:
            self.close()
            raise

    def append(self, rows: Iterable[Sequence[object]]) -> None:
        """Raises `RunError` when the disk is full."""
        self._write(rows)

    def close(self) -> None:
        # On a full disk what is still buffered cannot be written; the journal has it.
        with contextlib.suppress(OSError):
            self._stream.close()

    def _write(self, rows: Iterable[Sequence[object]]) -> None:
        with _writing(self._path):
            self._writer.writerows(rows)
            self._stream.flush()


def as_csv(rows: Iterable[Sequence[object]]) -> str:
    """Rows as CSV text."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def write_parquet(path: Path, table: Mapping[str, np.ndarray]) -> None:
    """Write columns as Parquet in one step. Raises `InputError` without pyarrow, `RunError` on a full disk."""
    pyarrow, parquet = require_pyarrow()
    temporary = path.with_name(f".{path.name}.tmp")
    with _writing(path):
        parquet.write_table(pyarrow.table({name: list(values) for name, values in table.items()}), temporary)
        os.replace(temporary, path)


def require_pyarrow():
    """pyarrow and its Parquet module, or `InputError` that says how to get them."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InputError("Parquet needs pyarrow: pip install 'jnas[parquet]', or write a .csv") from None
    return pyarrow, pyarrow.parquet


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(
            f"cannot write '{path}' ({error.strerror}): mend that, then run the same command again"
        ) from error
