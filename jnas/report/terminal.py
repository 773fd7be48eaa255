"""The end of a search in the terminal: the found cell drawn, its comparison with random cells, the report's path."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from scipy.stats import spearmanr

from jnas import spaces
from jnas.proxies import PROXIES
from jnas.proxies.combination import oriented
from jnas.report.drawing import cell_edges, cell_text
from jnas.report.page import Row, comparison, headline

# Title and format of the scores that cells are compared by.
COLUMNS = {
    "ntk": ("NTK condition", "{:,.4g}"),
    "regions": ("regions", "{:,.1f}"),
    "params": ("params", "{:.3f} M"),
    "flops": ("FLOPs", "{:.1f} M"),
    "convs": ("convs", "{}"),
}


def print_summary(result: Mapping[str, Any], report: Path) -> None:
    """Print the outcome of a search on stdout."""
    console = Console()
    rows = comparison(result)
    console.print()
    # The found cell, where it is one of a space.
    space = spaces.SPACES.get(result["space"])
    if space:
        cells = [cell_text(edges, space.nodes) for edges in cell_edges(space, result["architecture"])]
        if space.cells > 1:
            cells = [f"{name}\n\n{cell}" for name, cell in zip(space.cell_names, cells, strict=True)]
        drawing = "\n\n".join(cells)
        if not str(console.encoding).lower().startswith("utf"):
            drawing = drawing.translate(str.maketrans("─│├└┼┴▶", "-|++++>"))
        text = Text(drawing, no_wrap=True, overflow="ignore")
        text.highlight_words(list(space.operations), "bold blue")
        console.print(Text("Found cell", style="bold"))
        console.print(Text(result["architecture"], no_wrap=True, overflow="ignore"), soft_wrap=True)
        console.print()
        console.print(text, soft_wrap=True)
        console.print()
    # Tables, and one line on each accuracy.
    if rows:
        console.print(_comparison_table(rows))
    if result.get("posterior"):
        console.print(_posterior_table(result["posterior"]))
    if rows and (line := headline(rows)):
        console.print(Text(line), soft_wrap=True)
    table = result.get("table") or {}
    if table.get("test_accuracy") is not None:
        accuracy = table["test_accuracy"]
        console.print(Text(f"Test accuracy of the found cell in the table: {accuracy:.2f} %"), soft_wrap=True)
    search, total = result["search_seconds"], result["seconds"]
    asked = f"{result['evaluations']:,} evaluations"
    if result.get("paid"):
        asked += f", worth {result['paid']:.1f} trainings in full,"
    # An accuracy may come from a table, which says what its training took.
    cost = " (from a table: of training that it saved)" if result["estimator"] == "accuracy" else ""
    console.print(
        Text(f"Search: {asked} in {search:.1f} s{cost}; {total:.1f} s in all"),
        soft_wrap=True,
    )
    console.print(Text(f"Report: {report}"), soft_wrap=True)


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Rows of a name and numbers; that of the found cell is bold."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in titles:
        first = title == titles[0]
        table.add_column(title, justify="left" if first else "right", no_wrap=first)
    for row in rows:
        table.add_row(*row, style="bold" if row[0] == "found" else None)
    return table


def _formatted(value: float | None, pattern: str = "{:.2f} %") -> str:
    return "-" if value is None else pattern.format(value)


def _comparison_table(rows: Sequence[Row]) -> Table:
    """Test accuracies where cells were trained, and the scores that one of the cells has."""
    columns = {"test accuracy": ("{:.2f} %", [row.test_accuracy for row in rows])}
    for name in rows[0].scores:
        title, form = COLUMNS.get(name, (name, "{:,.4g}"))
        columns[title] = form, [row.scores.get(name) for row in rows]
    columns = {
        title: (form, values)
        for title, (form, values) in columns.items()
        if any(v is not None for v in values)
    }
    cells = [[_formatted(value, form) for value in values] for form, values in columns.values()]
    return _table(["cell", *columns], list(zip([row.name for row in rows], *cells, strict=True)))


def _posterior_table(learned: Mapping[str, Any]) -> Table:
    """Held-out accuracies of the posterior's candidates and of blind ones, and test accuracies."""
    rows = []
    for name, key in (("posterior's draws", "candidates"), ("blind draws", "blind")):
        drawn = learned[key]
        accuracy = [value for value in drawn["accuracy"] if value is not None]
        if accuracy:
            best, mean = _formatted(max(accuracy)), _formatted(statistics.mean(accuracy))
            size = statistics.mean(drawn["parameters"])
            rows.append([name, str(len(drawn["accuracy"])), best, mean, "", f"{size:,.0f}"])
    blind = learned["blind"]
    sizes = dict(zip(blind["accuracy"], blind["parameters"], strict=True))
    best_blind = max((value for value in sizes if value is not None), default=None)
    parameters = {"whole supernet": learned["parameters"], "best blind": sizes.get(best_blind, 0)}
    for name, value in learned["test"].items():
        size = parameters.get(name, learned["found_parameters"])
        rows.append([name, "", "", "", _formatted(value), f"{size:,}"])
    return _table(["network", "candidates", "best held out", "mean held out", "test", "parameters"], rows)


def print_scores(scores: Any, proxies: Sequence[str], path: str) -> None:
    """Print on stdout each proxy, its correlation with the sizes, and its best architecture."""
    table = Table(title=f"{len(scores):,} architectures")
    table.add_column("proxy")
    for heading in ("ok", "median", "Spearman params", "Spearman FLOPs"):
        table.add_column(heading, justify="right")
    table.add_column("best architecture", overflow="fold")
    for name in proxies:
        statuses = scores.columns.get(f"{name}_status")
        values = np.asarray(scores[name], np.float64)
        good = oriented(values, statuses, PROXIES[name].sign)
        ok = np.isfinite(good)
        ranks = [
            # Where all are equal there is no order to compare.
            f"{spearmanr(good[ok], scores[size][ok]).statistic:.2f}"
            if len(set(good[ok])) > 1 and len(set(scores[size][ok])) > 1
            else ""
            for size in ("params", "flops")
        ]
        best = scores["architecture"][int(np.argmax(good))] if ok.any() else ""
        median = f"{np.median(values[ok]):.6g}" if ok.any() else ""
        table.add_row(name, f"{ok.sum():,}", median, *ranks, best)
    console = Console(width=None if Console().is_terminal else 160)
    console.print(table)
    console.print(path, soft_wrap=True)
