"""Findings of a study, its folder, and the parts that several studies share."""

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
from jnas.store.score_files import as_csv
from jnas.studies.statistics import Estimate
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


class Part(NamedTuple):
    """A further table of a study. name: of its CSV; title: above it on the page."""

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


class Findings(NamedTuple):
    """Findings of a study.

    title, question: of the study.
    columns, rows: its table.
    figures: in their order on the page.
    paragraphs: text made of the numbers.
    summary: the rows that the page shows; None for all.
    parts: further tables, above it on the page.
    """

    title: str
    question: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    figures: Sequence[Figure]
    paragraphs: Sequence[str]
    summary: Sequence[Sequence[Any]] | None = None
    parts: Sequence[Part] = ()


def spread(rows: Sequence[Any]) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of a table of NamedTuples; an `Estimate` inside takes the columns name, name_low, name_high."""

    def columns(name: str, value: Any) -> list[str]:
        if isinstance(value, Estimate):
            return [name, f"{name}_low", f"{name}_high"]
        fields = getattr(value, "_fields", None)
        if fields is None:
            return [name]
        return [column for pair in zip(fields, value, strict=True) for column in columns(*pair)]

    def cells(value: Any) -> list[Any]:
        return [cell for part in value for cell in cells(part)] if isinstance(value, tuple) else [value]

    return columns("", rows[0]), [cells(row) for row in rows]


class Cells(NamedTuple):
    """Architectures of a table.

    names: A strings.
    accuracy: float64[A], in percent, the mean over seeds.
    architectures: int32[A, D].
    """

    names: list[str]
    accuracy: np.ndarray
    architectures: np.ndarray


def style(number: int) -> dict[str, Any]:
    """Colour and line of the series with this number: each pair once among the first 49."""
    turn, place = divmod(number, len(COLOURS))
    return {"color": COLOURS[place], "linestyle": LINES[(place + turn) % len(LINES)]}


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


def cells_at(table: Table, rows: np.ndarray) -> Cells:
    """The architectures in some rows of a table."""
    architectures = table.architectures[rows]
    names = [spaces.get(table.space).to_string(architecture) for architecture in architectures]
    return Cells(names, table.mean()[rows], architectures)


def spread_cells(table: Table, count: int) -> Cells:
    """`count` cells of `connected_rows`, evenly by accuracy, the worst first.

    Raises `InputError` where the table has fewer.
    """
    rows = connected_rows(table)
    if len(rows) < count:
        raise InputError(
            f"the table has {len(rows)} cells that pass something on: ask for fewer than {count}"
        )
    rows = rows[np.argsort(table.mean()[rows])]
    return cells_at(table, rows[np.linspace(0, len(rows) - 1, count).round().astype(int)])


def some_cells(table: Table, count: int, seed: int) -> Cells:
    """Draw `count` architectures of a table with an accuracy, all where it is 0, in the order of the table.

    Raises `InputError` where the table has fewer than three.
    """
    rows = np.flatnonzero(np.isfinite(table.mean()))
    if len(rows) < 3:
        raise InputError("a study needs a table of at least three architectures with accuracies")
    if 0 < count < len(rows):
        rows = np.sort(np.random.default_rng(seed).permutation(rows)[:count])
    return cells_at(table, rows)


def convolutions(table: Table, architectures: np.ndarray) -> np.ndarray:
    """Convolutions of architectures int32[B, D] of the table's space: float64[B]."""
    space = spaces.get(table.space)
    return networks.sizes_of(space, Macro(), space.choices(architectures)).convs.astype(np.float64)


def leave(findings: Findings, kind: str, folder: RunFolder) -> Path:
    """Write study.csv, further tables, each figure as PNG and SVG, result.json and report.html; returns the page.

    Raises `RunError` when the disk is full.
    """
    write_file(folder.path / "study.csv", as_csv([findings.columns, *findings.rows]))
    for part in findings.parts:
        write_file(folder.path / f"{part.name}.csv", as_csv([part.columns, *part.rows]))
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
            "parts": [
                {"title": part.title, "columns": list(part.columns), "rows": list(part.rows)}
                for part in findings.parts
            ],
            "columns": list(findings.columns),
            "rows": list(findings.rows if findings.summary is None else findings.summary),
        }
    )
    return write_report(folder.path)
