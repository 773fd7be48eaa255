"""What a study finds, and how it is left in a folder: a table, figures, a page with what the numbers say."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import jnas
from jnas.errors import InputError
from jnas.estimators.compact_table import Table
from jnas.report import page, plots
from jnas.store.folder import write_file

# Okabe and Ito's colours, which colour-blind readers tell apart, with a line and a mark for those who see none.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))


@dataclass(frozen=True)
class Figure:
    """name: of its files; caption: what it shows; draw: on a Matplotlib figure; size: in inches."""

    name: str
    caption: str
    draw: Callable[[Any], None]
    size: tuple[float, float]


@dataclass(frozen=True)
class Findings:
    """title, question: of the study. columns, rows: its table. summary: which rows the page shows, by default all.
    figures; paragraphs: what the numbers say, made of the numbers."""

    title: str
    question: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[Any]]
    figures: Sequence[Figure]
    paragraphs: Sequence[str]
    summary: Sequence[Sequence[Any]] | None = None


def some_rows(table: Table, count: int, seed: int) -> np.ndarray:
    """`count` rows of a table with an accuracy, at random, all where it is 0: int[count], ascending.

    Raises `InputError` where the table has fewer than three.
    """
    rows = np.flatnonzero(np.isfinite(table.mean()))
    if len(rows) < 3:
        raise InputError("a study needs a table of at least three architectures with accuracies")
    if 0 < count < len(rows):
        rows = np.sort(np.random.default_rng(seed).permutation(rows)[:count])
    return rows


def leave(findings: Findings, kind: str, settings: Sequence[tuple[str, Any]], folder: Path) -> Path:
    """Write study.csv, each figure as PNG and SVG, and report.html; returns the page. Raises `RunError`."""
    with io.StringIO() as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(findings.columns)
        writer.writerows(findings.rows)
        write_file(folder / "study.csv", stream.getvalue())
    drawn = []
    for figure in findings.figures:
        svg = plots.as_svg(figure.draw, figure.size, figure.name)
        write_file(folder / f"{figure.name}.svg", svg)
        write_file(folder / f"{figure.name}.png", plots.as_png(figure.draw, figure.size))
        drawn.append((svg, figure.caption))
    text = page.template("study.html.j2").render(
        jnas=jnas.__version__,
        kind=kind,
        findings=findings,
        rows=findings.rows if findings.summary is None else findings.summary,
        figures=drawn,
        settings=settings,
    )
    write_file(folder / "report.html", text)
    return folder / "report.html"
