"""The part of a search's page that every strategy has: the best so far, and the best architectures."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jnas.proxies import sign
from jnas.report import page
from jnas.report.evaluations import Evaluations, incumbents, read
from jnas.report.plots import FOUND, OTHERS, as_svg
from jnas.store.records import Evaluation

# Architectures in the table of the best.
SHOWN = 10
# Charts in a row.
COLUMNS = 3
# More points than these are drawn as an image, which keeps the page small.
POINTS = 1000
# Values that differ by this factor or more have a logarithmic axis.
LOGARITHMIC = 50


def view(result: Mapping[str, Any], records: Sequence[Evaluation]) -> dict[str, Any] | None:
    """Variables of the template; None where the search evaluated no single architectures."""
    search, final = read(records, "search"), read(records, "final")
    if any("candidates" in entry for entry in result["rounds"]) or not search.architectures:
        return None
    best = final if final.architectures else search
    worth = best.fitness
    order = [index for index in np.argsort(-worth, kind="stable")[:SHOWN] if np.isfinite(worth[index])]
    return {
        "count": len(search.architectures),
        "shorter": int((search.fidelity < 1).sum()),
        "objectives": search.objectives,
        "finalists": len(final.architectures),
        "final_objectives": final.objectives,
        "figure": figure(search, result["architecture"]),
        "columns": best.objectives,
        "combined": len(best.objectives) > 1,
        "front": _front(search) if len(search.objectives) > 1 else [],
        "best": [
            (best.architectures[index], float(worth[index]), best.measured[index].tolist()) for index in order
        ],
    }


def _front(search: Evaluations) -> list[tuple[str, list[float]]]:
    """Architectures that none dominates, with their values, the best by the first objective first."""
    order = search.front[np.argsort(-search.values[search.front, 0], kind="stable")]
    return [(search.architectures[place], search.measured[place].tolist()) for place in order]


def figure(evaluations: Evaluations, found: str) -> str:
    """Every evaluation in the order of the search and the best so far, a chart an objective, as SVG.

    Several objectives have a chart of their combined rank as well, the first.
    """
    charts = [
        (f"{name} ({'higher' if sign(name) > 0 else 'lower'} is better)", sign(name), values)
        for name, values in zip(evaluations.objectives, evaluations.measured.T, strict=True)
    ]
    if len(charts) > 1:
        worth = evaluations.fitness
        charts.insert(0, ("combined rank (0: best by all)", 1, np.where(np.isfinite(worth), worth, np.nan)))
    place = evaluations.place(found)
    longest = evaluations.fidelity == evaluations.fidelity.max(initial=0)
    columns = min(COLUMNS, len(charts))
    rows = math.ceil(len(charts) / columns)

    def draw(figure: Any) -> None:
        panels = list(figure.subplots(rows, columns, squeeze=False, sharex=True).flat)
        for axes in panels[len(charts) :]:
            axes.set_visible(False)
        for axes, (title, direction, values) in zip(panels, charts, strict=False):
            steps = np.arange(1, 1 + len(values))
            for shown, alpha in ((~longest, 0.25), (longest, 0.6)):
                axes.scatter(
                    steps[shown], values[shown], s=9, color=OTHERS, alpha=alpha, linewidth=0,
                    rasterized=len(steps) > POINTS,
                )  # fmt: skip
            best = values[incumbents(direction * values[None], evaluations.fidelity[None])[0]]
            axes.plot(steps, best, color=FOUND, linewidth=2, drawstyle="steps-post")
            if place is not None and np.isfinite(values[place]):
                axes.scatter(
                    steps[place], values[place], s=150, marker="*", color=FOUND, edgecolor="white", zorder=3
                )
            finite = values[np.isfinite(values)]
            if len(finite) and finite.min() > 0 and finite.max() / finite.min() >= LOGARITHMIC:
                axes.set_yscale("log")
            axes.set_title(title, loc="left")
            axes.set_xlabel("architectures evaluated")
            axes.xaxis.set_tick_params(labelbottom=True)
            # An architecture is a whole number.
            axes.locator_params(axis="x", integer=True)
        figure.get_layout_engine().set(wspace=0.06, hspace=0.08)

    return as_svg(draw, (10.6 if columns > 1 else 7.2, 3.4 * rows), "search")


def summary(evaluations: Evaluations, found: str) -> str:
    """One line on the found architecture: its value by each objective; empty where it was not evaluated."""
    return ", ".join(f"{name} {page.number(value, 4)}" for name, value in evaluations.of(found).items())
