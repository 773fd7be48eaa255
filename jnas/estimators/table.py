"""Accuracies that somebody has measured already, looked up by architecture."""

import csv
import gzip
from pathlib import Path

from jnas.errors import InputError

COLUMNS = ("architecture", "test_acc")


def read_accuracies(path: str | Path) -> dict[str, float]:
    """Test accuracy in percent by architecture string, from a CSV or gzipped CSV with the two `COLUMNS`.

    Raises `InputError` for a file that is missing, unreadable or without these columns.
    """
    path = Path(path)
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8", newline="") as stream:
            rows = csv.DictReader(stream)
            missing = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
            if missing:
                raise InputError(
                    f"table '{path}' lacks the column {missing[0]}: it needs {', '.join(COLUMNS)}"
                )
            return {row["architecture"]: float(row["test_acc"]) for row in rows}
    except FileNotFoundError:
        raise InputError(f"no table '{path}': give the path of a CSV file, or leave --table away") from None
    except InputError:
        raise
    except (OSError, EOFError, ValueError, TypeError, csv.Error) as error:
        text = " ".join(str(error).split())
        raise InputError(
            f"cannot read the table '{path}' ({text}): give a CSV file, gzipped if it ends in .gz"
        ) from None
