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
from functools import cache
from itertools import combinations, permutations

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
# Sources of a node, the higher one counting slowly: the pairs of a node begin with those of the node before.
PAIRS = tuple((a, b) for b in range(INPUTS + NODES - 1) for a in range(b))
# An edge that an architecture has carries one of these; the decision is the place in this list.
CHOICES = OPERATIONS[1:]
PAIRS_OF_NODE = tuple(len(list(combinations(range(node), 2))) for node in range(INPUTS, INPUTS + NODES))
# Node 2 has one pair of sources, which is no decision.
CELL_DECISIONS = tuple(
    choices
    for pairs in PAIRS_OF_NODE
    for choices in ((len(CHOICES),) * 2 if pairs == 1 else (pairs, len(CHOICES), len(CHOICES)))
)
DECISIONS = CELL_DECISIONS * CELLS
# Where the first operation of each node stands among the decisions of a cell; its pair stands before.
FIRST_OPERATION = tuple(0 if node == 0 else 3 * node for node in range(NODES))


def of_nodes(sources: ArrayLike, operations: ArrayLike) -> jax.Array:
    """Decisions of one cell: sources int32[..., 4, 2] ascending and operations int32[..., 4, 2] to int32[..., 11].

    Operations are places in `CHOICES`.
    """
    sources, operations = jnp.asarray(sources), jnp.asarray(operations)
    a, b = sources[..., 0], sources[..., 1]
    pairs = b * (b - 1) // 2 + a
    columns = jnp.stack([pairs, operations[..., 0], operations[..., 1]], axis=-1)
    return columns.reshape(*columns.shape[:-2], -1)[..., 1:].astype(jnp.int32)


