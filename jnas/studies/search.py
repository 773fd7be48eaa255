"""Strategies on a table, hundreds of seeds at once: accuracy against evaluations and against simulated seconds.

Every search sees one training of an architecture, drawn among those of the table, and is judged by what the
architecture that showed the best is worth: the mean over all its trainings. A simulated second is one that the table
took to train.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jnas import spaces
from jnas.config.study import StudyConfig
from jnas.errors import unknown_name
from jnas.estimators.compact_table import Table
from jnas.report.plots import INK
from jnas.run.progress import Progress
from jnas.strategies.table_search import ON_TABLES, incumbents, traces
from jnas.studies.base import COLOURS, LINES, Figure, Findings

COLUMNS = (
    "strategy", "evaluations", "accuracy", "accuracy_low", "accuracy_high", "worst_tenth", "best_tenth", "regret",
    "simulated_seconds",
)  # fmt: skip
BASELINE = "random_search"


def on_space(table: Table, values: np.ndarray) -> np.ndarray:
    """values [..., A] of the table's architectures at every number of the space, nan where it has none: [..., size]."""
    rows = table.rows(spaces.get(table.space).all())
    return np.where(rows >= 0, values[..., rows], np.nan).astype(np.float32)


def run(config: StudyConfig, table: Table, progress: Progress) -> Findings:
    """Search as often as `config.search` says. Raises `InputError` for what is unknown."""
    settings, space = config.search, spaces.get(table.space)
    names = list(dict.fromkeys([BASELINE, *(name.strip() for name in settings.strategies.split(","))]))
    for name in names:
        if name not in ON_TABLES:
            raise unknown_name("strategy on tables", name, ON_TABLES)
    place = len(table.epochs) - 1 if not settings.epoch else table.place(settings.epoch)
    signal = jnp.asarray(on_space(table, table.accuracy[:, :, place].T))
    worth = on_space(table, table.mean())
    share = table.epochs[place] / table.epochs[-1]
    seconds = on_space(table, table.seconds) * share
    keys = jax.random.split(jax.random.key(config.seed), settings.seeds)
    reached, clocks = {}, {}
    with progress.task("searching", len(names) * settings.seeds, "searches") as advance:
        for name in names:
            asked, shown = traces(keys, signal, name=name, space=space, evaluations=settings.evaluations)
            numbers = np.asarray(asked)
            reached[name] = np.asarray(incumbents(shown, jnp.asarray(worth[numbers])))
            clocks[name] = np.cumsum(seconds[numbers], axis=1)
            advance(settings.seeds)
    best = float(np.nanmax(worth))
    rows = [
        (
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
        columns=COLUMNS,
        rows=rows,
        summary=[row for row in rows if row[1] in shown_steps],
        figures=[_figure(reached, clocks if timed else None, best)],
        paragraphs=_paragraphs(reached, best, settings.evaluations),
    )


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
                style = {"color": COLOURS[number % len(COLOURS)], "linestyle": LINES[number % len(LINES)]}
                axes.plot(places, mean, linewidth=2, label=name.replace("_", " "), **style)
                axes.fill_between(
                    places, mean - error, mean + error, color=style["color"], alpha=0.2, linewidth=0
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


def _spelled(name: str) -> str:
    return name.replace("_", " ")
