"""Strategies on a table, hundreds of seeds at once: accuracy by evaluations, by distinct architectures and by seconds.

Every search sees a signal: one training of an architecture, drawn among those of the table, or what `search.signal`
says. It is judged by the worth of the architecture that showed the best: the mean over all its trainings to the last
epoch. A simulated second is one that the table took to train.

Strategies that ask for trainings of a share of the epochs have as many epochs as the others: an evaluation counts as
the share of the epochs that the table shows it after. Their best is the best of the longest trainings so far.

The r-th searches of all strategies have one key, so they see one training of an architecture, and differences are
paired: ranks within each key, Friedman's test, and Wilcoxon's against the best with Holm's correction (`significance`).
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from jnas import spaces
from jnas.config.entrants import Entrant, entrants
from jnas.config.study import SearchStudyConfig, StudyConfig
from jnas.errors import InputError
from jnas.estimators.compact_table import Table, from_csv
from jnas.estimators.tabular import on_space, tabular, used
from jnas.run.progress import Progress
from jnas.run.search import require_fit, within
from jnas.spaces import Space
from jnas.studies import objectives, search_text, significance
from jnas.studies.base import Figure, Findings, Part, spread
from jnas.studies.search_figures import Curve, curves_figure, mean_and_error
from jnas.studies.searching import (
    Searches,
    Used,
    at_evaluations,
    by_distinct,
    distinct,
    incumbents,
    searches,
)
from jnas.studies.statistics import Estimate
from jnas.types import Estimator, Strategy

BASELINE = "random"


class Row(NamedTuple):
    """One strategy after some evaluations.

    accuracy: mean over searches, in percent.
    worst_tenth, best_tenth: the 10th and 90th percentile of searches.
    regret: points below the best of the table.
    distinct: mean number of different architectures.
    simulated_seconds: mean, None where the table does not say.
    """

    strategy: str
    evaluations: int
    accuracy: Estimate
    worst_tenth: float
    best_tenth: float
    regret: float
    distinct: float
    simulated_seconds: float | None


class Compared(NamedTuple):
    """One strategy at the end.

    rank: mean over paired searches, 1 for the best.
    p_against_best: Wilcoxon's, with Holm's correction; None of the best itself.
    compile_seconds, run_seconds: of all its searches.
    """

    strategy: str
    searches: int
    accuracy: Estimate
    rank: float
    p_against_best: float | None
    distinct: float
    compile_seconds: float
    run_seconds: float


class Reached(NamedTuple):
    """Curves of one strategy, each [R, T]: true accuracy of the incumbent, distinct architectures, seconds so far."""

    accuracy: np.ndarray
    distinct: np.ndarray
    clock: np.ndarray


def run(config: StudyConfig, table: Table, progress: Progress) -> Findings:
    """Search as often as `config.search` says. Raises `InputError` for an unknown or unsuitable strategy."""
    settings, space = config.search, spaces.get(table.space)
    estimator = _shown(config, table)
    held = within(space, estimator)
    # A table of the whole space restricts nothing.
    held = space if np.asarray(held.contains(space.all())).all() else held
    made = _made(settings, held, estimator)
    worth = on_space(table, table.mean())
    costs = objectives.costs(space, settings.cost, np.isfinite(worth)) if settings.cost else None
    keys = jax.random.split(jax.random.key(config.seed), settings.seeds)

    # All is refused that can be refused: now it takes time.
    found = _searched(
        made, held, estimator, keys, settings, progress, partial(used, table, epoch=settings.epoch)
    )
    seconds = on_space(table, table.seconds) * (table.epochs[table.place(settings.epoch)] / table.epochs[-1])
    classes = np.asarray(space.index(space.canonical(space.all())))
    reached = {
        key: _reached(each, worth, seconds, classes, settings.evaluations) for key, each in found.items()
    }

    best, timed = float(np.nanmax(worth)), bool(np.isfinite(table.seconds).any())
    titles = {entrant.key: entrant.title for entrant, _ in made}
    columns, flat = spread(rows := _rows(reached, best))
    compared = _compared(found, reached)
    names, cells = spread(compared)
    figures = [_figure(reached, titles, best, timed)]
    parts = [Part("comparison", f"After {settings.evaluations} evaluations", names, cells)]
    accuracy = {titles[key]: each.accuracy for key, each in reached.items()}
    values = paired(reached)
    paragraphs = [
        search_text.differences(accuracy, titles[BASELINE], best, settings.evaluations),
        search_text.tests(
            {titles[row.strategy]: (row.rank, row.p_against_best) for row in compared},
            significance.friedman(values),
            values.shape[1],
        ),
    ]
    if costs is not None:
        figure, part, paragraph = objectives.compare(
            held, estimator, worth, costs, settings.cost, keys, settings.evaluations, progress
        )
        figures, parts, paragraphs = [*figures, figure], [*parts, part], [*paragraphs, paragraph]
    steps = (10, 50, 100, 200, 500, 1000, 2000, 5000, settings.evaluations)
    return Findings(
        title=f"Search on {len(table.architectures):,} trained architectures",
        question=f"Which accuracy do {settings.seeds} searches by each strategy reach in {settings.evaluations} "
        f"evaluations of {table.space} on {table.data}?",
        columns=columns,
        rows=flat,
        summary=[line for line, row in zip(flat, rows, strict=True) if row.evaluations in steps],
        figures=figures,
        paragraphs=paragraphs,
        parts=parts,
    )


def _shown(config: StudyConfig, table: Table) -> Estimator:
    """The signal that a search sees. Raises `InputError` for one that the table has not."""
    signal, epoch = config.search.signal, config.search.epoch
    if signal == "training":
        return tabular(table, epoch=epoch)
    if signal == "mean":
        means = np.stack([table.mean(int(each)) for each in table.epochs], axis=1)
        return tabular(replace(table, accuracy=means[:, None].astype(np.float32)), epoch=epoch)
    if ".csv" not in config.table:
        raise InputError(
            f"search.signal is '{signal}': give training or mean, and --search.epoch for fewer epochs; columns are "
            "those of a table that is a CSV"
        )
    return tabular(from_csv(config.table, table.space, signal))


def _made(settings: SearchStudyConfig, space: Space, estimator: Estimator) -> list[tuple[Entrant, Strategy]]:
    """All strategies, random search first. Raises `InputError` for one that the table does not fit."""
    compared = entrants(settings.strategies)
    if all(entrant.key != BASELINE for entrant in compared):
        compared = [*entrants(BASELINE), *compared]
    compared.sort(key=lambda entrant: entrant.key != BASELINE)
    made = []
    for entrant in compared:
        strategy = entrant.settings.make(space, estimator.objectives, settings.evaluations)
        require_fit(strategy, estimator)
        made.append((entrant, strategy))
    return made


def _searched(
    made: list[tuple[Entrant, Strategy]],
    space: Space,
    estimator: Estimator,
    keys: jax.Array,
    settings: SearchStudyConfig,
    progress: Progress,
    used_of: Used,
) -> dict[str, Searches]:
    slow = min(settings.slow_seeds, settings.seeds)
    counts = [settings.seeds if strategy.jittable else slow for _, strategy in made]
    found = {}
    with progress.task("searching", sum(counts), "searches") as advance:
        for (entrant, _), count in zip(made, counts, strict=True):
            make = partial(entrant.settings.make, space, estimator.objectives)
            found[entrant.key] = searches(
                space, make, estimator, keys[:count], settings.evaluations, advance, used_of
            )
    return found


def _reached(
    found: Searches, worth: np.ndarray, seconds: np.ndarray, classes: np.ndarray, evaluations: int
) -> Reached:
    """Curves by worth, seconds and class of each number of the space, [size]."""
    there = found.numbers >= 0
    spent = np.where(there, seconds[found.numbers] * np.diff(found.used, axis=1, prepend=0), 0.0)
    curves = (
        incumbents(found.told, worth[found.numbers], found.share),
        distinct(np.where(there, classes[found.numbers], -1)),
        np.cumsum(spent, axis=1),
    )
    return Reached(*(at_evaluations(values, found.used, evaluations) for values in curves))


def _estimate(values: np.ndarray) -> Estimate:
    mean, error = map(float, mean_and_error(values))
    return Estimate(mean, mean - error, mean + error)


def _rows(reached: Mapping[str, Reached], best: float) -> list[Row]:
    rows = []
    for key, each in reached.items():
        for step, accuracy in enumerate(each.accuracy.T):
            estimate, clock = _estimate(accuracy), each.clock[:, step]
            worst_tenth, best_tenth = map(float, np.percentile(accuracy, [10, 90]))
            spent = float(clock.mean()) if np.isfinite(clock).all() else None
            met = float(each.distinct[:, step].mean())
            regret = best - estimate.value
            rows.append(Row(key, step + 1, estimate, worst_tenth, best_tenth, regret, met, spent))
    return rows


def paired(reached: Mapping[str, Reached]) -> np.ndarray:
    """Accuracies at the end of the searches whose keys all strategies had: float64[S, R]."""
    count = min(len(each.accuracy) for each in reached.values())
    return np.stack([each.accuracy[:count, -1] for each in reached.values()]).astype(np.float64)


def _compared(found: Mapping[str, Searches], reached: Mapping[str, Reached]) -> list[Compared]:
    """All strategies at the end, that with the highest mean first."""
    keys, values = list(reached), paired(reached)
    order = sorted(range(len(keys)), key=lambda place: -reached[keys[place]].accuracy[:, -1].mean())
    ranks = significance.mean_ranks(values)
    first, *others = order

    def chance_of(other: int) -> float:
        # All keys that the two had, of which others may have had fewer.
        pair = paired({key: reached[key] for key in (keys[first], keys[other])})
        return significance.signed_rank(*pair)

    chances = significance.holm(np.array([chance_of(other) for other in others]))
    rows = []
    for place, chance in zip(order, [None, *map(float, chances)], strict=True):
        each, times = reached[keys[place]], found[keys[place]]
        estimate, met = _estimate(each.accuracy[:, -1]), float(each.distinct[:, -1].mean())
        rows.append(
            Compared(
                keys[place], len(each.accuracy), estimate, float(ranks[place]), chance, met, times.compiling,
                times.running,
            )
        )  # fmt: skip
    return rows


def _figure(reached: Mapping[str, Reached], titles: Mapping[str, str], best: float, timed: bool) -> Figure:
    # The best first, as in the paragraph.
    order = sorted(reached, key=lambda key: -reached[key].accuracy[:, -1].mean())

    def curves(places: str) -> dict[str, Curve]:
        out = {}
        for key in order:
            each = reached[key]
            if places == "distinct":
                values = by_distinct(each.accuracy, each.distinct)
                out[titles[key]] = Curve(np.arange(1, values.shape[1] + 1), values)
            else:
                steps = np.arange(1, each.accuracy.shape[1] + 1)
                out[titles[key]] = Curve(each.clock.mean(0) if places == "clock" else steps, each.accuracy)
        return out

    panels = {"evaluations": curves("steps"), "distinct architectures": curves("distinct")}
    if timed:
        panels["simulated training, s"] = curves("clock")
    caption = (
        "Mean over searches of the true accuracy of the architecture that showed the best so far, with 95 % intervals "
        "of the mean; dotted, the best of the table. A curve by distinct architectures ends at the median number that "
        "searches met."
    )
    return curves_figure("search", caption, panels, "accuracy of the incumbent, %", best)
