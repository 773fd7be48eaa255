"""The part of a search's page that a pruning of a supernet has: its rounds."""

from collections.abc import Mapping
from typing import Any

from jnas.proxies import sign
from jnas.report import page
from jnas.report.drawing import short_names
from jnas.spaces.base import Space

NAMES = {"ntk": "condition number", "regions": "regions"}


def view(result: Mapping[str, Any], space: Space) -> list[dict[str, Any]]:
    """Variables of the template for each round that ranked candidates."""
    return [
        _round(number, entry, space) for number, entry in enumerate(result["rounds"]) if "candidates" in entry
    ]


def _round(number: int, entry: Mapping[str, Any], space: Space) -> dict[str, Any]:
    """One round as a table: edges down, operations across, None where an operation was gone before."""
    candidates = entry["candidates"]
    objectives = [key.removesuffix("_rank") for key in candidates[0] if key.endswith("_rank")]
    names = [NAMES.get(name, name) for name in objectives]
    cells = {
        (c["cell"], c["edge"], c["operation"]): {
            "operation": c["operation"],
            "pruned": c["pruned"],
            "ranks": [c[f"{name}_rank"] for name in objectives],
            "total": sum(c[f"{name}_rank"] for name in objectives),
            "title": ", ".join(
                f"{text} changes by {c[f'{name}_change']} (rank {c[f'{name}_rank']})"
                for text, name in zip(names, objectives, strict=True)
            ),
        }
        for c in candidates
    }
    edges = sorted({(c["cell"], c["edge"], c["source"], c["target"]) for c in candidates})
    operations = [name for name in space.operations if any(c["operation"] == name for c in candidates)]
    nodes = short_names(space.nodes)
    # Edges as a whole compete where every edge has a single candidate.
    whole_edges = len(edges) == len(candidates)
    # Mean score of the supernet by objective, as measured; stored by `objective/repeat`, higher is better.
    supernet: dict[str, list[float | None]] = {}
    for key, value in (entry.get("supernet") or {}).items():
        name = key.partition("/")[0]
        supernet.setdefault(name, []).append(None if value is None else sign(name) * value)
    return {
        "number": number + 1,
        "operations": operations,
        "unit": "edges" if whole_edges else "operations",
        "candidates": len(candidates),
        "lines": [
            {
                "edge": (f"{space.cell_names[cell].split()[0]} " if space.cells > 1 else "")
                + f"{nodes[source]} → {nodes[target]}",
                "cells": [cells.get((cell, edge, name)) for name in operations],
            }
            for cell, edge, source, target in edges
        ],
        "largest": max((cell["total"] for cell in cells.values()), default=0) or 1,
        "pruned": sum(bool(c["pruned"]) for c in candidates),
        "objectives": names,
        "supernet": [(NAMES.get(name, name), page.mean(values)) for name, values in supernet.items()],
    }
