"""Decisions that matter only where others took certain values: the kernel of a layer that is a convolution.

    condition of decision d: (p, values), p < d, ...     d is active where every p is active and took one of its values

Inactive decisions say nothing: in the canonical form they are 0. Parents stand before children, so that one pass from
left to right finds the active ones.

Letters: D decisions.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jnas.errors import InputError, unknown_name

# Of each decision: the numbers of decisions before it, each with the choices at which it is active.
Conditions: TypeAlias = tuple[tuple[tuple[int, tuple[int, ...]], ...], ...]


def active(conditions: Conditions, architectures: ArrayLike) -> Array:
    """Decisions that matter: int32[..., D] -> bool[..., D]."""
    architectures = jnp.asarray(architectures)
    columns: list[Array] = []
    for parents in conditions:
        column = jnp.ones(architectures.shape[:-1], bool)
        for parent, choices in parents:
            column &= columns[parent] & jnp.isin(architectures[..., parent], jnp.array(choices))
        columns.append(column)
    return jnp.stack(columns, axis=-1)


def active_of_one(conditions: Conditions, architecture: np.ndarray) -> list[bool]:
    """`active` of one architecture, int[D], without JAX: records hold thousands of texts."""
    known: list[bool] = []
    for parents in conditions:
        known.append(all(known[parent] and architecture[parent] in choices for parent, choices in parents))
    return known


def read(
    conditions: Mapping[str, Mapping[str, Sequence[Any]]], decisions: Mapping[str, Sequence[Any]]
) -> Conditions:
    """Conditions by name, {decision: {earlier decision: values}}, as numbers.

    Raises `InputError` for a name or value that is not known, a decision that is not earlier (which a cycle needs), and
    a condition that never holds.
    """
    names = list(decisions)
    for name in conditions:
        if name not in decisions:
            raise unknown_name("decision", name, decisions)
    rows = []
    for number, name in enumerate(names):
        row = []
        for parent, values in conditions.get(name, {}).items():
            if parent not in decisions:
                raise unknown_name("decision", parent, decisions)
            if names.index(parent) >= number:
                raise InputError(
                    f"decision '{name}' depends on '{parent}', which does not stand before it: name '{parent}' first, "
                    "and let no decision depend on itself"
                )
            outside = [value for value in values if value not in decisions[parent]]
            if outside or not values:
                raise InputError(
                    f"the condition of '{name}' never holds: '{parent}' has the values "
                    f"{', '.join(map(str, decisions[parent]))}, not {', '.join(map(str, outside)) or 'none at all'}"
                )
            row.append((names.index(parent), tuple(list(decisions[parent]).index(value) for value in values)))
        rows.append(tuple(row))
    for number in range(len(names)):
        if not possible(tuple(rows), number):
            raise InputError(
                f"the condition of '{names[number]}' never holds, as the decisions that it names exclude each other: "
                "leave it out or mend it"
            )
    return tuple(rows)


def possible(conditions: Conditions, decision: int) -> bool:
    """True where some architecture has the decision active: all that is asked of each earlier decision has a choice."""
    asked: dict[int, set[int]] = {}
    open_ = [decision]
    while open_:
        for parent, choices in conditions[open_.pop()]:
            asked[parent] = asked.get(parent, set(choices)) & set(choices)
            open_.append(parent)
    return all(asked.values())
