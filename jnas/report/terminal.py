"""The end of a search in the terminal: the found cell drawn, its comparison with random cells, the report's path."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

# Title and format of the scores that cells are compared by.
COLUMNS = {
    "ntk": ("NTK condition", "{:,.4g}"),
    "regions": ("regions", "{:,.1f}"),
    "params": ("params", "{:.3f} M"),
    "flops": ("FLOPs", "{:.1f} M"),
    "convs": ("convs", "{}"),
}


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
    if not random:
        return text
    beaten = sum(found > value for value in random)
    return (
        f"{text}; better than {beaten} of {len(random)} random cells (mean {statistics.mean(random):.2f} %)"
    )


def print_summary(result: Mapping[str, Any], report: Path) -> None:
    """Print the outcome of a search on stdout."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from jnas import spaces
    from jnas.report.drawing import cell_edges, cell_text

    console = Console()
    rows = comparison(result)
    console.print()
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
    if rows:
        console.print(_table(rows, Table))
    if result.get("posterior"):
        console.print(_posterior_table(result["posterior"], Table))
    for line in (headline(rows), _table_line(result.get("table"))):
        if line:
            console.print(Text(line), soft_wrap=True)
    search, total = result["search_seconds"], result["seconds"]
    console.print(
        Text(f"Search: {result['evaluations']:,} evaluations in {search:.1f} s; {total:.1f} s in all")
    )
    console.print(Text(f"Report: {report}"), soft_wrap=True)


def _table_line(table: Mapping[str, Any] | None) -> str:
    if not table or table.get("test_accuracy") is None:
        return ""
    return f"Test accuracy of the found cell in the table: {table['test_accuracy']:.2f} %"


def _posterior_table(learned: Mapping[str, Any], make: Any) -> Any:
    """Held-out accuracies of the posterior's candidates and of blind ones, and test accuracies."""
    from rich import box

    table = make(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("network", "candidates", "best held out", "mean held out", "test", "parameters"):
        first = title == "network"
        table.add_column(title, justify="left" if first else "right", no_wrap=first)
    test = learned["test"]

    def percent(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f} %"

    for name, key in (("posterior's draws", "candidates"), ("blind draws", "blind")):
        accuracy = [value for value in learned[key]["accuracy"] if value is not None]
        if accuracy:
            table.add_row(
                name, str(len(learned[key]["accuracy"])), percent(max(accuracy)), percent(statistics.mean(accuracy)),
                "", f"{statistics.mean(learned[key]['parameters']):,.0f}",
            )  # fmt: skip
    blind = learned["blind"]
    sizes = dict(zip(blind["accuracy"], blind["parameters"], strict=True))
    best_blind = max((value for value in sizes if value is not None), default=None)
    parameters = {"whole supernet": learned["parameters"], "best blind": sizes.get(best_blind, 0)}
    for name, value in test.items():
        size = parameters.get(name, learned["found_parameters"])
        table.add_row(
            name, "", "", "", percent(value), f"{size:,}", style="bold" if name == "found" else None
        )
    return table


def _table(rows: Sequence[Row], make: Any) -> Any:
    from rich import box

    table = make(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("cell")
    trained = any(row.test_accuracy is not None for row in rows)
    if trained:
        table.add_column("test accuracy", justify="right")
    names = [name for name in rows[0].scores if any(row.scores.get(name) is not None for row in rows)]
    for name in names:
        table.add_column(COLUMNS.get(name, (name,))[0], justify="right")
    for row in rows:
        cells = [(row.test_accuracy, "{:.2f} %")] if trained else []
        cells += [(row.scores.get(name), COLUMNS.get(name, ("", "{:,.4g}"))[1]) for name in names]
        values = ["-" if value is None else pattern.format(value) for value, pattern in cells]
        table.add_row(row.name, *values, style="bold" if row.name == "found" else None)
    return table


def print_scores(scores: Any, proxies: Sequence[str], path: str) -> None:
    """Print on stdout each proxy, its correlation with the sizes, and its best architecture."""
    import numpy as np
    from rich.console import Console
    from rich.table import Table
    from scipy.stats import spearmanr

    from jnas.proxies import PROXIES
    from jnas.proxies.combination import oriented

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
