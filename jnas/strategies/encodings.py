"""Encodings of architectures as vectors of bits: one-hot decisions (`Space.one_hot`), and paths.

A path leads from an input of a cell to its output; its bit is that of the names of its operations in order. Paths of
one length from one input share a block of K'^length bits, K' the operations other than `none`: a bit is set where at
least one such path is there. A path with a `none` on it is not there.

White, Neiswanger and Savani, "BANANAS: Bayesian Optimization with Neural Architectures for Neural Architecture Search",
AAAI 2021, https://arxiv.org/abs/1910.11858. Their encoding is truncated to the likeliest paths, which are the shortest:
here to those with at most `longest` operations.

Departure: their code for NAS-Bench-201 takes `none` for an operation like others, 5 + 25 + 125 bits; here 4 + 16 + 64.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import Array

from jnas.errors import InputError
from jnas.spaces import Space
from jnas.spaces.graph_features import has_paths


def paths(space: Space, longest: int) -> list[tuple[int, tuple[int, ...]]]:
    """(input, edges in order) of the paths through a cell with at most `longest` edges, by length and input."""
    graph = space.graphs[0]
    outputs = graph.outputs or (graph.nodes - 1,)
    through: list[tuple[int, tuple[int, ...]]] = []
    walks: list[tuple[int, int, tuple[int, ...]]] = [(node, node, ()) for node in range(graph.inputs)]
    for _ in range(longest):
        walks = [
            (start, space.edges[edge][1], (*walk, edge))
            for start, end, walk in walks
            for edge in graph.leaving(end)
        ]
        through += sorted((start, walk) for start, end, walk in walks if end in outputs)
    return through


def path_encoding(space: Space, longest: int) -> Callable[[Array], Array]:
    """The encoding int32[B, D] -> float32[B, F]. Raises `InputError` for a space without cells."""
    if not has_paths(space):
        raise InputError(f"paths are those of cells, and {space.name} has none: choose another encoding")
    named = [k for k, name in enumerate(space.operations) if name != "none"]
    # The number of each operation among those that have a name in a path; -1 for `none`.
    numbers = np.full(len(space.operations), -1, np.int32)
    numbers[named] = np.arange(len(named))
    blocks: dict[tuple[int, int, int], int] = {}
    width = 0
    for kind in range(space.cells):
        for start, walk in paths(space, longest):
            if (kind, start, len(walk)) not in blocks:
                blocks[kind, start, len(walk)] = width
                width += len(named) ** len(walk)

    def encode(architectures: Array) -> Array:
        operations = jnp.asarray(numbers)[space.choices(architectures)]
        rows = jnp.arange(len(operations))
        bits = jnp.zeros((len(operations), width), jnp.float32)
        for kind in range(space.cells):
            for start, walk in paths(space, longest):
                own = operations[:, kind, list(walk)]
                code = (own * len(named) ** np.arange(len(walk))[::-1]).sum(-1)
                place = jnp.where((own >= 0).all(-1), blocks[kind, start, len(walk)] + code, width)
                bits = bits.at[rows, place].set(1.0, mode="drop")
        return bits

    return encode
