"""Genotypes of the DARTS form as tables publish them: any two edges into each node.

Both edges of a node may come from one earlier node, and either may carry `none`, which `jnas.spaces.darts` leaves out.
All else is as there: a normal and a reduction cell of four nodes, side by side the output.

An architecture is int32[32]: for each cell, each node 2 to 5 and each of its two edges the operation, one of eight, and
the source, one of the earlier nodes, which matters unless the operation is `none`. Gates are of two edges between every
two nodes, float32[2, 28, 8], the first edges of all nodes before the second ones. There are 8^16 (2 3 4 5)^4 = 5.8e22
codes.

Canonical form. The smallest code among those that exchange the two edges of a node and renumber nodes so that edges
lead upwards, which permutes sums and the channels of the concatenation alone.

Source: Liu, Simonyan and Yang, "DARTS: Differentiable Architecture Search", ICLR 2019,
https://arxiv.org/abs/1806.09055.
"""

from dataclasses import replace
from itertools import permutations

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jnas.errors import InputError, unknown_name
from jnas.spaces import base
from jnas.spaces.darts import CELLS, EDGES, NODES, OPERATIONS, SUMS
from jnas.spaces.genotype import INPUTS, Genotype, parse, render

# Of each node twice: operation, source.
CELL_DECISIONS = tuple(choices for node in SUMS for choices in (len(OPERATIONS), node) * 2)
DECISIONS = CELL_DECISIONS * CELLS
# A source matters where the operation before it is one.
CONDITIONS = tuple(
    ((place - 1, tuple(range(1, len(OPERATIONS)))),) if place % 2 else () for place in range(len(DECISIONS))
)


def _slots(architectures: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Operations and sources of both edges of each node: int32[..., 32] to int32[..., 2, 4, 2] each."""
    rows = jnp.asarray(architectures, jnp.int32)
    parts = rows.reshape(*rows.shape[:-1], CELLS, NODES, 2, 2)
    return parts[..., 0], parts[..., 1]


def gates(architectures: ArrayLike) -> jax.Array:
    """One-hot weights of the operations: int32[..., 32] -> float32[..., 2, 28, 8]; `none` where there is no edge."""
    operations, sources = _slots(architectures)
    first_edge = jnp.array([EDGES.index((0, node)) for node in SUMS])[:, None]
    used = jax.nn.one_hot(first_edge + sources, len(EDGES), dtype=jnp.float32)
    choice = jax.nn.one_hot(operations, len(OPERATIONS), dtype=jnp.float32).at[..., 0].set(0.0)
    chosen = jnp.einsum("...nse,...nsk->...sek", used, choice)
    chosen = chosen.reshape(*chosen.shape[:-3], 2 * len(EDGES), len(OPERATIONS))
    return chosen.at[..., 0].set(1.0 - chosen[..., 1:].sum(-1))


def from_gates(gates: ArrayLike) -> np.ndarray:
    """The architecture of one-hot gates [2, 28, 8], one operation at most of each edge of a node: int32[32].

    Raises `InputError` where there are more.
    """
    decisions: list[int] = []
    for cell in np.argmax(np.asarray(gates), axis=-1).reshape(CELLS, 2, len(EDGES)):
        for node in SUMS:
            for slot in cell:
                carried = [
                    (int(k), source)
                    for (source, target), k in zip(EDGES, slot, strict=True)
                    if k and target == node
                ]
                if len(carried) > 1:
                    raise InputError(
                        f"an edge of node {node} has {len(carried)} operations: give one at most"
                    )
                decisions += carried[0] if carried else (0, 0)
    return np.array(decisions, np.int32)


def genotype(architecture: ArrayLike) -> Genotype:
    """The two cells of one architecture, int32[32]; an edge with `none` comes from node 0."""
    rows = np.asarray(architecture).reshape(CELLS, -1, 2).tolist()
    cells = [tuple((OPERATIONS[k], source if k else 0) for k, source in row) for row in rows]
    return Genotype(cells[0], SUMS, cells[1], SUMS)


def of_genotype(genotype: Genotype) -> np.ndarray:
    """The architecture of a genotype: int32[32].

    Raises `InputError` for another number of nodes, an unknown operation, a node left out of the concatenation.
    """
    decisions: list[int] = []
    for name, edges, concat in (
        ("normal", genotype.normal, genotype.normal_concat),
        ("reduce", genotype.reduce, genotype.reduce_concat),
    ):
        if len(edges) != 2 * NODES:
            raise InputError(
                f"{name} has {len(edges) // 2} nodes: cells of the space genotypes have {NODES}; "
                "jnas train takes other genotypes as well"
            )
        if sorted(concat) != list(SUMS):
            raise InputError(
                f"{name}_concat is {list(concat)}: the space genotypes concatenates nodes 2 to 5"
            )
        for operation, source in edges:
            if operation not in OPERATIONS:
                raise unknown_name("operation of the space genotypes", operation, OPERATIONS)
            decisions += [OPERATIONS.index(operation), 0 if operation == "none" else source]
    return np.array(decisions, np.int32)


def canonical(architectures: ArrayLike) -> jax.Array:
    """The representative of each architecture's class (see the head of this file): int32[..., 32] -> int32[..., 32]."""
    operations, sources = _slots(architectures)
    places, half = jnp.array(SUMS), 2 * NODES

    def renumbered(new: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The cells with their nodes renumbered, and both halves of their codes; the largest where edges lead down."""
        origins = jnp.where(operations > 0, new[sources], 0)
        upwards = (origins < new[places][:, None]).all((-2, -1))
        codes = operations * len(EDGES) + origins
        turned = (codes[..., 0] > codes[..., 1])[..., None]
        order = jnp.argsort(new[places])
        pairs = jnp.stack([operations, origins], axis=-1)
        pairs = jnp.where(turned[..., None], pairs[..., ::-1, :], pairs)[..., order, :, :]
        cell = pairs.reshape(*pairs.shape[:-3], -1)
        high, low = (
            base.index(CELL_DECISIONS[part], cell[..., part]) for part in (slice(half), slice(half, None))
        )
        return cell, jnp.where(upwards, high, jnp.iinfo(jnp.int32).max), low

    # Every order of the nodes 2 to 5, as the new number of each of the six nodes.
    orders = jnp.array([(*range(INPUTS), *order) for order in permutations(SUMS)])
    cells, high, low = jax.vmap(renumbered)(orders)
    best = jnp.argmin(jnp.where(high == high.min(0), low, jnp.iinfo(jnp.int32).max), axis=0)
    smallest = jnp.take_along_axis(cells, best[None, ..., None], axis=0)[0]
    return smallest.reshape(*smallest.shape[:-2], -1)


_NORMAL = base.Graph(EDGES * 2, OPERATIONS, INPUTS, outputs=SUMS)
SPACE = base.Space(
    name="genotypes",
    graphs=(_NORMAL, replace(_NORMAL, stride=2)),
    cell_names=("normal cell", "reduction cell"),
    node_names=("input 1", "input 2", "node 2", "node 3", "node 4", "node 5"),
    network="two_inputs",
    coding=base.Coding(DECISIONS, gates, from_gates),
    text=base.Text(
        lambda architecture: render(genotype(architecture)), lambda text: of_genotype(parse(text))
    ),
    canonical_form=canonical,
    conditions=CONDITIONS,
    incoming=2,
)
