"""Accuracy against a cost on a table, many searches at once: hypervolume by evaluations.

    volume      of all (accuracy, -cost) that were evaluated so far, as a share of that of the whole table
    reference   (lowest accuracy, highest cost) on the table's front, moved outwards by a tenth of the front's sides
    scalarised  aging evolution of accuracy (cost / target)^w, target the median of the table (`wraps.weighted_product`)

A search sees the study's signal and the exact cost; accuracies of volumes are true ones, the means of all trainings.
LEMONADE knows costs before evaluation.

Letters: R searches, T evaluations, N architectures of the space.
"""

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
import numpy as np
from jax import Array

from jnas.errors import InputError
from jnas.estimators.compact_table import from_csv
from jnas.estimators.tabular import on_space
from jnas.estimators.wraps import weighted_product
from jnas.nets.sizes import Sizes
from jnas.run.progress import Progress
from jnas.spaces import Space
from jnas.strategies import pareto
from jnas.strategies.lemonade import lemonade, sizes
from jnas.strategies.settings.evolution import Aging, Lemonade, Nsga2
from jnas.strategies.settings.sampling import Random
from jnas.studies.base import Figure, Part
from jnas.studies.search_figures import Curve, curves_figure, mean_and_error
from jnas.studies.searching import searches
from jnas.types import Candidates, Estimator, Key, Strategy, Values

# Steps of the curves, evenly in logarithms.
STEPS = 40


def costs(space: Space, given: str, needed: np.ndarray) -> np.ndarray:
    """Costs of all architectures: `params`, `flops`, `convs` in millions, or `FILE.csv:column`: float32[N].

    needed: bool[N], the architectures that must have one. Raises `InputError` where they have not, for another name,
    and for a file or a column that is not there.
    """
    if given in Sizes._fields:
        count = sizes(space, [given])
        return np.asarray(count(jnp.asarray(space.all())))[:, 0]
    path, colon, column = given.rpartition(":")
    if not colon or not path or not column:
        raise InputError(
            f"search.cost is '{given}': give one of {', '.join(Sizes._fields)}, or FILE.csv:column"
        )
    table = from_csv(path, space.name, column)
    found = on_space(table, table.mean())
    if missing := int((needed & ~np.isfinite(found)).sum()):
        raise InputError(
            f"search.cost '{given}' lacks {missing} architectures of the table: give a file with all"
        )
    return found


def with_cost(space: Space, estimator: Estimator, costs: np.ndarray) -> Estimator:
    """The estimator with a second objective `cost`: minus the costs float32[N] by architecture."""
    held = -jnp.asarray(costs)

    def evaluate(key: Key, candidates: Candidates) -> Values:
        value, status, seconds = estimator.evaluate(key, candidates)
        told = held[space.index(jnp.asarray(candidates.architectures))][:, None]
        both = jnp.concatenate([value, jnp.where(jnp.isfinite(value), told, -jnp.inf)], axis=1)
        return Values(both, jnp.concatenate([status, status], axis=1), seconds)

    return estimator._replace(objectives=("accuracy", "cost"), evaluate=evaluate)


def front(values: np.ndarray) -> np.ndarray:
    """The different values on the front of float32[N, 2], the highest first objective first: float32[n, 2].

    By a sort, as `pareto.front` compares all pairs.
    """
    ordered = np.unique(values[np.isfinite(values).all(axis=1)], axis=0)[::-1]
    before = np.maximum.accumulate(np.append(-np.inf, ordered[:-1, 1]))
    return ordered[ordered[:, 1] > before]


def reference(corners: np.ndarray) -> np.ndarray:
    """The point that volumes are measured from, of a front float32[n, 2]: float32[2]."""
    return corners.min(0) - 0.1 * np.ptp(corners, axis=0)


def shares(values: np.ndarray, numbers: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Volume after some evaluations, in percent of that of all: float64[R, steps].

    values: float32[N, 2], of all architectures; numbers: int[R, T], those evaluated; steps: int[steps], how many.
    """
    corners = front(values)
    corner, reached = reference(corners), values[numbers]
    parts = [pareto.hypervolume(reached[:, :step], corner) for step in steps]
    return 100 * np.stack(parts, axis=1) / pareto.hypervolume(corners, corner)


def entrants(
    space: Space, estimator: Estimator, costs: np.ndarray, target: float
) -> dict[str, tuple[Callable[[int], Strategy], Estimator]]:
    """Strategies by title, each made of a budget, with the estimator that tells it its objectives.

    estimator: of accuracy and cost; costs: float32[N]; target: the cost of the scalarised one.
    """
    names, scalar, held = estimator.objectives, weighted_product(estimator, target), jnp.asarray(costs)
    cheap: Callable[[Array], Array] = lambda rows: held[space.index(rows)][:, None]  # noqa: E731
    settings = Lemonade()
    return {
        # One at a time, so that no draw of the last round is left out.
        **{
            each.spelled(): (partial(each.make, space, names), estimator)
            for each in (Random(batch=1), Nsga2())
        },
        settings.spelled(): (lambda budget: lemonade(space, settings, names, budget, cheap), estimator),
        f"scalarised {Aging.spelled()}": (partial(Aging().make, space, scalar.objectives), scalar),
    }


def compare(
    space: Space,
    estimator: Estimator,
    worth: np.ndarray,
    costs: np.ndarray,
    name: str,
    keys: Array,
    evaluations: int,
    progress: Progress,
) -> tuple[Figure, Part, str]:
    """Search once for each of keys [R] by each strategy: the figure, the table and the paragraph.

    worth, costs: float32[N], nan for an architecture that has none.
    """
    values = np.stack([worth, -costs], axis=-1)
    values = np.where(np.isfinite(values).all(axis=1, keepdims=True), values, -np.inf).astype(np.float32)
    target = float(np.median(costs[np.isfinite(worth)]))
    runs = entrants(space, with_cost(space, estimator, costs), costs, target)
    steps = np.unique(np.geomspace(min(5, evaluations), evaluations, STEPS).astype(int))
    found = {}
    with progress.task("searching with a cost", len(runs) * len(keys), "searches") as advance:
        for title, (make, shows) in runs.items():
            numbers = searches(space, make, shows, keys, evaluations, advance).numbers
            found[title] = shares(values, numbers, steps)

    # The largest volume first.
    order = sorted(found, key=lambda title: -found[title][:, -1].mean())
    cost = name.rpartition(":")[2].replace("_", " ")
    figure = curves_figure(
        "objectives",
        f"Hypervolume of accuracy against {cost} of all evaluations so far, in percent of that of the table: mean over "
        "searches with 95 % intervals.",
        {"evaluations": {title: Curve(steps, found[title]) for title in order}},
        "hypervolume, % of the table's",
    )
    errors = {title: mean_and_error(found[title][:, -1]) for title in order}
    rows = [
        [title, len(keys), float(mean), float(mean - error), float(mean + error)]
        for title, (mean, error) in errors.items()
    ]
    columns = ["strategy", "searches", "hypervolume", "hypervolume_low", "hypervolume_high"]
    listed = ", ".join(f"{title} {mean:.1f} ± {error:.1f} %" for title, (mean, error) in errors.items())
    text = (
        f"Of the table's hypervolume of accuracy against {cost}, {evaluations} evaluations reach: {listed}."
    )
    return figure, Part("objectives", f"Accuracy against {cost}", columns, rows), text
