"""Figures of the study of search: values that strategies reach, against the price that they pay."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jnas.report.plots import INK
from jnas.studies.base import Figure, style

# Strategies in one row of a legend.
IN_A_ROW = 3


class Curve(NamedTuple):
    """A strategy's values float[R, n], of R searches, at places [n] of one price."""

    places: np.ndarray
    values: np.ndarray


def mean_and_error(values: np.ndarray) -> tuple[Any, Any]:
    """Mean over searches [R, ...], and half of its 95 % interval (normal)."""
    return values.mean(0), 1.96 * values.std(0, ddof=1) / np.sqrt(len(values))


def curves_figure(
    name: str,
    caption: str,
    panels: Mapping[str, Mapping[str, Curve]],
    label: str,
    best: float | None = None,
) -> Figure:
    """Means with 95 % intervals, a panel for each price.

    panels: what the horizontal axis says -> title of a strategy -> its curve; best: a dotted line, None for none.
    """
    titles = list(next(iter(panels.values())))
    rows = -(-(len(titles) + (best is not None)) // IN_A_ROW)

    def draw(figure: Any) -> None:
        every = np.atleast_1d(figure.subplots(1, len(panels), sharey=True))
        for axes, (price, curves) in zip(every, panels.items(), strict=True):
            for number, title in enumerate(titles):
                places, values = curves[title]
                mean, error = mean_and_error(values)
                look = style(number)
                axes.plot(places, mean, linewidth=1.8, label=title, **look)
                axes.fill_between(
                    places, mean - error, mean + error, color=look["color"], alpha=0.15, linewidth=0
                )
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:g}")
            axes.set_xlabel(f"{price} (logarithmic)")
            if best is not None:
                axes.axhline(best, color=INK, linewidth=1, linestyle=(0, (2, 2)), label="best of the table")
        low, high = _limits(
            [curve.values.mean(0) for curves in panels.values() for curve in curves.values()], best
        )
        every[0].set_ylim(low, high)
        every[0].set_ylabel(label)
        # Below the panels, where a dozen entries hide no curve.
        figure.legend(
            *every[0].get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=IN_A_ROW,
            fontsize=9, handlelength=3,
        )  # fmt: skip

    return Figure(name, caption, draw, ((0, 7.2, 9.6, 12.0)[len(panels)], 3.9 + 0.22 * rows))


def _limits(means: Sequence[np.ndarray], best: float | None) -> tuple[float, float]:
    """From the lowest mean after a twentieth of the way up to the best: the start is steep, and tells nothing apart."""
    low = min(float(mean[len(mean) // 20 :].min()) for mean in means)
    high = max(float(mean.max()) for mean in means) if best is None else best
    return low, high + 0.05 * (high - low)
