"""The part of a search's page that a posterior has: the supernet's training, and the candidates drawn from it."""

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from jnas import spaces
from jnas.report.page import mean
from jnas.report.plots import FOUND, INK, OTHERS, as_svg
from jnas.store.records import Evaluation

# More lines or bars than these have no room for names.
NAMED_GROUPS = 40


def view(result: Mapping[str, Any], records: Sequence[Evaluation]) -> dict[str, Any]:
    """Variables of the template, from the `posterior` part of a result and the records."""
    learned = result["posterior"]
    accuracies = {
        name: [a for a in learned[name]["accuracy"] if a is not None] for name in ("candidates", "blind")
    }
    tested = [a for a in learned["test"].values() if a is not None]
    return {
        "drawn": {
            name: {
                "count": len(learned[name]["accuracy"]),
                "best": max(present, default=None),
                "mean": mean(present),
                "parameters": mean(learned[name]["parameters"]),
            }
            for name, present in accuracies.items()
        },
        "training": _training_svg(records),
        "histogram": _histogram_svg(accuracies, learned["found_validation"]),
        "kept": _kept_svg(learned["groups"]),
        "test": [
            {"name": name, "accuracy": accuracy, "found": name == "found"}
            for name, accuracy in learned["test"].items()
        ],
        "lowest": min(tested, default=0),
        "highest": max(tested, default=0),
        "parameters": learned["parameters"],
        "found_parameters": learned["found_parameters"],
        "channels": result["space"] not in spaces.SPACES,
    }


def _training_svg(records: Sequence[Evaluation]) -> str:
    """Cross-entropy, regulariser and the drop probability of each group, by epoch."""
    series: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        if record.stage == "supernet":
            series[record.objective][record.place].append(record.value)
    probabilities = list(series["drop_probability"].values())

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        for name, colour in (("cross_entropy", FOUND), ("regulariser", OTHERS)):
            values = series[name][0]
            left.plot(
                range(1, len(values) + 1), values, color=colour, linewidth=2.2, label=name.replace("_", "-"),
                marker="o" if len(values) == 1 else None,
            )  # fmt: skip
        left.set_yscale("log")
        left.set_title("loss: cross-entropy and regulariser", loc="left")
        left.legend(frameon=False)
        for values in probabilities:
            right.plot(
                range(1, len(values) + 1), values, color=FOUND, linewidth=1.2, marker="o" if len(values) == 1 else None,
                alpha=max(0.08, min(0.7, 12 / len(probabilities))),
            )  # fmt: skip
        right.set_title("drop probability of each group", loc="left")
        right.set_ylim(0, 1)
        for axes in (left, right):
            axes.set_xlabel("epoch")
        figure.get_layout_engine().set(wspace=0.08)

    return as_svg(draw, (10.6, 3.7), "supernet")


def _histogram_svg(accuracies: Mapping[str, Sequence[float]], found: float) -> str:
    """Validation accuracies of candidates from the posterior, of blind ones, and of the found one."""
    values = [value for drawn in accuracies.values() for value in drawn]

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        low, high = min(values, default=0.0), max(values, default=100.0)
        width = max((high - low) / 40, 0.25)
        count = math.ceil((high - low) / width) + 1
        edges = [low - width / 2 + number * width for number in range(count + 1)]
        for name, colour, label in (
            ("blind", OTHERS, "drawn blindly"),
            ("candidates", FOUND, "drawn from the posterior"),
        ):
            axes.hist(accuracies[name], bins=edges, color=colour, alpha=0.75, label=label)
        axes.margins(y=0.14)
        axes.axvline(found, color=INK, linewidth=1.2, linestyle="--")
        axes.annotate(
            "found", (found, axes.get_ylim()[1]), xytext=(-5, -12),
            textcoords="offset points", ha="right", color=INK, weight="bold",
        )  # fmt: skip
        axes.set_xlabel("validation accuracy with inherited weights, %")
        axes.set_ylabel("candidates")
        axes.grid(axis="x", visible=False)
        axes.legend(frameon=False, loc="upper left")

    return as_svg(draw, (10.6, 3.6), "histogram")


def _kept_svg(groups: Sequence[Mapping[str, Any]]) -> str:
    """Share of each group that the found candidate keeps, with the probability of keeping it."""
    # `block_2` before `block_10`.
    groups = sorted(
        groups, key=lambda group: [(len(part), part) for part in re.split(r"(\d+)", group["name"])]
    )

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        places = range(len(groups))
        shares = [100 * group["kept"] / group["masks"] for group in groups]
        axes.bar(places, [100] * len(groups), color="#eef1f5", width=0.8)
        axes.bar(places, shares, color=FOUND, width=0.8, label="kept in the found network")
        # Methods without probabilities have none to show.
        learned = [
            (place, 100 * (1 - group["drop_probability"]))
            for place, group in enumerate(groups)
            if group["drop_probability"] is not None
        ]
        if learned:
            axes.scatter(
                *zip(*learned, strict=True), color=INK, s=14, zorder=3, label="probability of being kept"
            )
        axes.set_ylim(0, 104)
        axes.set_xlim(-0.7, len(groups) - 0.3)
        axes.set_ylabel("%")
        axes.grid(axis="x", visible=False)
        if len(groups) <= NAMED_GROUPS:
            axes.set_xticks(
                list(places), [group["name"] for group in groups], rotation=60, ha="right", size=8
            )
        else:
            axes.set_xlabel("groups, by their names")
        figure.legend(frameon=False, loc="outside upper right", ncols=2)

    return as_svg(draw, (10.6, 4.2), "kept")