def to_nodes(cell: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """The inverse of `of_nodes`: int32[..., 11] to sources and operations int32[..., 4, 2]."""
    cell = jnp.asarray(cell, jnp.int32)
    columns = jnp.concatenate([jnp.zeros_like(cell[..., :1]), cell], axis=-1)
    columns = columns.reshape(*cell.shape[:-1], NODES, 3)
    return jnp.asarray(PAIRS, jnp.int32)[columns[..., 0]], columns[..., 1:]


def _cells(architectures: ArrayLike) -> jax.Array:
    architectures = jnp.asarray(architectures, jnp.int32)
    return architectures.reshape(*architectures.shape[:-1], CELLS, len(CELL_DECISIONS))


def gates(architectures: ArrayLike) -> jax.Array:
    """One-hot weights of the operations on each edge: int32[..., 22] -> float32[..., 2, 14, 8].

    An edge that is not there has `none`.
    """
    sources, operations = to_nodes(_cells(architectures))
    first_edge = jnp.array([EDGES.index((0, node)) for node in range(INPUTS, INPUTS + NODES)])
    edges = first_edge[:, None] + sources
    used = jax.nn.one_hot(edges, len(EDGES), dtype=jnp.float32)
    choice = jax.nn.one_hot(operations + 1, len(OPERATIONS), dtype=jnp.float32)
    chosen = jnp.einsum("...nse,...nsk->...ek", used, choice)
    return chosen.at[..., 0].set(1.0 - chosen[..., 1:].sum(-1))


def from_gates(gates: ArrayLike) -> np.ndarray:
    """The architecture of one-hot gates [2, 14, 8] with two operations other than `none` into each node: int32[22].

    Raises `InputError` where a node has more or fewer.
    """
    chosen = np.argmax(np.asarray(gates), axis=-1)
    cells = []
    for cell in chosen:
        sources, operations = np.zeros((NODES, 2), int), np.zeros((NODES, 2), int)
        for node in range(NODES):
            own = [
                (source, int(cell[edge]))
                for edge, (source, target) in enumerate(EDGES)
                if target == node + INPUTS and cell[edge]
            ]
            if len(own) != 2:
                raise InputError(f"node {node + INPUTS} has {len(own)} operations: a DARTS cell has two")
            sources[node], operations[node] = zip(*own, strict=True)
        cells.append(np.asarray(of_nodes(sources, operations - 1)))
    return np.concatenate(cells).astype(np.int32)


def genotype(architecture: ArrayLike) -> Genotype:
    """The two cells of one architecture, int32[22]; of two edges into a node, the one from the lower node first.

    Raises `InputError` unless the array is 22 integers within the number of choices.
    """
    decisions = np.asarray(architecture)
    if decisions.shape != (len(DECISIONS),) or not np.issubdtype(decisions.dtype, np.integer):
        raise InputError(
            f"architecture {decisions.tolist()} is not of the DARTS space: give {len(DECISIONS)} integers"
        )
    if ((decisions < 0) | (decisions >= np.array(DECISIONS))).any():
        raise InputError(
            f"architecture {decisions.tolist()} has a decision out of range: "
            f"their numbers of choices are {list(DECISIONS)}"
        )
    sources, operations = (np.asarray(part).reshape(CELLS, -1) for part in to_nodes(_cells(decisions)))
    cells = [
        tuple((CHOICES[operation], int(source)) for operation, source in zip(own, origin, strict=True))
        for own, origin in zip(operations, sources, strict=True)
    ]
    concat = tuple(range(INPUTS, INPUTS + NODES))
    return Genotype(cells[0], concat, cells[1], concat)


def of_genotype(genotype: Genotype) -> np.ndarray:
    """The architecture of a genotype: int32[22].

    Raises `InputError` where the genotype is none of this space: another number of nodes, an operation that it
    does not have, both edges of a node from one source, a node that is left out of the concatenation.
    """
    cells = []
    for name, edges, concat in (
        ("normal", genotype.normal, genotype.normal_concat),
        ("reduce", genotype.reduce, genotype.reduce_concat),
    ):
        if len(edges) != 2 * NODES:
            raise InputError(
                f"{name} has {len(edges) // 2} nodes: cells of the DARTS space have {NODES}; "
                "jnas train takes other genotypes as well"
            )
        if sorted(concat) != list(range(INPUTS, INPUTS + NODES)):
            raise InputError(f"{name}_concat is {list(concat)}: the DARTS space concatenates nodes 2 to 5")
        sources, operations = np.zeros((NODES, 2), int), np.zeros((NODES, 2), int)
        for node in range(NODES):
            own = sorted((source, operation) for operation, source in edges[2 * node : 2 * node + 2])
            if own[0][0] == own[1][0]:
                raise InputError(
                    f"node {node + INPUTS} of {name} has both edges from node {own[0][0]}: "
                    "the DARTS space takes two different sources"
                )
            for _, operation in own:
                if operation not in CHOICES:
                    raise unknown_name("operation of the DARTS space", operation, CHOICES)
            sources[node] = [source for source, _ in own]
            operations[node] = [CHOICES.index(operation) for _, operation in own]
        cells.append(np.asarray(of_nodes(sources, operations)))
    return np.concatenate(cells).astype(np.int32)


def to_string(architecture: ArrayLike) -> str:
    """The genotype of one architecture, int32[22], as text. Raises `InputError` as `genotype` does."""
    return render(genotype(architecture))


def from_string(text: str) -> np.ndarray:
    """The architecture of a genotype's text: int32[22]. Raises `InputError` as `parse` and `of_genotype` do.

    Edges of a node may stand in either order.
    """
    return of_genotype(parse(text))


@cache
def _renumberings() -> np.ndarray:
    """Every order of the nodes 2 to 5, as the new number of each of the six nodes: int32[24, 6]."""
    return np.array([(0, 1, *(INPUTS + place for place in order)) for order in permutations(range(NODES))])


def canonical(architectures: ArrayLike) -> jax.Array:
    """The representative of each architecture's class (see the head of this file): int32[..., 22] -> int32[..., 22]."""
    sources, operations = to_nodes(_cells(architectures))
    places = jnp.arange(INPUTS, INPUTS + NODES)

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

    cells, ranks = jax.vmap(renumbered)(jnp.asarray(_renumberings()))
    best = jnp.argmin(ranks, axis=0)
    smallest = jnp.take_along_axis(cells, best[None, ..., None], axis=0)[0]
    return smallest.reshape(*smallest.shape[:-2], -1)


_NORMAL = base.Graph(EDGES, OPERATIONS, INPUTS, outputs=tuple(range(INPUTS, INPUTS + NODES)))
SPACE = base.Space(
    name="darts",
    graphs=(_NORMAL, replace(_NORMAL, stride=2)),
    cell_names=("normal cell", "reduction cell"),
    node_names=("input 1", "input 2", "node 2", "node 3", "node 4", "node 5"),
    network="two_inputs",
    coding=base.Coding(DECISIONS, gates, from_gates),
    text=base.Text(to_string, from_string),
    canonical_form=canonical,
    incoming=2,
)
