"""Accuracies that somebody has measured already, looked up by architecture."""

import csv
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jnas.errors import InputError

COLUMNS = ("architecture", "test_acc")


def read_accuracies(path: str | Path) -> dict[str, float]:
    """Test accuracy in percent by architecture string, from a CSV or gzipped CSV with the two `COLUMNS`.

    Raises `InputError` for a file that is missing, unreadable or without these columns.
    """
    columns = read_columns(path, lambda name: name == "test_acc")
    return dict(zip(columns["architecture"], columns["test_acc"], strict=True))


def read_columns(path: str | Path, wanted: Callable[[str], bool]) -> dict[str, list[Any]]:
    """The column `architecture` as text and the `wanted` ones as numbers, from a CSV with at least the two `COLUMNS`.

    An empty field is nan, but in `COLUMNS`.
    Raises `InputError` for a file that is missing, unreadable or without these columns.
    """
    path = Path(path)
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8", newline="") as stream:
            rows = csv.DictReader(stream)
            names = rows.fieldnames or ()
            missing = [name for name in COLUMNS if name not in names]
            if missing:
                raise InputError(
                    f"table '{path}' lacks the column {missing[0]}: it needs {', '.join(COLUMNS)}"
                )
            numbers = [name for name in names if wanted(name)]
            columns: dict[str, list[Any]] = {"architecture": [], **{name: [] for name in numbers}}
            for row in rows:
                columns["architecture"].append(row["architecture"])
                for name in numbers:
                    columns[name].append(float(row[name] if name in COLUMNS else row[name] or "nan"))
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
