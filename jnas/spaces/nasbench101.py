"""NAS-Bench-101: cells of at most seven vertices and nine edges, 423,624 of them distinct.

    0110001/0010000/...:conv3x3-bn-relu,conv1x1-bn-relu,maxpool3x3,..     rows of the matrix : operations

Vertex 0 is the input of the cell, the last one its output; each vertex between carries an operation on the sum of the
vertices that lead to it. An architecture is int32[26]: the 21 edges of a 7x7 matrix above its diagonal, row by row, and
the operations of vertices 1 to 5. Smaller matrices are read as well. Vertices that are on no path from the input to the
output, and their edges, do nothing. A code without such a path, or with more than nine edges on such paths, is no
architecture: it is refused, never drawn, and mutations and draws are repeated until there is none.

Canonical form: the smallest code among those of the cells that renumber inner vertices so that edges lead upwards, at
most 120, without the vertices that do nothing. Two cells have one form if and only if they are isomorphic. The paper's
hash of neighbours' labels tells the same cells apart: 1, 6, 84, 2,441, 62,010 and 359,082 of 2 to 7 vertices.

Network: a 3x3 convolution to 128 channels, three stages of three cells, pooling that halves the image and twice the
channels between stages, a linear classifier. The input enters a vertex by a 1x1 convolution. The output is the vertices
that lead to it side by side, which share its channels evenly, the first ones one more; a vertex between has the most
channels of those that it leads to, which read the first of them. An edge from input to output adds a 1x1 convolution.

Source: Ying, Klein, Christiansen, Real, Murphy and Hutter, "NAS-Bench-101: Towards Reproducible Neural Architecture
Search", ICML 2019, https://arxiv.org/abs/1902.09635. Parameters equal those of NAS-Bench-Suite-Zero's table, whose
FLOPs also count normalisation, ReLU and pooling. Departure: one decision changes in a mutation, not several.

Letters: B architectures, V vertices.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from itertools import permutations, product
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jnas.errors import InputError, unknown_name
from jnas.spaces.base import Space, Text
from jnas.spaces.layers import Blocks, Classifier, Convolution, MaxPool, convolution_norm, max_pool
from jnas.spaces.networks import of_networks
from jnas.spaces.subset import where

VERTICES, LARGEST = 7, 9
INNER = VERTICES - 2
OPERATIONS = ("conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3")
PAIRS = tuple((source, target) for source in range(VERTICES) for target in range(source + 1, VERTICES))
EDGES = len(PAIRS)
CHANNELS, CELLS, STAGES = 128, 3, 3
EXAMPLE = "0100/0010/0001/0000:conv3x3-bn-relu,maxpool3x3"
# The operations of a code are a number below this, its edges one of 21 bits.
OPERATION_CODES = len(OPERATIONS) ** INNER


def useful(edges: Any) -> tuple[Any, Any]:
    """Edges on paths from input to output, and vertices: bool[..., 21] -> bool[..., 21], bool[..., 7]."""
    # Texts of one architecture go without JAX, whose calls take milliseconds.
    arrays: Any = np if isinstance(edges, np.ndarray) else jnp
    columns = [edges[..., place] for place in range(EDGES)]
    first = arrays.ones(edges.shape[:-1], bool)
    reached, reaching = [first] + [~first] * (VERTICES - 1), [~first] * (VERTICES - 1) + [first]
    for (source, target), edge in zip(PAIRS, columns, strict=True):
        # Rows in their order: a source is complete before its edges are read.
        reached[target] = reached[target] | (reached[source] & edge)
    for (source, target), edge in zip(reversed(PAIRS), reversed(columns), strict=True):
        reaching[source] = reaching[source] | (reaching[target] & edge)
    vertices = [there & back for there, back in zip(reached, reaching, strict=True)]
    used = [edge & vertices[a] & vertices[b] for (a, b), edge in zip(PAIRS, columns, strict=True)]
    return arrays.stack(used, axis=-1), arrays.stack(vertices, axis=-1)


def valid(architectures: ArrayLike) -> Array:
    """True for codes that have a path from input to output, and nine edges at most on such paths."""
    edges, vertices = useful(jnp.asarray(architectures)[..., :EDGES] > 0)
    return vertices[..., 0] & (edges.sum(-1) <= LARGEST)


@cache
def _orders() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Place values of edges and of operations in each of the 120 orders of inner vertices; edges that lead downwards.

    float32[21, 120], float32[5, 120], float32[21, 120]; all sums of place values are integers below 2^24, exact.
    """
    bits = {pair: 2.0 ** (EDGES - 1 - place) for place, pair in enumerate(PAIRS)}
    edges, operations, downwards = [], [], []
    for order in permutations(range(1, VERTICES - 1)):
        new = (0, *order, VERTICES - 1)
        edges.append([bits.get((new[a], new[b]), 0.0) for a, b in PAIRS])
        downwards.append([float(new[a] > new[b]) for a, b in PAIRS])
        operations.append([3.0 ** (INNER - new[vertex]) for vertex in range(1, VERTICES - 1)])
    return (
        np.array(edges, np.float32).T,
        np.array(operations, np.float32).T,
        np.array(downwards, np.float32).T,
    )


