"""Parts that pages share, some of them with the terminal: templates, numbers, settings, cells and their comparison."""

import itertools
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jnas.report.drawing import cell_edges, cell_svg
from jnas.spaces.base import Space

# Okabe and Ito's colours, which colour-blind readers tell apart; `none` stays grey.
PALETTE = ("#009e73", "#56b4e9", "#0072b2", "#e69f00", "#cc79a7", "#d55e00", "#f0e442", "#000000")
NONE_COLOUR = "#b6bcc6"
# Keys of a run's config.yaml that are no settings.
RESERVED = ("environment", "format")


def template(name: str) -> Any:
    """A template of `jnas/report/templates`, which writes numbers by the filter `number`."""
    import jinja2

    page = jinja2.Environment(
        loader=jinja2.PackageLoader("jnas.report"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    page.filters["number"] = number
    return page.get_template(name)


def number(value: float | None, digits: int = 3) -> str:
    """Format a number to `digits` significant digits, thousands set apart; a dash for None, nan and infinities."""
    if value is None or not math.isfinite(value):
        return "–"
    if isinstance(value, int) or abs(value) >= 10**digits:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}" if value == 0 or abs(value) < 1e-3 else f"{value:#.{digits}g}".rstrip(".")


def settings(
    config: Mapping[str, Any], first: str, only: Sequence[str] | None = None
) -> list[tuple[str, list[tuple[str, Any]]]]:
    """Sections of (key, value) of a config.yaml: the keys outside all sections under the name `first`, then the others.

    Keys within a section have dots. Sections that are switched off are left out.
    only: names of the other sections to show; None for all.
    """
    shown = {key: value for key, value in config.items() if key not in RESERVED and value is not None}
    plain = [(key, value) for key, value in shown.items() if not isinstance(value, Mapping)]
    return [(first, plain)] + [
        (key, list(_flat(value)))
        for key, value in shown.items()
        if isinstance(value, Mapping) and (only is None or key in only)
    ]


def _flat(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in section.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def cells(space: Space, architecture: str) -> list[tuple[str, str]]:
    """Name and drawing of each cell. Raises `InputError` for the text of no architecture of the space."""
    colours = operation_colours(space)
    return [
        (name, cell_svg(edges, colours, space.nodes))
        for name, edges in zip(space.cell_names, cell_edges(space, architecture), strict=True)
    ]


def operation_colours(space: Space) -> dict[str, str]:
    """A colour for each operation of the space, in the order of the space."""
    names = [name for name in space.operations if name != "none"]
    return {"none": NONE_COLOUR} | dict(zip(names, itertools.cycle(PALETTE), strict=False))


def mean(values: Sequence[float | None]) -> float | None:
    """Mean of the values that are there; None where none is."""
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None


class Row(NamedTuple):
    """One cell of the comparison.

    test_accuracy: in percent, None where it was not trained.
    scores: by name, None where one is not finite.
    """

    name: str
    architecture: str
    test_accuracy: float | None
    scores: Mapping[str, float | None]


def comparison(result: Mapping[str, Any]) -> list[Row]:
    """The found cell, then the random cells in the order of their draws; empty where the search compared none."""
    if not result["scores"]:
        return []
    training = result.get("training") or {}
    trained = [training.get("found") or {}, *training.get("random", [])]
    scores = [result["scores"]["found"], *result["scores"].get("random", [])]
    trained += [{}] * (len(scores) - len(trained))
    names = ["found", *(f"random {number}" for number in range(1, len(scores)))]
    return [
        Row(
            name,
            score["architecture"],
            run.get("test_accuracy"),
            {key: value for key, value in score.items() if key != "architecture"},
        )
        for name, score, run in zip(names, scores, trained, strict=True)
    ]


def headline(rows: Sequence[Row]) -> str:
    """One sentence on the test accuracy of the found cell and the random ones; empty without training."""
    if not rows or rows[0].test_accuracy is None:
        return ""
    found = rows[0].test_accuracy
    random = [row.test_accuracy for row in rows[1:] if row.test_accuracy is not None]
    text = f"Test accuracy of the found cell: {found:.2f} %"
    if random:
        beaten = sum(found > value for value in random)
        text += f"; better than {beaten} of {len(random)} random cells (mean {statistics.mean(random):.2f} %)"
    return text
