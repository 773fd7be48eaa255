"""DARTS: a normal and a reduction cell of four nodes, two operations out of seven into each.

Source: Liu, Simonyan and Yang, "DARTS: Differentiable Architecture Search", ICLR 2019,
https://arxiv.org/abs/1806.09055.

Nodes 0 and 1 of a cell are the outputs of the two previous cells, nodes 2 to 5 are sums of two operations from
two different earlier nodes, the output is the concatenation of nodes 2 to 5. The supernet has all 14 edges, in
the order 2<-0, 2<-1, 3<-0, 3<-1, 3<-2, ..., with eight operations each; `none` stands for an edge that is not
there.

An architecture is int32[22], eleven decisions for each cell: for node 2 its two operations; for each of nodes
3, 4 and 5 the pair of its sources (pairs in the order (0, 1), (0, 2), (1, 2), (0, 3), ...), then the operation
from the lower and from the higher source. That makes 7^8 * 3 * 6 * 10 cells, and 1.08e18 architectures.

Canonical form. Nodes may be renumbered as long as edges lead upwards: it only permutes the channels of the
concatenation, and with them the weights that read it. The representative is the lexicographically smallest of
the at most 24 renumberings of each cell. Nothing else is identified: two skip connections from one source, say,
still have other gradients than none.
"""

from dataclasses import replace
from itertools import permutations
from math import comb

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jnas.errors import InputError, unknown_name
from jnas.spaces import base
from jnas.spaces.genotype import INPUTS, Genotype, parse, render

OPERATIONS = (
    "none",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
    "avg_pool_3x3",
    "max_pool_3x3",
)
NODES = 4
CELLS = 2
EDGES = tuple((source, target) for target in range(INPUTS, INPUTS + NODES) for source in range(target))
# Nodes that are sums, and side by side the output.
SUMS = tuple(range(INPUTS, INPUTS + NODES))
# Sources of a node, the higher one counting slowly: the pairs of a node begin with those of the node before.
PAIRS = tuple((a, b) for b in range(INPUTS + NODES - 1) for a in range(b))
# An edge that an architecture has carries one of these; the decision is the place in this list.
CHOICES = OPERATIONS[1:]
# For each node its pair of sources, and two operations. Node 2 has one pair, which is no decision.
CELL_DECISIONS = tuple(
    choices for node in SUMS for choices in (comb(node, 2), len(CHOICES), len(CHOICES)) if choices > 1
)
DECISIONS = CELL_DECISIONS * CELLS


def of_nodes(sources: jax.Array, operations: jax.Array) -> jax.Array:
    """Decisions of one cell: sources int32[..., 4, 2] ascending and operations int32[..., 4, 2] to int32[..., 11].

    Operations are places in `CHOICES`.
    """
    a, b = sources[..., 0], sources[..., 1]
    pairs = b * (b - 1) // 2 + a
    columns = jnp.stack([pairs, operations[..., 0], operations[..., 1]], axis=-1)
    return columns.reshape(*columns.shape[:-2], -1)[..., 1:].astype(jnp.int32)


