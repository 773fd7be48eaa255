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
from jnas.store.records import Evaluation
from jnas.strategies import pareto

# Evaluations compared with all others at a time.
AT_ONCE = 256


class Evaluations(NamedTuple):
    """B evaluations in the order of the search, by P objectives.

    architectures: B texts.
    objectives: P names; repeats of an objective are averaged.
    values: float64[B, P], higher is better; -inf for a failure, nan where the value was known from before.
    seconds: float64[B].
    """

    architectures: list[str]
    objectives: tuple[str, ...]
    values: np.ndarray
    seconds: np.ndarray

    @property
    def measured(self) -> np.ndarray:
        """Values as they were measured, lower better where the objective says so; nan for a failure: float64[B, P]."""
        signs = np.array([sign(name) for name in self.objectives])
        return np.where(np.isfinite(self.values), self.values * signs, np.nan)

    @property
    def fitness(self) -> np.ndarray:
        """One number an evaluation, higher is better: the value, or the sum of log ranks of several: float64[B]."""
        return fitness(np.where(np.isnan(self.values), -np.inf, self.values))

    @property
    def front(self) -> np.ndarray:
        """Places of the evaluations that none dominates (`jnas.strategies.pareto`), equal ones once: int[F]."""
        # Ranks are exact in 32 bits.
        ranks = np.where(np.isfinite(self.values), rankdata(self.values, "min", axis=0), -np.inf)
        inside = jnp.zeros(len(ranks), bool)
        for start in range(0, len(ranks), AT_ONCE):
            inside = pareto.joined(
                inside, jnp.asarray(ranks), jnp.arange(len(ranks))[start : start + AT_ONCE]
            )
        places = np.flatnonzero(inside)
        return places[np.sort(np.unique(np.array(self.architectures)[places], return_index=True)[1])]

    def of(self, architecture: str) -> dict[str, float]:
        """Measured values of an architecture by objective; empty where it was not evaluated."""
        if architecture not in self.architectures:
            return {}
        values = self.measured[self.architectures.index(architecture)]
        return dict(zip(self.objectives, values.tolist(), strict=True))

    def frame(self) -> Any:
        """Evaluations as `data_frame` makes one: architecture, a column an objective as measured, seconds."""
        columns = dict(zip(self.objectives, self.measured.T, strict=True))
        return data_frame({"architecture": self.architectures, **columns, "seconds": self.seconds})


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
    subjects: dict[tuple[int, int], str] = {}
    seconds: dict[tuple[int, int], float] = defaultdict(float)
    for record in records:
        if record.stage == stage:
            place = record.round, record.place
            rows[place][record.objective.partition("/")[0]].append(record.value)
            subjects[place] = record.subject
            seconds[place] += record.seconds
    places = sorted(rows)
    objectives = tuple(dict.fromkeys(name for place in places for name in rows[place]))
    values = [[np.mean(rows[place].get(name, np.nan)) for name in objectives] for place in places]
    return Evaluations(
        [subjects[place] for place in places],
        objectives,
        np.array(values, np.float64).reshape(len(places), len(objectives)),
        np.array([seconds[place] for place in places], np.float64),
    )
