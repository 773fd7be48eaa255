"""The page of a search."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from jnas import spaces
from jnas.report import page, plots
from jnas.report.views import evaluations, posterior, pruning
from jnas.store.records import Evaluation

# Titles of the scores that cells are compared by.
TITLES = {
    "ntk": "condition number",
    "regions": "linear regions",
    "params": "parameters, M",
    "flops": "FLOPs, M",
    "convs": "convolutions",
}


def render(result: Mapping[str, Any], config: Mapping[str, Any], records: Sequence[Evaluation]) -> str:
    """The page as text, from the result, the config.yaml and the records of a run."""
    # A network of masked channels is no cell of a space.
    space = spaces.SPACES.get(result["space"])
    rows = page.comparison(result)
    training = result.get("training")
    accuracies = [row.test_accuracy or 0 for row in rows]
    return page.template("search.html.j2").render(
        result=result,
        rows=rows,
        headline=page.headline(rows),
        best=max(accuracies, default=0),
        worst=min(accuracies, default=0),
        cells=page.cells(space, result["architecture"]) if space else [],
        # A space of networks has no cells: what is drawn are its decisions.
        decided=space is not None and callable(space.network),
        colours=page.operation_colours(space) if space else {},
        titles={name: TITLES.get(name, name) for name in (rows[0].scores if rows else ())},
        rounds=pruning.view(result, space) if space else [],
        posterior=posterior.view(result, records) if result.get("posterior") else None,
        evaluated=evaluations.view(result, records),
        scatter=plots.scatter_svg(rows) if rows and {"ntk", "regions"} <= rows[0].scores.keys() else "",
        curves=plots.curves_svg(training) if training and training.get("found") else "",
        settings=page.settings(config, "search"),
        environment=config.get("environment", {}),
        time=_time(records),
    )


def _time(records: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """Evaluations, failures and seconds of each stage and objective."""
    groups: dict[tuple[str, str], list[Evaluation]] = defaultdict(list)
    for record in records:
        groups[record.stage, record.objective.partition("/")[0]].append(record)
    return [
        {
            "stage": stage,
            "objective": objective,
            "evaluations": len(entries),
            "failed": sum(entry.status != "ok" for entry in entries),
            "seconds": sum(entry.seconds for entry in entries),
        }
        for (stage, objective), entries in groups.items()
    ]
