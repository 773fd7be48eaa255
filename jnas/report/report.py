"""The report of a run: one HTML file that opens without a network, made from the files of its folder."""

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jnas import spaces
from jnas.config.read import RESERVED
from jnas.errors import InputError
from jnas.proxies import PROXIES, combination
from jnas.report import page, plots
from jnas.report import posterior as posterior_report
from jnas.report.drawing import cell_edges, cell_svg, short_names
from jnas.report.terminal import comparison, headline
from jnas.spaces.base import Space
from jnas.store.folder import read_run, write_file
from jnas.store.records import Evaluation, read_records

# Okabe and Ito's colours, which colour-blind readers tell apart; `none` stays grey.
PALETTE = ("#009e73", "#56b4e9", "#0072b2", "#e69f00", "#cc79a7", "#d55e00", "#f0e442", "#000000")
NONE_COLOUR = "#b6bcc6"
# Of the architectures that an evolution liked best.
FINALISTS_SHOWN = 10


def write_report(path: str | Path) -> Path:
    """Write report.html into the folder of a finished run and return its path.

    Raises `InputError` when the folder holds no finished run, `RunError` when the file cannot be written.
    """
    path = Path(path)
    result, config = read_run(path)
    if "curves" in result:
        target = path / "report.html"
        write_file(target, render_training(result, config))
        return target
    records_path = path / "records.sqlite"
    records = read_records(records_path) if records_path.exists() else []
    target = path / "report.html"
    write_file(target, render(result, config, records))
    return target


def render(result: Mapping[str, Any], config: Mapping[str, Any], records: Sequence[Evaluation]) -> str:
    """The page as text, from what `read_run` and `read_records` return."""
    # A network of masked channels is no cell of a space.
    space = spaces.SPACES.get(result["space"])
    rows = comparison(result)
    training = result.get("training")
    trained = bool(training and training.get("found"))
    settings = {key: value for key, value in config.items() if key not in RESERVED}
    colours = operation_colours(space) if space else {}
    return page.template("report.html.j2").render(
        result=result,
        rows=rows,
        headline=headline(rows) if rows else "",
        best=max((row.test_accuracy or 0 for row in rows), default=0),
        worst=min((row.test_accuracy or 0 for row in rows), default=0),
        cells=_cells_view(space, result["architecture"]) if space else [],
        colours=colours,
        rounds=[_round_view(entry, space) for entry in result["rounds"]] if space else [],
        posterior=posterior_report.view(result, records) if result.get("posterior") else None,
        evolution=_evolution_view(records, result["architecture"]) if result.get("generations") else None,
        scatter=plots.scatter_svg(rows) if rows else "",
        curves=plots.curves_svg(training) if training and trained else "",
        settings=_settings_view(settings, None if space else ("posterior",)),
        environment=config.get("environment", {}),
        time=_time_view(records),
    )


