"""The files of a scoring or a table: a journal that survives a kill, and the table as CSV or Parquet.

    OUT           one row an architecture, in the order asked for; a CSV grows while rows are computed
    OUT.journal   the records (`jnas.store.records`)

The journal belongs to one configuration, but not to a list of architectures or proxies: asking for more goes on from
it. A call that returned is on disk.
"""

import contextlib
import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from jnas.config import read
from jnas.config import score as scoring_config
from jnas.errors import InputError, RunError
from jnas.settings import Settings
from jnas.store.records import Records, open_records

SUFFIXES = (".csv", ".parquet")


@contextlib.contextmanager
def open_journal(out: Path, config: Settings, parts: Sequence[str | Path] = ()) -> Iterator[Records]:
    """The journal beside `out`, for this configuration, with the evaluations of the journals beside `parts`.

    config: of a scoring or a table. Raises `InputError` when a journal is damaged, in use, of another configuration or
    cannot be written, and when `out` exists without one.
    """
    path = journal_path(out)
    if out.is_dir():
        raise InputError(f"--out '{out}' is a folder: give a file ending in {' or '.join(SUFFIXES)}")
    if out.exists() and out.stat().st_size and not path.exists():
        raise InputError(f"'{out}' exists and is not an unfinished or finished scoring: give another --out")
    for part in parts:
        if not journal_path(Path(part)).is_file():
            raise InputError(f"no '{journal_path(Path(part))}': --merge takes the --out of finished shards")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.exists():
            out.open("a").close()
        if not path.is_dir():
            path.open("a").close()
    except OSError as error:
        raise InputError(f"cannot write '{out}' ({error.strerror}): give another --out") from None

    def compare(stored: str) -> list[str]:
        # Settings on which no value depends are not compared.
        free = {name: getattr(config, name) for name in scoring_config.FREE if hasattr(config, name)}
        old = read.from_mapping(type(config), json.loads(stored))
        return read.differences(msgspec.structs.replace(old, **free), config)

    with open_records(path, scoring_config.described(config), compare) as records:
        for part in parts:
            records.merge(journal_path(Path(part)), compare)
        yield records


def journal_path(out: Path) -> Path:
    """The path of the journal of `out`."""
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
