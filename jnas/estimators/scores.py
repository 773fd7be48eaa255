"""Scores that `jnas score` wrote, looked up: training-free proxies as an estimator under jit.

    jnas score --proxies naswot,swap --archs all --data cifar10 --out scores.csv
    jnas search --estimator scores:scores.csv --strategy aging --budget 500 --out runs/scores

An architecture that the file does not hold has the scores of its canonical form (`Space.canonical`), or is `missing`.

Letters: B candidates, P objectives.
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from jnas.errors import InputError
from jnas.proxies import sign
from jnas.proxies.combination import oriented
from jnas.spaces import Space
from jnas.types import STATUSES, Candidates, Estimator, Key, Values


def scores(space: Space, path: str, names: Sequence[str] = ()) -> Estimator:
    """The columns `names` of a CSV of `jnas score`, each an objective, by its sign higher is better; none: all proxies.

    Raises `InputError` for a file that cannot be read, a column that is not there, an architecture of another space,
    and a space too large to list.
    """
    rows = _rows(path)
    names = tuple(names) or tuple(key.removesuffix("_status") for key in rows[0] if key.endswith("_status"))
    for name in names:
        if name not in rows[0]:
            raise InputError(f"'{path}' has no column '{name}': choose among {', '.join(rows[0])}")
    places = np.asarray(space.index(np.stack([space.from_string(row["architecture"]) for row in rows])))
    values, held = np.full((space.size, len(names)), -np.inf, np.float32), np.zeros(space.size, bool)
    held[places] = True
    for column, name in enumerate(names):
        # Sizes stand in every file, without a status.
        given = [row.get(f"{name}_status", "ok") for row in rows]
        numbers = np.array([float(row[name]) for row in rows])
        values[places, column] = oriented(numbers, given, sign(name))
    everything = space.all()
    codes = np.asarray(space.index(space.canonical(everything)))
    source = np.where(held, np.arange(space.size), codes)
    missing = ~held[source]
    status = np.where(np.isfinite(values), 0, STATUSES.index("not_finite"))[source].astype(np.int8)
    status[missing] = STATUSES.index("missing")
    return looked_up(space, names, values[source], status, ~missing)


def looked_up(
    space: Space,
    objectives: tuple[str, ...],
    values: np.ndarray,
    status: np.ndarray | None = None,
    members: np.ndarray | None = None,
) -> Estimator:
    """An estimator of values float32[size, P] and their status, higher is better. members: bool[size], None: all."""
    held = jnp.asarray(values, jnp.float32)
    statuses = jnp.asarray(np.zeros(values.shape, np.int8) if status is None else status)

    def evaluate(key: Key, candidates: Candidates) -> Values:
        rows: Any = candidates.architectures
        numbers: Array = space.index(rows)
        return Values(held[numbers], statuses[numbers], jnp.zeros(numbers.shape))

    return Estimator(
        objectives,
        evaluate,
        batch=4096,
        members=None if members is None else lambda: members,
        jittable=True,
    )


def _rows(path: str) -> list[dict[str, str]]:
    """The rows of a CSV with the column `architecture`, at least one."""
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read the scores '{path}' ({error}): give a CSV of jnas score") from None
    if not rows or "architecture" not in rows[0]:
        raise InputError(f"'{path}' has no architectures: give a CSV of jnas score")
    return rows
