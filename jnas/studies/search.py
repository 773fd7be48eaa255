"""Strategies on a table, hundreds of seeds at once: accuracy by evaluations and by simulated seconds.

Every search sees one training of an architecture, drawn among those of the table. It is judged by the worth of the
architecture that showed the best: the mean over all its trainings. A simulated second is one that the table took to
train.

Strategies that ask for trainings of a share of the epochs have as many epochs as the others: an evaluation counts as
the share of the epochs that the table shows it after. Their best is the best of the longest trainings so far.
"""

from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from jnas import spaces
from jnas.config.study import StudyConfig
from jnas.errors import InputError, unknown_name
from jnas.estimators.compact_table import Table
from jnas.estimators.tabular import on_space, shown_at, tabular
from jnas.report.evaluations import incumbents as leading
from jnas.report.plots import INK
from jnas.run.loop import simulate
from jnas.run.progress import Progress
from jnas.run.search import require_fit, within
from jnas.strategies import STRATEGIES
from jnas.studies.base import Figure, Findings, spread, style
from jnas.studies.statistics import Estimate
from jnas.types import StrategySettings

BASELINE = "random"


class Row(NamedTuple):
    """One strategy after some evaluations.

    accuracy: mean over searches, in percent.
    worst_tenth, best_tenth: the 10th and 90th percentile of searches.
    regret: points below the best of the table.
    simulated_seconds: mean, None where the table does not say.
    """

    strategy: str
    evaluations: int
    accuracy: Estimate
    worst_tenth: float
    best_tenth: float
    regret: float
    simulated_seconds: float | None


def run(config: StudyConfig, table: Table, progress: Progress) -> Findings:
    """Search as often as `config.search` says. Raises `InputError` for an unknown or unsuitable strategy."""
    settings, space = config.search, spaces.get(table.space)
    estimator = tabular(table, epoch=settings.epoch)
    names = list(dict.fromkeys([BASELINE, *(name.strip() for name in settings.strategies.split(","))]))
    for name in names:
        if name not in STRATEGIES:
            raise unknown_name("strategy", name, STRATEGIES)
        strategy = STRATEGIES[name]().make(space, estimator.objectives, 2)
        require_fit(strategy, estimator)
        if not strategy.jittable:
            raise InputError(
                f"strategy {name} does not run many searches at once: choose among "
                f"{', '.join(other for other in STRATEGIES if _many_at_once(other, space))}"
            )
    members = within(space, estimator)
    worth, seconds = on_space(table, table.mean()), on_space(table, table.seconds)
    seconds = seconds * (table.epochs[table.place(settings.epoch)] / table.epochs[-1])
    keys = jax.random.split(jax.random.key(config.seed), settings.seeds)
    reached, clocks = {}, {}
    with progress.task("searching", len(names) * settings.seeds, "searches") as advance:
        for name in names:
            # One at a time, as an evaluation is a training.
            one = STRATEGIES[name](batch=1)
            asked, told, share, used = searched(
                keys, one, members, table, settings.epoch, settings.evaluations
            )
            numbers = np.asarray(space.index(asked))
            clock = np.cumsum(seconds[numbers] * np.diff(used, axis=1, prepend=0), axis=1)
            reached[name], clocks[name] = (
                at_evaluations(values, used, settings.evaluations)
                for values in (incumbents(told[..., 0], worth[numbers], share), clock)
            )
            advance(settings.seeds)
    best = float(np.nanmax(worth))
    rows = []
    for name, values in reached.items():
        for step, (accuracy, clock) in enumerate(zip(values.T, clocks[name].T, strict=True)):
            mean = float(accuracy.mean())
            error = 1.96 * float(accuracy.std(ddof=1)) / float(np.sqrt(len(accuracy)))
            worst_tenth, best_tenth = map(float, np.percentile(accuracy, [10, 90]))
            estimate = Estimate(mean, mean - error, mean + error)
            spent = float(clock.mean()) if np.isfinite(clock).all() else None
            rows.append(Row(name, step + 1, estimate, worst_tenth, best_tenth, best - mean, spent))
    steps = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, settings.evaluations)
    columns, flat = spread(rows)
    return Findings(
        title=f"Search on {len(table.architectures):,} trained architectures",
        question=f"Which accuracy do {settings.seeds} searches by each strategy reach in {settings.evaluations} "
        f"evaluations of {table.space} on {table.data}?",
        columns=columns,
        rows=flat,
        summary=[cells for cells, row in zip(flat, rows, strict=True) if row.evaluations in steps],
        figures=[_figure(reached, clocks if np.isfinite(table.seconds).any() else None, best)],
        paragraphs=[_paragraph(reached, best, settings.evaluations)],
    )


def _many_at_once(name: str, space: spaces.Space) -> bool:
    """False also for a strategy whose package is not installed."""
    try:
        return STRATEGIES[name]().make(space, ("accuracy",), 2).jittable
    except InputError:
        return False