def render_training(result: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """The page of a training as text, from what `read_run` returns."""
    space = spaces.get(result["space"])
    settings = {key: value for key, value in config.items() if key not in RESERVED}
    try:
        cells = _cells_view(space, result["architecture"])
    except InputError:
        # A genotype with other nodes or operations than the space's has no drawing here.
        cells = []
    return page.template("training.html.j2").render(
        result=result,
        cells=cells,
        curves=plots.training_svg(result["curves"]),
        settings=_settings_view(settings, None),
        environment=config.get("environment", {}),
    )


def _cells_view(space: Space, architecture: str) -> list[tuple[str, str]]:
    """Name and drawing of each cell."""
    colours = operation_colours(space)
    return [
        (name, cell_svg(edges, colours, space.nodes))
        for name, edges in zip(space.cell_names, cell_edges(space, architecture), strict=True)
    ]


def operation_colours(space: Space) -> dict[str, str]:
    """A colour for each operation of the space, in the order of the space."""
    names = [name for name in space.operations if name != "none"]
    return {"none": NONE_COLOUR} | dict(zip(names, itertools.cycle(PALETTE), strict=False))


def _round_view(entry: Mapping[str, Any], space: Space) -> dict[str, Any]:
    """One pruning round as a table: edges down, operations across, None where one was gone before."""
    candidates = entry["candidates"]
    cells = {(c["cell"], c["edge"], c["operation"]): c for c in candidates}
    edges = sorted({(c["cell"], c["edge"], c["source"], c["target"]) for c in candidates})
    operations = [name for name in space.operations if any(c["operation"] == name for c in candidates)]
    names = short_names(space.nodes)
    # Edges as a whole compete where every edge has a single candidate.
    whole_edges = len({(c["cell"], c["edge"]) for c in candidates}) == len(candidates)
    largest = max((c["ntk_rank"] + c["regions_rank"] for c in candidates), default=0)
    return {
        "number": entry["round"] + 1,
        "operations": operations,
        "what": "edges" if whole_edges else "operations",
        "lines": [
            {
                "edge": (f"{space.cell_names[cell].split()[0]} " if space.cells > 1 else "")
                + f"{names[source]} → {names[target]}",
                "cells": [cells.get((cell, edge, name)) for name in operations],
            }
            for cell, edge, source, target in edges
        ],
        "largest": largest or 1,
        "pruned": sum(bool(c["pruned"]) for c in candidates),
        "supernet": {key: _mean(values) for key, values in (entry.get("supernet") or {}).items()},
    }


def _evolution_view(records: Sequence[Evaluation], found: str) -> dict[str, Any]:
    """The archive and the final of an evolution, ranked as the search ranks them, from its records."""
    names, scores = _scores_of(records, "search")
    finalists, final_scores = _scores_of(records, "final")
    shares, combined = _ranked(scores)
    _, final_combined = _ranked(final_scores)
    order = np.argsort(-final_combined, kind="stable")[:FINALISTS_SHOWN]
    return {
        "evaluated": len(names),
        "finalists": len(finalists),
        "proxies": list(final_scores),
        "searched_by": list(scores),
        "figure": plots.evolution_svg(
            combined, {name: share[names.index(found)] for name, share in shares.items()}
        ),
        "best": [
            {
                "architecture": finalists[index],
                "combined": float(final_combined[index]),
                "scores": [float(values[index]) for values in final_scores.values()],
            }
            for index in order
        ],
    }


def _scores_of(records: Sequence[Evaluation], stage: str) -> tuple[list[str], dict[str, np.ndarray]]:
    """Architectures of a stage in the order in which they were asked for, and their mean scores by proxy."""
    values: dict[str, dict[tuple[int, int], list[float]]] = defaultdict(lambda: defaultdict(list))
    subjects: dict[tuple[int, int], str] = {}
    for record in (record for record in records if record.stage == stage):
        values[record.proxy][record.round, record.candidate].append(record.value)
        subjects[record.round, record.candidate] = record.subject
    places = sorted(subjects)
    means = {
        proxy: np.array([np.mean(by_place[place]) for place in places]) for proxy, by_place in values.items()
    }
    return [subjects[place] for place in places], means


def _ranked(scores: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Ranks by proxy as shares, and the mean of their logarithms."""
    shares = {
        name: combination.ranks(combination.oriented(values, None, PROXIES[name].sign))
        for name, values in scores.items()
    }
    return shares, np.mean([np.log(share) for share in shares.values()], axis=0)


def _mean(values: Sequence[float | None]) -> float | None:
    finite = [value for value in values if value is not None]
    return sum(finite) / len(finite) if finite else None


def _settings_view(
    settings: Mapping[str, Any], only: Sequence[str] | None
) -> list[tuple[str, list[tuple[str, Any]]]]:
    """Sections of (key, value), first the keys that stand in none; of the sections, those in `only` where given."""
    plain = [(key, value) for key, value in settings.items() if not isinstance(value, Mapping)]
    return [("search", plain)] + [
        (key, list(value.items()))
        for key, value in settings.items()
        if isinstance(value, Mapping) and (only is None or key in only)
    ]


def _time_view(records: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """Evaluations, failures and seconds of each stage and proxy."""
    groups: dict[tuple[str, str], list[Evaluation]] = defaultdict(list)
    for record in records:
        groups[record.stage, record.proxy].append(record)
    return [
        {
            "stage": stage,
            "proxy": proxy,
            "evaluations": len(entries),
            "failed": sum(entry.status != "ok" for entry in entries),
            "seconds": sum(entry.seconds for entry in entries),
        }
        for (stage, proxy), entries in groups.items()
    ]