def to_nodes(architectures: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Sources and operations of each node, as in `of_nodes`: int32[..., 22] to int32[..., 2, 4, 2] each."""
    architectures = jnp.asarray(architectures, jnp.int32)
    cells = architectures.reshape(*architectures.shape[:-1], CELLS, len(CELL_DECISIONS))
    columns = jnp.concatenate([jnp.zeros_like(cells[..., :1]), cells], axis=-1)
    columns = columns.reshape(*cells.shape[:-1], NODES, 3)
    return jnp.asarray(PAIRS, jnp.int32)[columns[..., 0]], columns[..., 1:]


def gates(architectures: ArrayLike) -> jax.Array:
    """One-hot weights of the operations on each edge: int32[..., 22] -> float32[..., 2, 14, 8].

    An edge that is not there has `none`.
    """
    sources, operations = to_nodes(architectures)
    first_edge = jnp.array([EDGES.index((0, node)) for node in SUMS])
    edges = first_edge[:, None] + sources
    used = jax.nn.one_hot(edges, len(EDGES), dtype=jnp.float32)
    choice = jax.nn.one_hot(operations + 1, len(OPERATIONS), dtype=jnp.float32)
    chosen = jnp.einsum("...nse,...nsk->...ek", used, choice)
    return chosen.at[..., 0].set(1.0 - chosen[..., 1:].sum(-1))


def from_gates(gates: ArrayLike) -> np.ndarray:
    """The architecture of one-hot gates [2, 14, 8] with two operations other than `none` into each node: int32[22].

    Raises `InputError` where a node has more or fewer.
    """
    cells = []
    for cell in np.argmax(np.asarray(gates), axis=-1):
        carried = [(edge, OPERATIONS[choice]) for edge, choice in zip(EDGES, cell, strict=True) if choice]
        for node in SUMS:
            count = sum(target == node for (_, target), _ in carried)
            if count != 2:
                raise InputError(f"node {node} has {count} operations: a DARTS cell has two")
        cells.append(tuple((operation, source) for (source, _), operation in carried))
    return of_genotype(Genotype(cells[0], SUMS, cells[1], SUMS))


def genotype(architecture: ArrayLike) -> Genotype:
    """The two cells of one architecture, int32[22]; of two edges into a node, the one from the lower node first."""
    sources, operations = (np.asarray(part).reshape(CELLS, -1) for part in to_nodes(architecture))
    cells = [
        tuple((CHOICES[operation], int(source)) for operation, source in zip(own, origin, strict=True))
        for own, origin in zip(operations, sources, strict=True)
    ]
    return Genotype(cells[0], SUMS, cells[1], SUMS)


def of_genotype(genotype: Genotype) -> np.ndarray:
    """The architecture of a genotype, whose edges into a node may stand in either order: int32[22].

    Raises `InputError` where the genotype is none of this space: another number of nodes, an operation that it
    does not have, both edges of a node from one source, a node that is left out of the concatenation.
    """
    decisions = []
    for name, edges, concat in (
        ("normal", genotype.normal, genotype.normal_concat),
        ("reduce", genotype.reduce, genotype.reduce_concat),
    ):
        if len(edges) != 2 * NODES:
            raise InputError(
                f"{name} has {len(edges) // 2} nodes: cells of the DARTS space have {NODES}; "
                "jnas train takes other genotypes as well"
            )
        if sorted(concat) != list(SUMS):
            raise InputError(f"{name}_concat is {list(concat)}: the DARTS space concatenates nodes 2 to 5")
        for node, first, second in zip(SUMS, edges[::2], edges[1::2], strict=True):
            low, high = sorted((first, second), key=lambda edge: edge[1])
            if low[1] == high[1]:
                raise InputError(
                    f"node {node} of {name} has both edges from node {low[1]}: "
                    "the DARTS space takes two different sources; the space genotypes takes this one too"
                )
            for operation in (low[0], high[0]):
                if operation == "none":
                    raise InputError(
                        f"node {node} of {name} has an edge with none: the DARTS space takes two operations a node; "
                        "the space genotypes takes this one too"
                    )
                if operation not in CHOICES:
                    raise unknown_name("operation of the DARTS space", operation, CHOICES)
            pair = [PAIRS.index((low[1], high[1]))] if node > INPUTS else []
            decisions += [*pair, CHOICES.index(low[0]), CHOICES.index(high[0])]
    return np.array(decisions, np.int32)


def canonical(architectures: ArrayLike) -> jax.Array:
    """The representative of each architecture's class (see the head of this file): int32[..., 22] -> int32[..., 22]."""
    sources, operations = to_nodes(architectures)
    places = jnp.array(SUMS)

    def renumbered(new: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The cells with their nodes renumbered, and their places among all cells; none where edges lead down."""
        origins = new[sources]
        upwards = (origins < new[places][:, None]).all((-2, -1))
        turned = origins[..., 0] > origins[..., 1]
        ascending = jnp.where(turned[..., None], origins[..., ::-1], origins)
        own = jnp.where(turned[..., None], operations[..., ::-1], operations)
        order = jnp.argsort(new[places])
        cell = of_nodes(ascending[..., order, :], own[..., order, :])
        rank = base.index(CELL_DECISIONS, cell)
        return cell, jnp.where(upwards, rank, jnp.iinfo(jnp.int32).max)

    # Every order of the nodes 2 to 5, as the new number of each of the six nodes.
    orders = jnp.array([(0, 1, *order) for order in permutations(SUMS)])
    cells, ranks = jax.vmap(renumbered)(orders)
    best = jnp.argmin(ranks, axis=0)
    smallest = jnp.take_along_axis(cells, best[None, ..., None], axis=0)[0]
    return smallest.reshape(*smallest.shape[:-2], -1)


_NORMAL = base.Graph(EDGES, OPERATIONS, INPUTS, outputs=SUMS)
SPACE = base.Space(
    name="darts",
    graphs=(_NORMAL, replace(_NORMAL, stride=2)),
    cell_names=("normal cell", "reduction cell"),
    node_names=("input 1", "input 2", "node 2", "node 3", "node 4", "node 5"),
    network="two_inputs",
    coding=base.Coding(DECISIONS, gates, from_gates),
    text=base.Text(
        lambda architecture: render(genotype(architecture)), lambda text: of_genotype(parse(text))
    ),
    canonical_form=canonical,
    incoming=2,
)
to_string, from_string = SPACE.to_string, SPACE.from_string
