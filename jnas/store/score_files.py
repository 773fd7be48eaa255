"""The files of a scoring or a table: a journal that survives a kill, and the table as CSV or Parquet.

    OUT           one row an architecture, in the order asked for; a CSV grows while rows are computed
    OUT.journal   the records (`jnas.store.records`)

The journal belongs to one configuration, but not to a list of architectures or proxies: asking for more goes on from
it. A call that returned is on disk.
"""

import contextlib
import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from jnas.config import score as scoring_config
from jnas.errors import InputError
from jnas.settings import Settings
from jnas.store.folder import write_file, writing
from jnas.store.records import Records, open_records

SUFFIXES = (".csv", ".parquet")


@contextlib.contextmanager
def open_journal(out: Path, config: Settings, parts: Sequence[str | Path] = ()) -> Iterator[Records]:
    """The journal beside `out`, for this configuration, with the evaluations of the journals beside `parts`.

    config: of a scoring or a table. Raises `InputError` when a journal is damaged, in use, of another configuration or
    cannot be written, and when `out` exists without one.
    """
    path, others = journal_path(out), [journal_path(Path(part)) for part in parts]
    if out.is_dir():
        raise InputError(f"--out '{out}' is a folder: give a file ending in {' or '.join(SUFFIXES)}")
    if out.exists() and out.stat().st_size and not path.exists():
        raise InputError(f"'{out}' exists and is not an unfinished or finished scoring: give another --out")
    for other in others:
        if not other.is_file():
            raise InputError(f"no '{other}': --merge takes the --out of finished shards")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.exists():
            out.open("a").close()
        if not path.is_dir():
            path.open("a").close()
    except OSError as error:
        raise InputError(f"cannot write '{out}' ({error.strerror}): give another --out") from None
    free = [name for name in scoring_config.FREE if hasattr(config, name)]
    with open_records(path, config, free, others) as records:
        yield records


def journal_path(out: Path) -> Path:
    """The path of the journal of `out`."""
    return out.with_name(f"{out.name}.journal")


def columns(proxies: Sequence[str]) -> list[str]:
    """The columns of the table: architecture, each proxy with its status, params and flops."""
    scored = [name for proxy in proxies for name in (proxy, f"{proxy}_status")]
    return ["architecture", *scored, *(name for name in ("params", "flops") if name not in proxies)]


@contextlib.contextmanager
def open_csv(path: Path, header: Sequence[str]) -> Iterator[Callable[[Iterable[Sequence[object]]], None]]:
    """A new CSV as a function that appends whole rows, which are on their way to the disk when it returns.

    Raises `RunError` when the disk is full.
    """
    with writing(path):
        stream = path.open("w", encoding="utf-8", newline="")
    writer = csv.writer(stream, lineterminator="\n")

    def append(rows: Iterable[Sequence[object]]) -> None:
        with writing(path):
            writer.writerows(rows)
            stream.flush()

    try:
        append([header])
        yield append
    finally:
        # On a full disk what is still buffered cannot be written; the journal has it.
        with contextlib.suppress(OSError):
            stream.close()


def as_csv(rows: Iterable[Sequence[object]]) -> str:
    """Rows as CSV text."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def write_parquet(path: Path, table: Mapping[str, np.ndarray]) -> None:
    """Write columns as Parquet in one step. Raises `InputError` without pyarrow, `RunError` on a full disk."""
    pyarrow, parquet = require_pyarrow()
    with io.BytesIO() as stream:
        parquet.write_table(pyarrow.table({name: list(values) for name, values in table.items()}), stream)
        write_file(path, stream.getvalue())


def require_pyarrow():
    """pyarrow and its Parquet module, or `InputError` that says how to get them."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InputError("Parquet needs pyarrow: pip install 'jnas[parquet]', or write a .csv") from None
    return pyarrow, pyarrow.parquet
