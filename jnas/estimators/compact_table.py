"""Accuracies of many architectures as one small file: what every architecture reached, by seed and epoch.

A table is an `.npz` without pickles. Architectures are numbers in the space's lexicographic order, accuracies multiples
of 0.002 % in 16 bits, which hundredths of a percent (NAS-Bench-201's) pass through unchanged: 15,625 cells with three
seeds take some hundred kilobytes. Where the architectures are canonical ones alone, they stand for their equivalents.
"""

import csv
import gzip
import io
import re
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from jnas import spaces
from jnas.errors import InputError

FORMAT = "jnas table 1"
UNIT = 0.002
# Of a seed that was not trained, or whose training diverged.
MISSING = np.iinfo(np.uint16).max

# Columns that a CSV must have.
COLUMNS = ("architecture", "test_acc")

# Tables that come with jnas, made by `jnas table build` with its defaults.
SHIPPED = {"digits": Path(__file__).with_name("digits_table.npz")}


@dataclass(frozen=True)
class Table:
    """Letters: A architectures, S seeds, T epochs.

    space, data: what was trained on what. architectures: int32[A, D]. epochs: int32[T], ascending, the numbers of
    epochs after which accuracies were measured. accuracy: float32[A, S, T], in percent, nan where there is none.
    seconds: float32[A], of training one seed to the last epoch, nan where unknown. parameters: int64[A], of the
    networks that were trained, None where unknown.
    """

    space: str
    data: str
    architectures: np.ndarray
    epochs: np.ndarray
    accuracy: np.ndarray
    seconds: np.ndarray
    parameters: np.ndarray | None = None

    @cached_property
    def _places(self) -> dict[int, int]:
        codes = np.asarray(spaces.get(self.space).index(self.architectures)).tolist()
        return {code: row for row, code in enumerate(codes)}

    def rows(self, architectures: ArrayLike) -> np.ndarray:
        """Rows of architectures int32[B, D], or else of their canonical forms: int64[B], -1 where neither does."""
        space, places = spaces.get(self.space), self._places
        own, canonical = (
            np.asarray(space.index(array)).tolist()
            for array in (architectures, space.canonical(np.asarray(architectures)))
        )
        return np.array(
            [places.get(a, places.get(b, -1)) for a, b in zip(own, canonical, strict=True)], np.int64
        )

    def mean(self, epoch: int = 0) -> np.ndarray:
        """Mean over seeds after `epoch` epochs, 0 for the last: float64[A]; nan where no seed has a value.

        Raises `InputError` for an epoch after which nothing was measured.
        """
        values = self.accuracy[:, :, self.place(epoch)].astype(np.float64)
        counted = np.isfinite(values)
        total = np.where(counted, values, 0).sum(axis=1)
        return np.where(counted.any(axis=1), total / np.maximum(counted.sum(axis=1), 1), np.nan)

    def place(self, epoch: int) -> int:
        """Place of an epoch among `epochs`, 0 for the last. Raises `InputError` where it is not there."""
        if not epoch:
            return len(self.epochs) - 1
        if epoch not in self.epochs:
            known = ", ".join(map(str, self.epochs))
            raise InputError(f"the table has no accuracies after epoch {epoch}: choose among {known}")
        return int(np.flatnonzero(self.epochs == epoch)[0])


def to_bytes(table: Table, path: str | Path) -> bytes:
    """The content of the file that `read` reads."""
    codes = np.rint(np.nan_to_num(table.accuracy, nan=0) / UNIT).astype(np.int64)
    if codes.min(initial=0) < 0 or codes.max(initial=0) >= MISSING:
        raise InputError(f"accuracies for '{path}' must be percentages, from 0 to 100")
    counted: dict[str, Any] = (
        {} if table.parameters is None else {"parameters": table.parameters.astype(np.uint32)}
    )
    with io.BytesIO() as stream:
        np.savez_compressed(
            stream, **counted, format=np.array(FORMAT), space=np.array(table.space), data=np.array(table.data),
            architectures=np.asarray(spaces.get(table.space).index(table.architectures)).astype(np.uint32),
            epochs=table.epochs.astype(np.int32),
            accuracy=np.where(np.isfinite(table.accuracy), codes, MISSING).astype(np.uint16),
            seconds=table.seconds.astype(np.float32),
        )  # fmt: skip
        return stream.getvalue()