def searched(
    keys: Array, settings: StrategySettings, space: spaces.Space, table: Table, epoch: int, evaluations: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """All that `simulate` returns of searches that last `evaluations` trainings of `epoch` epochs, and the used ones.

    Used trainings, float64[R, T], are those in full that the epochs so far amount to.
    """
    estimator, rounds = tabular(table, epoch=epoch), evaluations
    while True:
        strategy = settings.make(space, estimator.objectives, rounds)
        found = jax.device_get(simulate(keys, strategy=strategy, estimator=estimator, rounds=rounds))
        # Whole epochs are added, so that their sum is exact.
        epochs = table.epochs[np.asarray(shown_at(table, found[2], epoch))].astype(int).cumsum(axis=1)
        used = epochs / table.epochs[table.place(epoch)]
        if (least := used[:, -1].min()) >= evaluations:
            return *found, used
        # Shorter trainings: so many more, and some to spare, as not every search has as many short ones.
        rounds = int(np.ceil(1.1 * rounds * evaluations / least))


def at_evaluations(values: np.ndarray, used: np.ndarray, evaluations: int) -> np.ndarray:
    """values [R, T] where 1, 2, ... trainings were used at most, float[R, T]: [R, evaluations]."""
    limits = np.arange(1, evaluations + 1)
    last = np.stack([np.searchsorted(row, limits, side="right") - 1 for row in used])
    return np.take_along_axis(values, last, axis=1)


def incumbents(told: np.ndarray, worth: np.ndarray, fidelity: np.ndarray) -> np.ndarray:
    """Worth of the architecture with the best of the longest trainings so far, the first of equals: float[R, T].

    told: float[R, T], the value of each evaluation; worth: float[R, T], of its architecture; fidelity: float[R, T].
    """
    return np.take_along_axis(worth, leading(told, fidelity), axis=1)


def _mean(values: np.ndarray) -> tuple[Any, Any]:
    """Mean over searches [R, ...], and half of its 95 % interval (normal)."""
    return values.mean(0), 1.96 * values.std(0, ddof=1) / np.sqrt(len(values))


def _figure(reached: dict[str, np.ndarray], clocks: dict[str, np.ndarray] | None, best: float) -> Figure:
    def draw(figure: Any) -> None:
        panels = np.atleast_1d(figure.subplots(1, 1 if clocks is None else 2, sharey=True))
        for number, (name, values) in enumerate(reached.items()):
            mean, error = _mean(values)
            look, places_of = style(number), [np.arange(1, values.shape[1] + 1)]
            if clocks is not None:
                places_of.append(clocks[name].mean(0))
            for axes, places in zip(panels, places_of, strict=True):
                axes.plot(places, mean, linewidth=2, label=_spelled(name), **look)
                axes.fill_between(
                    places, mean - error, mean + error, color=look["color"], alpha=0.2, linewidth=0
                )
        everything = np.concatenate([values.mean(0)[1:] for values in reached.values()])
        for axes in panels:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:g}")
            axes.axhline(best, color=INK, linewidth=1, linestyle=(0, (2, 2)), label="best of the table")
            axes.set_ylim(everything.min(), best + 0.05 * (best - everything.min()))
        panels[0].set_ylabel("accuracy of the incumbent, %")
        panels[0].set_xlabel("evaluations (logarithmic)")
        panels[0].legend(frameon=False, loc="lower right")
        if clocks is not None:
            panels[1].set_xlabel("simulated training, s (logarithmic)")

    size = (10.6, 4.2) if clocks is not None else (7.2, 4.4)
    caption = (
        "Mean over searches of the true accuracy of the architecture that showed the best so far, with 95 % intervals "
        "of the mean; dotted, the best of the table."
    )
    return Figure("search", caption, draw, size)


def _paragraph(reached: dict[str, np.ndarray], best: float, evaluations: int) -> str:
    final = {name: values[:, -1] for name, values in reached.items()}
    winner, *others = sorted(final, key=lambda name: -final[name].mean())
    text = f"After {evaluations} evaluations {_spelled(winner)} is at {final[winner].mean():.2f} % "
    text += f"(of {best:.2f} % that the best architecture has)"
    text += "".join(f", {_spelled(name)} at {final[name].mean():.2f} %" for name in others)
    sentences = [f"{text}."]
    baseline = reached[BASELINE].mean(0)
    for name in (winner, *others):
        if name == BASELINE:
            continue
        difference, error = _mean(final[name] - final[BASELINE])
        surely = abs(difference) > error
        sentences.append(
            f"{_spelled(name).capitalize()} {'differs from' if surely else 'cannot be told from'} random search: "
            f"{difference:+.2f} ± {error:.2f} percentage points."
        )
        if surely and difference > 0:
            sooner = int(np.argmax(reached[name].mean(0) >= baseline[-1])) + 1
            sentences.append(f"It is where random search ends after {sooner} evaluations.")
    return " ".join(sentences)


def _spelled(name: str) -> str:
    names = {"random": "random search", "aging": "aging evolution", "local": "local search"}
    return names.get(name, name.replace("_", " "))