def canonical(architectures: ArrayLike) -> Array:
    """The smallest code of each one's class, see the head of this file: int32[..., 26] -> int32[..., 26].

    Codes without a path from input to output become zeros.
    """
    rows = jnp.asarray(architectures, jnp.int32)
    edges, vertices = useful(rows[..., :EDGES] > 0)
    operations = jnp.where(vertices[..., 1:-1], rows[..., EDGES:], 0).astype(jnp.float32)
    edges = edges.astype(jnp.float32)
    of_edges, of_operations, downwards = _orders()
    matrices = (edges @ of_edges).astype(jnp.int32)
    codes = matrices * OPERATION_CODES + (operations @ of_operations).astype(jnp.int32)
    best = jnp.where(edges @ downwards > 0, jnp.iinfo(jnp.int32).max, codes).min(-1)
    bits = (best // OPERATION_CODES)[..., None] >> jnp.arange(EDGES - 1, -1, -1)
    digits = (best % OPERATION_CODES)[..., None] // 3 ** jnp.arange(INNER - 1, -1, -1)
    return jnp.concatenate([bits & 1, digits % 3], axis=-1).astype(jnp.int32)


@cache
def representatives() -> np.ndarray:
    """All canonical codes in lexicographic order: int8[423624, 26].

    A matrix is the smallest of its class; labels of its vertices are the smallest of those that its symmetries join.
    """
    of_edges, of_operations, downwards = _orders()
    bits = (np.arange(2**EDGES)[:, None] >> np.arange(EDGES - 1, -1, -1)) & 1
    bits = bits[bits.sum(1) <= LARGEST].astype(np.float32)
    used, vertices = useful(bits > 0)
    whole = vertices[:, 0] & (used == (bits > 0)).all(1)
    bits, vertices = bits[whole], vertices[whole]
    codes = np.where(bits @ downwards > 0, np.inf, bits @ of_edges)
    own = codes[:, 0]
    smallest = own == codes.min(1)
    rows = []
    labels = np.array(list(product(range(3), repeat=INNER)), np.float32)
    numbers = labels @ of_operations
    for matrix, there, symmetric in zip(
        bits[smallest], vertices[smallest], (codes == own[:, None])[smallest], strict=True
    ):
        # Vertices that do nothing carry operation 0, of which the symmetries move none.
        plain = (labels[:, ~there[1:-1]] == 0).all(1)
        first = plain & (numbers[:, 0] == numbers[:, symmetric].min(1))
        rows.append(np.concatenate([np.tile(matrix, (first.sum(), 1)), labels[first]], axis=1))
    return np.concatenate(rows).astype(np.int8)


class Cell(nn.Module):
    """One cell. sources: of each vertex after the input; operations: of vertices between."""

    sources: tuple[tuple[int, ...], ...]
    operations: tuple[int, ...]
    channels: int

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        def projected(channels: int) -> Array:
            return nn.relu(convolution_norm(x, channels, 1, train))

        widths, last = self._widths(), len(self.sources)
        vertices = [x]
        for vertex, (sources, operation) in enumerate(
            zip(self.sources, self.operations, strict=False), start=1
        ):
            width = widths[vertex]
            parts = [vertices[source][..., :width] if source else projected(width) for source in sources]
            y = sum(parts[1:], start=parts[0])
            if OPERATIONS[operation] == "maxpool3x3":
                y = max_pool(y, 3, 1)
            else:
                y = nn.relu(convolution_norm(y, width, 3 if operation == 0 else 1, train))
            vertices.append(y)
        inner = [vertices[source] for source in self.sources[-1] if source]
        joined = [jnp.concatenate(inner, axis=-1)] if inner else []
        if 0 in self.sources[last - 1]:
            joined.append(projected(self.channels))
        return sum(joined[1:], start=joined[0])

    def _widths(self) -> dict[int, int]:
        """Channels of the vertices between."""
        last = len(self.sources)
        inner = [source for source in self.sources[-1] if source]
        widths = {
            vertex: self.channels // len(inner) + (place < self.channels % len(inner))
            for place, vertex in enumerate(inner)
        }
        for vertex in range(last - 1, 0, -1):
            if vertex not in widths:
                read = [t for t in range(vertex + 1, last) if vertex in self.sources[t - 1]]
                widths[vertex] = max(widths[target] for target in read)
        return widths


def network(
    decisions: np.ndarray, classes: int, channels: int = CHANNELS, cells: int = CELLS, stages: int = STAGES
) -> Blocks:
    """The network of a code, int[26]. Raises `InputError` where it is no architecture."""
    check(decisions)
    used, there = useful(np.asarray(decisions[:EDGES]) > 0)
    names = np.flatnonzero(there).tolist()
    sources = tuple(
        tuple(names.index(a) for place, (a, b) in enumerate(PAIRS) if b == target and used[place])
        for target in names[1:]
    )
    operations = tuple(int(decisions[EDGES + vertex - 1]) for vertex in names[1:-1])
    blocks: list[nn.Module] = [Convolution(channels, 3)]
    for stage in range(stages):
        blocks += [MaxPool()] * (stage > 0)
        # Each an object of its own: Flax shares the weights of one.
        blocks += [Cell(sources, operations, channels * 2**stage) for _ in range(cells)]
    return Blocks((*blocks, Classifier(classes)))


def check(decisions: Any) -> None:
    """Raise `InputError` unless a code, int[26], is an architecture."""
    edges, vertices = useful(np.asarray(decisions[:EDGES]) > 0)
    if not vertices[0]:
        raise InputError("no path leads from the input of this cell to its output: add an edge")
    if edges.sum() > LARGEST:
        raise InputError(f"this cell has {edges.sum()} edges from input to output: leave {LARGEST} at most")


def write(decisions: np.ndarray) -> str:
    """The rows of the matrix and the operations of a code, int[26]."""
    matrix = np.zeros((VERTICES, VERTICES), int)
    matrix[tuple(np.array(PAIRS).T)] = decisions[:EDGES]
    rows = "/".join("".join(map(str, row)) for row in matrix.tolist())
    return f"{rows}:{','.join(OPERATIONS[place] for place in decisions[EDGES:])}"


def read(text: str) -> np.ndarray:
    """The code of the rows of a matrix of 2 to 7 vertices and its operations: int32[26].

    Raises `InputError` for other text, edges that do not lead upwards, and cells that are no architectures.
    """
    head, _, tail = text.partition(":")
    rows, names = head.split("/"), tail.split(",") if tail else []
    count = len(rows)
    if not 2 <= count <= VERTICES or any(len(row) != count or set(row) - set("01") for row in rows):
        raise _bad(text, f"its matrix is none of 2 to {VERTICES} rows of as many digits 0 and 1")
    matrix = np.array([list(map(int, row)) for row in rows])
    if np.tril(matrix).any():
        raise _bad(text, "its edges must lead from lower to higher vertices, above the diagonal")
    if len(names) != count - 2:
        raise _bad(text, f"it has {len(names)} operations for {count - 2} vertices between input and output")
    for name in names:
        if name not in OPERATIONS:
            raise unknown_name("operation of the space nasbench101", name, OPERATIONS)
    # The output of a smaller matrix is the last vertex, and vertices between do nothing.
    places = [*range(count - 1), VERTICES - 1]
    whole = np.zeros((VERTICES, VERTICES), int)
    whole[np.ix_(places, places)] = matrix
    operations = np.zeros(INNER, int)
    operations[: count - 2] = [OPERATIONS.index(name) for name in names]
    code = np.concatenate([whole[tuple(np.array(PAIRS).T)], operations]).astype(np.int32)
    try:
        check(code)
    except InputError as error:
        raise _bad(text, str(error)) from error
    return code


def _bad(text: str, fault: str) -> InputError:
    shown = " ".join(text.split())[:120]
    return InputError(f"'{shown}' is not of the space nasbench101: {fault}; an example is {EXAMPLE}")


def space(channels: int = CHANNELS, cells: int = CELLS, stages: int = STAGES) -> Space:
    """The space with networks of so many channels, cells a stage and stages."""
    decisions: dict[str, tuple[Any, ...]] = {f"edge_{a}_{b}": (0, 1) for a, b in PAIRS}
    decisions |= {f"vertex_{vertex}": OPERATIONS for vertex in range(1, VERTICES - 1)}

    def build(architecture: Mapping[str, Any], classes: int) -> Blocks:
        values = list(architecture.values())
        code = np.array([*values[:EDGES], *(OPERATIONS.index(name) for name in values[EDGES:])])
        return network(code, classes, channels, cells, stages)

    whole = of_networks("nasbench101", decisions, build, text=Text(write, read), canonical_form=canonical)
    return where(replace(whole, representatives=representatives), valid)


SPACE: Space = space()
