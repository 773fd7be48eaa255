"""Evaluations of a search as arrays, read from its records."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from scipy.stats import rankdata

from jnas.errors import InputError
from jnas.proxies import sign
from jnas.proxies.combination import fitness
from jnas.store.records import Evaluation, unqualified
from jnas.strategies import pareto
from jnas.strategies.archive import longest

# Evaluations compared with all others at a time.
AT_ONCE = 256


class Evaluations(NamedTuple):
    """B evaluations in the order of the search, by P objectives.

    architectures: B texts.
    objectives: P names; repeats of an objective are averaged.
    values: float64[B, P], higher is better; -inf for a failure, nan where the value was known from before.
    fidelity: float64[B], the share of the full training; values of different shares do not compare.
    seconds: float64[B].
    """

    architectures: list[str]
    objectives: tuple[str, ...]
    values: np.ndarray
    fidelity: np.ndarray
    seconds: np.ndarray

    @property
    def measured(self) -> np.ndarray:
        """Values as they were measured, lower better where the objective says so; nan for a failure: float64[B, P]."""
        signs = np.array([sign(name) for name in self.objectives])
        return np.where(np.isfinite(self.values), self.values * signs, np.nan)

    @property
    def fitness(self) -> np.ndarray:
        """One number an evaluation, higher is better: the value, or the sum of log ranks of several: float64[B].

        -inf for all but the longest trainings.
        """
        compared = ~np.isnan(self.values) & np.asarray(longest(self.values, self.fidelity))[:, None]
        return fitness(np.where(compared, self.values, -np.inf))

    def place(self, architecture: str) -> int | None:
        """Place of the longest training of an architecture, the first of equals; None where there is none."""
        places = [place for place, text in enumerate(self.architectures) if text == architecture]
        return max(places, key=lambda place: self.fidelity[place], default=None)

    @property
    def front(self) -> np.ndarray:
        """Places of the evaluations that none dominates (`jnas.strategies.pareto`), equal ones once: int[F].

        Of the longest trainings alone.
        """
        compared = np.isfinite(self.values) & np.asarray(longest(self.values, self.fidelity))[:, None]
        # Ranks are exact in 32 bits.
        ranks = np.where(compared, rankdata(self.values, "min", axis=0), -np.inf)
        inside = jnp.zeros(len(ranks), bool)
        for start in range(0, len(ranks), AT_ONCE):
            inside = pareto.joined(
                inside, jnp.asarray(ranks), jnp.arange(len(ranks))[start : start + AT_ONCE]
            )
        places = np.flatnonzero(inside)
        return places[np.sort(np.unique(np.array(self.architectures)[places], return_index=True)[1])]

    def of(self, architecture: str) -> dict[str, float]:
        """Measured values of an architecture by objective, of its longest training; empty where it has none."""
        if (place := self.place(architecture)) is None:
            return {}
        return dict(zip(self.objectives, self.measured[place].tolist(), strict=True))

    def frame(self) -> Any:
        """Evaluations as `data_frame` makes one: architecture, objectives as they are measured, fidelity, seconds."""
        columns = dict(zip(self.objectives, self.measured.T, strict=True))
        columns |= {"fidelity": self.fidelity, "seconds": self.seconds}
        return data_frame({"architecture": self.architectures, **columns})


def incumbents(values: np.ndarray, fidelity: np.ndarray) -> np.ndarray:
    """Place of the best of the longest trainings so far, after each evaluation, the first of equals: int[R, T].

    values: float[R, T] of R searches, higher is better, not finite for a failure. fidelity: float[R, T].
    """
    length = np.where(np.isfinite(values), fidelity, 0)
    best = np.zeros(values.shape, int)
    for step in range(1, values.shape[1]):
        place = best[:, step - 1]
        (longer, value), rows = (length[:, step], values[:, step]), np.arange(len(values))
        better = (longer == length[rows, place]) & (value > values[rows, place])
        best[:, step] = np.where(better | (longer > length[rows, place]), step, place)
    return best


def data_frame(columns: Mapping[str, Any]) -> Any:
    """A `pandas.DataFrame`. Raises `InputError` where pandas is not installed."""
    try:
        import pandas
    except ImportError:
        raise InputError("a data frame needs pandas: pip install pandas") from None
    return pandas.DataFrame(dict(columns))


def read(records: Sequence[Evaluation], stage: str = "search") -> Evaluations:
    """Evaluations of one stage."""
    rows: dict[tuple[int, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    subjects: dict[tuple[int, int], tuple[str, float]] = {}
    seconds: dict[tuple[int, int], float] = defaultdict(float)
    for record in records:
        if record.stage == stage:
            place = record.round, record.place
            rows[place][record.objective.partition("/")[0]].append(record.value)
            subjects[place] = unqualified(record.subject)
            seconds[place] += record.seconds
    places = sorted(rows)
    objectives = tuple(dict.fromkeys(name for place in places for name in rows[place]))
    values = [[np.mean(rows[place].get(name, np.nan)) for name in objectives] for place in places]
    return Evaluations(
        [subjects[place][0] for place in places],
        objectives,
        np.array(values, np.float64).reshape(len(places), len(objectives)),
        np.array([subjects[place][1] for place in places], np.float64),
        np.array([seconds[place] for place in places], np.float64),
    )
