"""Findings of a study, its folder, and the parts that several studies share."""

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import jnas
from jnas import data as datasets
from jnas import spaces
from jnas.config.study import StudyConfig
from jnas.data import transforms
from jnas.errors import InputError
from jnas.estimators.compact_table import Table
from jnas.nets import networks
from jnas.nets.sizes import Macro
from jnas.report import plots
from jnas.report.report import write_report
from jnas.spaces import nasbench201
from jnas.store.folder import FORMAT, RunFolder, write_file
from jnas.theory import infinite_width

# Okabe and Ito's colours, which colour-blind readers tell apart, with a line and a mark for those who see none.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))


class Figure(NamedTuple):
    """A figure of a study.

    name: of its files.
    caption: a sentence or two.
    draw: draws on a Matplotlib figure.
    size: in inches.
    """

    name: str
    caption: str
    draw: Callable[[Any], None]
    size: tuple[float, float]


class Findings(NamedTuple):
    """Findings of a study.

    title, question: of the study.
    columns, rows: its table.
    figures: in their order on the page.
    paragraphs: text made of the numbers.
    summary: the rows that the page shows; None for all.
    """

    title: str
    question: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    figures: Sequence[Figure]
    paragraphs: Sequence[str]
    summary: Sequence[Sequence[Any]] | None = None


def style(number: int) -> dict[str, Any]:
    """Colour and line of the series with this number."""
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": LINES[number % len(LINES)]}


def probe_images(config: StudyConfig, count: int, *, test: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Draw `count` training images, or test images, by the seed: (standardised float32[count, H, W, C], labels).

    Raises `InputError` where the data set has fewer.
    """
    dataset = datasets.load(config.data)
    images, labels = (dataset.x_test, dataset.y_test) if test else (dataset.x_train, dataset.y_train)
    if count > len(images):
        purpose = "test" if test else "train"
        raise InputError(f"{count} images do not fit: {config.data} has {len(images)} to {purpose} on")
    places = np.random.default_rng(config.seed).permutation(len(images))[:count]
    return np.asarray(transforms.normalise(dataset, images[places])), labels[places]


def require_space(table: Table, name: str) -> None:
    """Raise `InputError` for a table of another space than `name`, the only one whose networks a study can build."""
    if table.space != name:
        raise InputError(
            f"this study builds the cells of {name} alone, the table is of {table.space}: give a table of {name}"
        )


def connected_rows(table: Table) -> np.ndarray:
    """Rows of the table with an accuracy and a path from the cell's input to its output: int[n], ascending.

    Raises `InputError` for a table of a space without networks of infinite width.
    """
    require_space(table, nasbench201.SPACE.name)
    rows = np.flatnonzero(np.isfinite(table.mean()))
    return rows[[infinite_width.is_connected(table.architectures[row]) for row in rows]]


def spread_rows(table: Table, count: int) -> np.ndarray:
    """`count` of `connected_rows`, evenly by accuracy, the worst first: int[count].

    Raises `InputError` where the table has fewer.
    """
    rows = connected_rows(table)
    if len(rows) < count:
        raise InputError(
            f"the table has {len(rows)} cells that pass something on: ask for fewer than {count}"
        )
    rows = rows[np.argsort(table.mean()[rows])]
    return rows[np.linspace(0, len(rows) - 1, count).round().astype(int)]


def some_rows(table: Table, count: int, seed: int) -> np.ndarray:
    """Draw `count` rows of a table with an accuracy, all where it is 0: int[count], ascending.

    Raises `InputError` where the table has fewer than three.
    """
    rows = np.flatnonzero(np.isfinite(table.mean()))
    if len(rows) < 3:
        raise InputError("a study needs a table of at least three architectures with accuracies")
    if 0 < count < len(rows):
        rows = np.sort(np.random.default_rng(seed).permutation(rows)[:count])
    return rows


def leave(findings: Findings, kind: str, folder: RunFolder) -> Path:
    """Write study.csv, each figure as PNG and SVG, result.json and report.html; returns the page.

    Raises `RunError` when the disk is full.
    """
    with io.StringIO() as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(findings.columns)
        writer.writerows(findings.rows)
        write_file(folder.path / "study.csv", stream.getvalue())
    for figure in findings.figures:
        svg = plots.as_svg(figure.draw, figure.size, figure.name)
        write_file(folder.path / f"{figure.name}.svg", svg)
        write_file(folder.path / f"{figure.name}.png", plots.as_png(figure.draw, figure.size))
    folder.write_result(
        {
            "kind": "study",
            "format": FORMAT,
            "jnas": jnas.__version__,
            "study": kind,
            "title": findings.title,
            "question": findings.question,
            "paragraphs": list(findings.paragraphs),
            "figures": [{"name": figure.name, "caption": figure.caption} for figure in findings.figures],
            "columns": list(findings.columns),
            "rows": list(findings.rows if findings.summary is None else findings.summary),
        }
    )
    return write_report(folder.path)


def convolutions(table: Table, places: np.ndarray) -> np.ndarray:
    """Convolutions of architectures of a table: float64[B]."""
    space = spaces.get(table.space)
    choices = space.choices(table.architectures[places])
    return networks.sizes_of(space, Macro(), choices).convs.astype(np.float64)
