"""Charts as SVG elements of a page, and the style that all of them share."""

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jnas.report.page import Row

FOUND = "#9d174d"
OTHERS = "#7b8ba3"
INK = "#374151"
GRID = "#e5e7eb"

_STYLE: Any = {
    "svg.fonttype": "none",
    "font.size": 11,
    "axes.edgecolor": "#9ca3af",
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": "#9ca3af",
    "ytick.color": "#9ca3af",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.color": INK,
}


def scatter_svg(rows: Sequence[Row]) -> str:
    """Condition number against linear regions, of the found cell and of random ones, which carry their number.

    Cells without a positive condition number or without regions are left out.
    """
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    shown = [
        (row, ntk, regions)
        for row in rows
        if (ntk := row.scores["ntk"]) is not None
        and ntk > 0
        and (regions := row.scores["regions"]) is not None
    ]

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.set_xscale("log")
        # The found one last, on top.
        for row, ntk, regions in reversed(shown):
            found = row.name == "found"
            axes.scatter(
                ntk, regions, s=330 if found else 230, marker="*" if found else "o",
                color=FOUND if found else OTHERS, edgecolor="white", linewidth=1, clip_on=False, zorder=3,
            )  # fmt: skip
            if found:
                axes.annotate(
                    "found", (ntk, regions), xytext=(0, 11), textcoords="offset points", ha="center",
                    color=FOUND, weight="bold", zorder=4,
                )  # fmt: skip
            else:
                number = row.name.removeprefix("random ")
                axes.annotate(
                    number, (ntk, regions), color="white", ha="center", va="center", size=9, zorder=4
                )
        axes.margins(0.12, 0.14)
        if shown:
            low, high = min(ntk for _, ntk, _ in shown), max(ntk for _, ntk, _ in shown)
            if high / low < 50:
                axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter(ScalarFormatter())
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("condition number of the NTK (logarithmic; lower: easier to train)")
        axes.set_ylabel("linear regions (higher: more expressive)")

    return as_svg(draw, (6.4, 4.4), "scatter")


def curves_svg(training: Mapping[str, Any]) -> str:
    """Test accuracy and training loss by epoch, of the found cell and of the random ones."""
    runs = [(run, False) for run in training.get("random", [])] + [(training["found"], True)]
    curves = [run.get("test_accuracy_by_epoch") or [] for run, _ in runs]
    settled = [value for curve in curves for value in curve[len(curve) // 4 :] if value is not None]

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        for axes, key in ((left, "test_accuracy_by_epoch"), (right, "train_loss_by_epoch")):
            for number, (run, found) in enumerate(runs):
                values = [math.nan if value is None else value for value in run.get(key) or []]
                label = "found cell" if found else ("random cells" if number == 0 else None)
                axes.plot(
                    range(1, len(values) + 1), values, label=label,
                    marker="o" if len(values) == 1 else None,
                    color=FOUND if found else OTHERS, linewidth=2.4 if found else 1.3,
                    alpha=1 if found else 0.75,
                )  # fmt: skip
        right.legend(frameon=False, loc="upper right")
        if settled:
            # The first epochs would take the room in which the cells differ.
            left.set_ylim(min(settled) - 1, min(100.5, max(settled) + 1))
        _finish(figure, left, right, "test accuracy, %")

    return as_svg(draw, (10.6, 3.7), "curves")


def training_svg(curves: Mapping[str, Sequence[float]]) -> str:
    """Accuracy of training and test images, and training loss, by epoch."""

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        for axes, key, label, colour in (
            (left, "train_accuracy", "training images", OTHERS), (left, "test_accuracy", "test images", FOUND),
            (right, "train_loss", None, OTHERS),
        ):  # fmt: skip
            epochs = range(1, 1 + len(curves[key]))
            marker = "o" if len(epochs) == 1 else None
            axes.plot(epochs, curves[key], label=label, color=colour, linewidth=2, marker=marker)
        left.legend(frameon=False, loc="lower right")
        _finish(figure, left, right, "accuracy, %")

    return as_svg(draw, (10.6, 3.7), "training")


def _finish(figure: Any, left: Any, right: Any, title: str) -> None:
    """Titles and axes of accuracies by epoch, left, and of losses, right, with plain numbers on a logarithmic axis."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    for axes, heading in ((left, title), (right, "training loss")):
        axes.set_title(heading, loc="left")
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.set_yscale("log", nonpositive="mask")
    low, high = right.get_ylim()
    # Within a factor of a few there may be no round number of a logarithmic axis.
    right.yaxis.set_major_locator(LogLocator(subs=(1, 3)) if high > 10 * low else MaxNLocator(5))
    right.yaxis.set_major_formatter("{x:g}")
    right.yaxis.set_minor_locator(NullLocator())
    figure.get_layout_engine().set(wspace=0.08)


def as_svg(draw: Any, size: tuple[float, float], name: str) -> str:
    """Draw on a fresh figure, without pyplot's global state, and return its <svg> element."""
    # The salt keeps the page the same for the same run.
    text = _drawn(
        draw, size, {"svg.hashsalt": name}, format="svg", dpi=150, transparent=True, metadata={"Date": None}
    )
    svg = text.decode()
    # Ids must differ between the charts of one page.
    return re.sub(r'(\bid="|url\(#|href="#)', rf"\1{name}-", svg[svg.index("<svg") :])


def as_png(draw: Any, size: tuple[float, float]) -> bytes:
    """Draw on a fresh figure and return it as a PNG of twice the usual resolution, on white."""
    return _drawn(draw, size, {}, format="png", dpi=200, metadata={"Software": None})


def _drawn(draw: Any, size: tuple[float, float], style: Any, **how: Any) -> bytes:
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**_STYLE, **style}), io.BytesIO() as stream:
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        figure.savefig(stream, **how)
        return stream.getvalue()