def read(path: str | Path) -> Table:
    """The table in a file of what `to_bytes` gave. Raises `InputError` where there is none or it is damaged."""
    try:
        # Opened here, as NumPy leaves a damaged file open.
        with Path(path).open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            content = {name: file[name] for name in file.files}
        if str(content["format"]) != FORMAT:
            raise ValueError(f"format {content['format']}")
        space = spaces.get(str(content["space"]))
        codes = content["accuracy"]
        numbers = content["architectures"].astype(np.int64)
        parameters = content["parameters"].astype(np.int64) if "parameters" in content else None
        of_each = [content["seconds"], *([] if parameters is None else [parameters])]
        if (
            codes.shape[::2] != (len(numbers), len(content["epochs"]))
            or (numbers >= space.size).any()
            or any(array.shape != numbers.shape for array in of_each)
        ):
            raise ValueError("its arrays do not fit each other")
        return Table(
            space.name, str(content["data"]),
            np.stack(np.unravel_index(numbers, space.decisions), axis=-1).astype(np.int32), content["epochs"],
            np.where(codes == MISSING, np.nan, codes * UNIT).astype(np.float32), content["seconds"], parameters,
        )  # fmt: skip
    except FileNotFoundError:
        raise InputError(f"no table '{path}': make it with jnas table build or jnas table import") from None
    except InputError:
        raise
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        text = " ".join(str(error).split())
        raise InputError(f"'{path}' is damaged or no table of jnas's ({text}): make it again") from None


def from_csv(path: str | Path, space: str, column: str = "") -> Table:
    """The table in a CSV or gzipped CSV with the columns `architecture` and `test_acc`, in percent.

    Columns `test_acc_run0`, `test_acc_run1`, ... are the seeds where they are there; `column` names another one, which
    is then the only one that is read. A CSV says nothing of epochs and seconds: its accuracies are those after 1 epoch,
    its seconds nan. Raises `InputError` as `read_accuracies` does.
    """
    wanted = re.escape(column) if column else r"test_acc(_run\d+)?"
    columns = _columns(path, wanted, ("architecture", column or "test_acc"))
    runs = [name for name in columns if name.startswith("test_acc_run")] or ["test_acc"]
    names = columns["architecture"]
    if not names:
        raise InputError(f"table '{path}' has no rows: give one with an architecture a row")
    architectures = np.stack([spaces.get(space).from_string(name) for name in names])
    accuracy = np.stack(
        [np.array(columns[name], np.float32) for name in ([column] if column else runs)], axis=1
    )
    epochs, seconds = np.ones(1, np.int32), np.full(len(names), np.nan, np.float32)
    return Table(space, Path(path).name, architectures, epochs, accuracy[:, :, None], seconds)


def read_accuracies(path: str | Path) -> dict[str, float]:
    """Test accuracy in percent by architecture string, from a CSV or gzipped CSV with the two `COLUMNS`.

    Raises `InputError` for a file that is missing, unreadable or without these columns.
    """
    columns = _columns(path, "test_acc")
    return dict(zip(columns["architecture"], columns["test_acc"], strict=True))


def _columns(path: str | Path, wanted: str, needed: tuple[str, ...] = COLUMNS) -> dict[str, list[Any]]:
    """The column `architecture` as text; as numbers those that match `wanted`. Empty is nan, but in those `needed`."""
    path = Path(path)
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8", newline="") as stream:
            rows = csv.DictReader(stream)
            names = rows.fieldnames or ()
            if missing := [name for name in needed if name not in names]:
                raise InputError(
                    f"table '{path}' lacks the column {missing[0]}: it needs {', '.join(needed)}"
                )
            numbers = [name for name in names if re.fullmatch(wanted, name)]
            columns: dict[str, list[Any]] = {name: [] for name in ("architecture", *numbers)}
            for row in rows:
                columns["architecture"].append(row["architecture"])
                for name in numbers:
                    columns[name].append(float(row[name] if name in needed else row[name] or "nan"))
            return columns
    except FileNotFoundError:
        raise InputError(f"no table '{path}': give the path of a CSV file, or leave --table away") from None
    except InputError:
        raise
    except (OSError, EOFError, ValueError, TypeError, csv.Error) as error:
        text = " ".join(str(error).split())
        raise InputError(
            f"cannot read the table '{path}' ({text}): give a CSV file, gzipped if it ends in .gz"
        ) from None


def open_table(path: str | Path, space: str = "nasbench201") -> Table:
    """The table of `SHIPPED` by that name, `read` of an `.npz`, `from_csv` of anything else."""
    if str(path) in SHIPPED:
        return read(SHIPPED[str(path)])
    return read(path) if Path(path).suffix == ".npz" else from_csv(path, space)
