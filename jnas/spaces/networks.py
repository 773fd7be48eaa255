"""Spaces given by decisions and a network for each architecture, whatever the network is.

    space = of_networks("chain", {"width": (8, 16), "depth": (1, 2, 3)}, network)
    network({"width": 16, "depth": 2})          # a Linen module from images to logits

    conditions={"width_2": {"depth": (2, 3)}}   # width_2 matters where depth is 2 or 3, and is left out elsewhere

Every decision is an edge of a chain that carries one of its values, so that draws, text (`width=16|depth=2`), records
and pages are those of any space. Each architecture is a program of its own: proxies and trainings compile for each.
There is no supernet, and so no gates, no pruning and no inherited weights.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jnas.errors import InputError, unknown_name
from jnas.spaces import conditions as conditional
from jnas.spaces.base import Graph, Space, Text


def of_networks(
    name: str,
    decisions: Mapping[str, Sequence[Any]],
    network: Callable[..., Any],
    conditions: Mapping[str, Mapping[str, Sequence[Any]]] | None = None,
    text: Text | None = None,
    canonical_form: Callable[[ArrayLike], Array] | None = None,
) -> Space:
    """A space of networks.

    decisions: by name the values to choose from; at least two each.
    network: architecture (a value for each name) -> Linen module; also given `classes=` where it has that argument. The
      module is called with images [N, H, W, C], and with `train=True` or `False` if it has that argument, and returns
      logits [N, O].
    conditions: of decisions that matter only at some values of earlier ones, {decision: {earlier one: values}}. The
      architecture that `network` is given, and its text, leave them out where they do not.
    text: of decisions, int[D], where the field has its text.
    canonical_form: int32[..., D] -> int32[..., D], the representative of equal architectures; None: each its own.

    Raises `InputError` for a decision that is none, and for a condition that never holds.
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
    rules = conditional.read(conditions, decisions) if conditions else ()
    names, flat = list(decisions), [(key, value) for key, values in decisions.items() for value in values]
    operations = tuple(f"{key}={value}" for key, value in flat)
    sizes = [len(values) for values in decisions.values()]
    starts = np.cumsum([0, *sizes[:-1]])
    allowed = tuple(
        tuple(range(start, start + size)) for start, size in zip(starts.tolist(), sizes, strict=True)
    )
    graph = Graph(tuple((place, place + 1) for place in range(len(names))), operations, allowed=allowed)

    def meant(choices: Sequence[int]) -> list[int]:
        """The operations of decisions that matter."""
        if not rules:
            return list(choices)
        active = conditional.active_of_one(rules, np.asarray(choices) - starts)
        return [choice for choice, on in zip(choices, active, strict=True) if on]

    def write(choices: np.ndarray) -> str:
        return "|".join(operations[choice] for choice in meant(choices.tolist()))

    def read(text: str) -> np.ndarray:
        given = dict(part.partition("=")[::2] for part in text.split("|"))
        choices = starts.copy()
        for key, value in given.items():
            if key not in decisions:
                raise unknown_name(f"decision of the space {name}", key, decisions)
            place = names.index(key)
            if f"{key}={value}" not in operations:
                raise unknown_name(f"value of the decision {key}", value, list(map(str, decisions[key])))
            choices[place] += operations.index(f"{key}={value}") - starts[place]
        if {operations[choice] for choice in meant(choices.tolist())} != set(text.split("|")):
            raise InputError(
                f"'{text}' is not of the space {name}: give each decision that matters, and no other, such as "
                f"'{write(choices)}'"
            )
        return choices

    of_classes = "classes" in inspect.signature(network).parameters

    def module(choices: Sequence[int], classes: int) -> Any:
        architecture = dict(flat[choice] for choice in meant(choices))
        return network(architecture, classes=classes) if of_classes else network(architecture)

    if text is not None:
        of_decisions = text
        shown: Text | None = Text(
            lambda choices: of_decisions.write(choices - starts),
            lambda given: np.asarray(of_decisions.read(given)) + starts,
        )
    else:
        shown = Text(write, read) if rules else None
    return Space(
        name,
        (graph,),
        ("network",),
        network=module,
        text=shown,
        canonical_form=canonical_form,
        conditions=rules,
    )
