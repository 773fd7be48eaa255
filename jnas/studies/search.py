"""Strategies on a table, hundreds of seeds at once: accuracy by evaluations and by simulated seconds.

Every search sees one training of an architecture, drawn among those of the table. It is judged by the worth of the
architecture that showed the best: the mean over all its trainings. A simulated second is one that the table took to
train.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jnas import spaces
from jnas.config.study import StudyConfig
from jnas.errors import InputError, unknown_name
from jnas.estimators.compact_table import Table
from jnas.estimators.tabular import on_space, tabular
from jnas.report.plots import INK
from jnas.run.loop import simulate
from jnas.run.progress import Progress
from jnas.run.search import within
from jnas.spaces import base
from jnas.strategies import STRATEGIES
from jnas.studies.base import Figure, Findings, style

BASELINE = "random"


class Row(NamedTuple):
    """One strategy after some evaluations.

    accuracy: mean over searches, in percent, with its 95 % interval.
    worst_tenth, best_tenth: the 10th and 90th percentile of searches.
    regret: points below the best of the table.
    simulated_seconds: mean, None where the table does not say.
    """

    strategy: str
    evaluations: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    worst_tenth: float
    best_tenth: float
    regret: float
    simulated_seconds: float | None


def strategies_on_tables() -> list[str]:
    """Names of the strategies that many searches at once can run."""
    space = spaces.get("nasbench201")
    return [name for name, member in STRATEGIES.items() if member().make(space, ("accuracy",), 2).jittable]


def run(config: StudyConfig, table: Table, progress: Progress) -> Findings:
    """Search as often as `config.search` says. Raises `InputError` for an unknown or unsuitable strategy."""
    settings, space = config.search, spaces.get(table.space)
    names = list(dict.fromkeys([BASELINE, *(name.strip() for name in settings.strategies.split(","))]))
    for name in names:
        if name not in STRATEGIES:
            raise unknown_name("strategy", name, STRATEGIES)
        if name not in strategies_on_tables():
            raise InputError(
                f"strategy {name} does not run many searches at once: choose among {', '.join(strategies_on_tables())}"
            )
    place = len(table.epochs) - 1 if not settings.epoch else table.place(settings.epoch)
    estimator = tabular(table, epoch=settings.epoch)
    members = within(space, estimator)
    worth, seconds = on_space(table, table.mean()), on_space(table, table.seconds)
    seconds = seconds * (table.epochs[place] / table.epochs[-1])
    keys = jax.random.split(jax.random.key(config.seed), settings.seeds)
    reached, clocks = {}, {}
    with progress.task("searching", len(names) * settings.seeds, "searches") as advance:
        for name in names:
            # One at a time, as an evaluation is a training.
            strategy = STRATEGIES[name](batch=1).make(members, estimator.objectives, settings.evaluations)
            asked, told = simulate(keys, strategy=strategy, estimator=estimator, rounds=settings.evaluations)
            numbers = np.asarray(base.index(space.decisions, asked))
            reached[name] = np.asarray(incumbents(told[..., 0], jnp.asarray(worth[numbers])))
            clocks[name] = np.cumsum(seconds[numbers], axis=1)
            advance(settings.seeds)
    best = float(np.nanmax(worth))
    rows = [
        Row(
            name,
            step + 1,
            *_statistics(values[:, step]),
            best - float(values[:, step].mean()),
            _clock(clocks[name], step),
        )
        for name, values in reached.items()
        for step in range(settings.evaluations)
    ]
    shown_steps = _round_steps(settings.evaluations)
    timed = bool(np.isfinite(table.seconds).any())
    return Findings(
        title=f"Search on {len(table.architectures):,} trained architectures",
        question=f"Which accuracy do {settings.seeds} searches by each strategy reach in {settings.evaluations} "
        f"evaluations of {table.space} on {table.data}?",
        columns=Row._fields,
        rows=rows,
        summary=[row for row in rows if row.evaluations in shown_steps],
        figures=[_figure(reached, clocks if timed else None, best)],
        paragraphs=_paragraphs(reached, best, settings.evaluations),
    )


def incumbents(told: Array, worth: Array) -> Array:
    """Worth of the architecture with the best evaluation so far: float[R, T].

    told: float[R, T], the value of each evaluation; worth: float[R, T], of its architecture.
    """

    def better(left, right):
        newer = right[0] > left[0]
        return jnp.where(newer, right[0], left[0]), jnp.where(newer, right[1], left[1])

    return jax.lax.associative_scan(better, (told, worth), axis=1)[1]


def _statistics(values: np.ndarray) -> tuple[float, float, float, float, float]:
    """Mean with its 95 % interval (normal), and the 10th and 90th percentile of searches."""
    mean, error = float(values.mean()), 1.96 * float(values.std(ddof=1)) / np.sqrt(len(values))
    low, high = np.percentile(values, [10, 90])
    return mean, mean - error, mean + error, float(low), float(high)


def _clock(clocks: np.ndarray, step: int) -> float | None:
    seconds = float(clocks[:, step].mean())
    return seconds if np.isfinite(seconds) else None


def _round_steps(evaluations: int) -> set[int]:
    steps = [step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000) if step < evaluations]
    return {*steps, evaluations}


def _figure(reached: dict[str, np.ndarray], clocks: dict[str, np.ndarray] | None, best: float) -> Figure:
    def draw(figure: Any) -> None:
        panels = np.atleast_1d(figure.subplots(1, 1 if clocks is None else 2, sharey=True))
        for number, (name, values) in enumerate(reached.items()):
            mean, error = values.mean(0), 1.96 * values.std(0, ddof=1) / np.sqrt(len(values))
            axes_of = [np.arange(1, values.shape[1] + 1)]
            if clocks is not None:
                axes_of.append(clocks[name].mean(0))
            for axes, places in zip(panels, axes_of, strict=True):
                look = style(number)
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


def _paragraphs(reached: dict[str, np.ndarray], best: float, evaluations: int) -> list[str]:
    final = {name: values[:, -1] for name, values in reached.items()}
    order = sorted(final, key=lambda name: -final[name].mean())
    winner = order[0]
    sentences = [
        f"After {evaluations} evaluations {_spelled(winner)} is at {final[winner].mean():.2f} % "
        f"(of {best:.2f} % that the best architecture has)"
        + "".join(f", {_spelled(name)} at {final[name].mean():.2f} %" for name in order[1:])
        + "."
    ]
    baseline = reached[BASELINE].mean(0)
    for name in order:
        if name == BASELINE:
            continue
        difference = final[name] - final[BASELINE]
        error = 1.96 * difference.std(ddof=1) / np.sqrt(len(difference))
        surely = abs(difference.mean()) > error
        sentences.append(
            f"{_spelled(name).capitalize()} {'differs from' if surely else 'cannot be told from'} random search: "
            f"{difference.mean():+.2f} ± {error:.2f} percentage points."
        )
        if surely and difference.mean() > 0:
            sooner = int(np.argmax(reached[name].mean(0) >= baseline[-1])) + 1
            sentences.append(f"It is where random search ends after {sooner} evaluations.")
    return [" ".join(sentences)]


SPELLED = {"random": "random search", "aging": "aging evolution", "local": "local search"}


def _spelled(name: str) -> str:
    return SPELLED.get(name, name.replace("_", " "))
