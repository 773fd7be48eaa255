"""Spaces given by decisions and a network for each architecture, whatever the network is.

    space = of_networks("chain", {"width": (8, 16), "depth": (1, 2, 3)}, network)
    network({"width": 16, "depth": 2})          # a Linen module from images to logits

Every decision is an edge of a chain that carries one of its values, so that draws, text (`width=16|depth=2`), records
and pages are those of any space. Each architecture is a program of its own: proxies and trainings compile for each.
There is no supernet, and so no gates, no pruning and no inherited weights.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jnas.errors import InputError
from jnas.spaces.base import Graph, Space


def of_networks(
    name: str, decisions: Mapping[str, Sequence[Any]], network: Callable[[Mapping[str, Any]], Any]
) -> Space:
    """A space of networks.

    decisions: by name the values to choose from; at least two each.
    network: architecture (a value for each name) -> Linen module. The module is called with images [N, H, W, C],
      and with `train=True` or `False` if it has that argument, and returns logits [N, O].

    Raises `InputError` for a decision that is none.
    """
    for key, values in decisions.items():
        texts = [str(value) for value in values]
        if (
            len(texts) < 2
            or len(set(texts)) < len(texts)
            or any(set(text) & set("|+=") for text in (key, *texts))
        ):
            raise InputError(
                f"decision '{key}' has the values {', '.join(texts)}: give two or more that differ, without | + ="
            )
    operations = tuple(f"{key}={value}" for key, values in decisions.items() for value in values)
    starts, rows = 0, []
    for values in decisions.values():
        rows.append(tuple(range(starts, starts + len(values))))
        starts += len(values)
    graph = Graph(tuple((place, place + 1) for place in range(len(rows))), operations, allowed=tuple(rows))
    flat = [value for values in decisions.values() for value in values]

    def module(choices: Sequence[int]) -> Any:
        return network({key: flat[choice] for key, choice in zip(decisions, choices, strict=True)})

    return Space(name, (graph,), ("network",), network=module)
