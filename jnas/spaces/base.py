"""Search spaces: decisions, the cells that they describe, and text, with all that follows from the decisions.

An architecture is `int32[D]`: one categorical decision an entry. A cell is a `Graph`: nodes that add up operations of
earlier nodes. Gates weigh each operation of each edge of each kind of cell, `float32[cells, E, K]`.

Letters: B architectures, D decisions, E edges, K operations.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jnas.errors import InputError, unknown_name
from jnas.spaces import conditions as conditional
from jnas.spaces.conditions import Conditions

# More architectures than this are not listed.
LARGEST_LIST = 10**7


@dataclass(frozen=True)
class Graph:
    """A cell: every node is the sum of the operations on the edges that lead to it.

    edges: (source, target), sources before targets; nodes are numbered from 0, the inputs first.
    operations: K names in `jnas.nets.candidates.OPERATIONS`; `none` is an edge that is not there.
    inputs: how many nodes are inputs of the cell.
    allowed: the operations of each edge, by number; None: all on every edge.
    stride: of the edges that leave an input.
    outputs: the nodes that are side by side the output of the cell; the last one where empty.
    """

    edges: tuple[tuple[int, int], ...]
    operations: tuple[str, ...]
    inputs: int = 1
    allowed: tuple[tuple[int, ...], ...] | None = None
    stride: int = 1
    outputs: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for source, target in self.edges:
            if not 0 <= source < target or target < self.inputs:
                raise InputError(
                    f"edge ({source}, {target}) is not of a cell with {self.inputs} inputs: edges lead from a lower "
                    "node to a higher one that is no input"
                )

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return max(
            self.inputs, *(target + 1 for _, target in self.edges), *(node + 1 for node in self.outputs)
        )

    @property
    def choices(self) -> tuple[tuple[int, ...], ...]:
        """`allowed`, written out."""
        return self.allowed or (tuple(range(len(self.operations))),) * len(self.edges)

    @property
    def mask(self) -> np.ndarray:
        """The operations that each edge may carry: bool[E, K]."""
        return np.array([[k in row for k in range(len(self.operations))] for row in self.choices])

    def stride_of(self, edge: int) -> int:
        """The stride of the operations on an edge."""
        return self.stride if self.edges[edge][0] < self.inputs else 1

    def leaving(self, source: int) -> tuple[int, ...]:
        """The edges that leave a node."""
        return tuple(edge for edge, (start, _) in enumerate(self.edges) if start == source)

    def without(self, *names: str) -> "Graph":
        """The graph on which no edge may carry the operations `names`."""
        return self.restricted([[k for k in row if self.operations[k] not in names] for row in self.choices])

    def restricted(self, allowed: Sequence[Sequence[int]]) -> "Graph":
        """The graph whose edges carry the operations `allowed` alone."""
        return replace(self, allowed=tuple(map(tuple, allowed)))


class Coding(NamedTuple):
    """Decisions that are not one an edge: their numbers of choices, and gates both ways.

    gates: int32[..., D] -> float32[..., cells, E, K], one-hot; from_gates: [cells, E, K] -> int32[D].
    """

    decisions: tuple[int, ...]
    gates: Callable[[ArrayLike], jax.Array]
    from_gates: Callable[[ArrayLike], np.ndarray]


class Text(NamedTuple):
    """An architecture's text, both ways. `read` raises `InputError`.

    Of the operation of each edge, int32[cells E]; with a `Coding`, of the decisions.
    """

    write: Callable[[np.ndarray], str]
    read: Callable[[str], np.ndarray]


class Moves(NamedTuple):
    """Draws of a space that is restricted to some of its architectures.

    sample: (key, n) -> int32[n, D]; mutate: (key, int32[..., D]) -> int32[..., D].
    contains: int32[..., D] -> bool[...], the architectures that belong to it; None: all.
    """

    sample: Callable[[jax.Array, int], jax.Array]
    mutate: Callable[[jax.Array, ArrayLike], jax.Array]
    contains: Callable[[ArrayLike], jax.Array] | None = None


@dataclass(frozen=True)
class Space:
    """A search space. All else follows from the decisions: one for each edge that has a choice, without `coding`.

    name: its key in `jnas.spaces.SPACES`.
    graphs: of each kind of cell; their edges and operations are the same.
    cell_names: of the kinds of cell.
    node_names: of the nodes of a cell.
    network: how cells are put together, a key of `jnas.nets.networks.NETWORKS`; or a network for each architecture, the
      operation of each edge and the number of classes -> Linen module (`jnas.spaces.networks`).
    coding: where decisions are not one an edge.
    text: where the field has its text; otherwise operations by edge, such as `conv_1x1|conv_3x3`.
    canonical_form: int32[..., D] -> int32[..., D], the representative of equal architectures; None: each its own.
    conditions: where decisions matter only at certain choices of earlier ones (`jnas.spaces.conditions`); draws leave
      the others at 0.
    incoming: how many edges each node keeps in an architecture; None: all.
    moves: draws among some of the architectures (`jnas.spaces.subset`); None: among all.
    representatives: gives all canonical architectures, int[A, D], of a space whose codes are too many to list.
    """

    name: str
    graphs: tuple[Graph, ...]
    cell_names: tuple[str, ...] = ("cell",)
    node_names: tuple[str, ...] = ()
    network: str | Callable[[Sequence[int], int], Any] = "residual"
    coding: Coding | None = None
    text: Text | None = None
    canonical_form: Callable[[ArrayLike], jax.Array] | None = None
    conditions: Conditions = ()
    incoming: int | None = None
    moves: Moves | None = None
    representatives: Callable[[], np.ndarray] | None = None

    @property
    def operations(self) -> tuple[str, ...]:
        """The K names of operations."""
        return self.graphs[0].operations

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """The E pairs (source, target) of a cell."""
        return self.graphs[0].edges

    @property
    def cells(self) -> int:
        """Kinds of cell."""
        return len(self.graphs)

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of the nodes of a cell."""
        inner = range(1, self.graphs[0].nodes - 1)
        return self.node_names or ("input", *(f"node {node}" for node in inner), "output")

    @cached_property
    def allowed(self) -> np.ndarray:
        """The operations that each edge may carry: bool[cells, E, K]."""
        return np.stack([graph.mask for graph in self.graphs])

    @cached_property
    def _free(self) -> np.ndarray:
        """The (cell, edge) that each decision is about: int[D, 2]."""
        return np.argwhere(self.allowed.sum(-1) > 1)

    @cached_property
    def _places(self) -> np.ndarray:
        """The operation that each choice of a decision is: int32[D, choices], filled up with -1."""
        rows = [np.flatnonzero(self.allowed[cell, edge]) for cell, edge in self._free]
        width = max(map(len, rows), default=1)
        padded = [np.pad(row, (0, width - len(row)), constant_values=-1) for row in rows]
        return np.array(padded, np.int32).reshape(len(rows), width)

    @cached_property
    def decisions(self) -> tuple[int, ...]:
        """The number of choices of each of the D entries."""
        if self.coding:
            return self.coding.decisions
        return tuple(int(self.allowed[cell, edge].sum()) for cell, edge in self._free)

    @property
    def offered(self) -> np.ndarray:
        """The choices that each decision has, filled up to the largest number of them: bool[D, choices]."""
        return np.arange(max(self.decisions)) < np.array(self.decisions)[:, None]

    @property
    def size(self) -> int:
        """The number of lists of decisions. With conditions, lists that differ where nothing matters are one."""
        return prod(self.decisions)

    def contains(self, architectures: ArrayLike) -> jax.Array:
        """True for members of a space that is restricted to some of its architectures: int32[..., D] -> bool[...]."""
        if self.moves is None or self.moves.contains is None:
            return jnp.ones(jnp.shape(architectures)[:-1], bool)
        return self.moves.contains(architectures)

    def choices(self, architectures: ArrayLike) -> jax.Array:
        """The operation of each edge: int32[..., D] -> int32[..., cells, E]."""
        if self.coding:
            return jnp.argmax(self.coding.gates(architectures), axis=-1).astype(jnp.int32)
        architectures = jnp.asarray(architectures, jnp.int32)
        only = jnp.asarray(self.allowed.argmax(-1), jnp.int32)
        fixed = jnp.broadcast_to(only, (*architectures.shape[:-1], *only.shape))
        cells, edges = self._free.T
        places = jnp.asarray(self._places)[np.arange(len(self.decisions)), architectures]
        return fixed.at[..., cells, edges].set(places)

    def from_choices(self, choices: ArrayLike) -> np.ndarray:
        """The architecture of the operation of each edge: int[cells, E] -> int32[D]. Raises `InputError` outside."""
        choices = np.asarray(choices)
        if self.coding:
            return self.coding.from_gates(np.eye(len(self.operations))[choices])
        outside = np.argwhere(~np.take_along_axis(self.allowed, choices[..., None], -1)[..., 0])
        if len(outside):
            cell, edge = outside[0]
            may = [self.operations[k] for k in np.flatnonzero(self.allowed[cell, edge])]
            raise InputError(
                f"{self.operations[choices[cell, edge]]} on edge {'<-'.join(map(str, self.edges[edge][::-1]))} is not "
                f"of the space {self.name}: that edge may have {', '.join(may)}"
            )
        cells, edges = self._free.T
        return np.argmax(self._places == choices[cells, edges][:, None], axis=-1).astype(np.int32)

    def gates(self, architectures: ArrayLike) -> jax.Array:
        """One-hot weights of the operations: int32[..., D] -> float32[..., cells, E, K]."""
        if self.coding:
            return self.coding.gates(architectures)
        return jax.nn.one_hot(self.choices(architectures), len(self.operations), dtype=jnp.float32)

    def from_gates(self, gates: ArrayLike) -> np.ndarray:
        """The architecture of one-hot gates: [cells, E, K] -> int32[D]."""
        return self.from_choices(np.argmax(np.asarray(gates), axis=-1))

    def to_string(self, architecture: ArrayLike) -> str:
        """The text of one architecture, int32[D]. Raises `InputError` where it is none of the space."""
        decisions = np.asarray(architecture)
        integers = decisions.shape == (len(self.decisions),) and np.issubdtype(decisions.dtype, np.integer)
        if not integers or (decisions < 0).any() or (decisions >= self.decisions).any():
            raise InputError(
                f"architecture {decisions.tolist()} is not of the space {self.name}: give {len(self.decisions)} "
                f"integers below {list(self.decisions)}"
            )
        if self.text and self.coding:
            return self.text.write(decisions)
        if self.coding:
            choices = np.asarray(self.choices(decisions))
        else:
            # `choices` in NumPy: records hold thousands of texts, and a call of JAX takes milliseconds.
            choices = self.allowed.argmax(-1)
            choices[tuple(self._free.T)] = self._places[np.arange(len(decisions)), decisions]
        if self.text:
            return self.text.write(choices.reshape(-1))
        return "+".join("|".join(self.operations[k] for k in cell) for cell in choices)

    def from_string(self, text: str) -> np.ndarray:
        """The architecture of a text: int32[D]. Raises `InputError` where it is none of the space."""
        if self.text:
            values = self.text.read(text)
            return values if self.coding else self.from_choices(values.reshape(self.cells, -1))
        names = [cell.split("|") for cell in text.split("+")]
        if [len(cell) for cell in names] != [len(self.edges)] * self.cells:
            raise InputError(
                f"'{text}' is not of the space {self.name}: write {len(self.edges)} operations joined by '|'"
                + (f", {self.cells} cells joined by '+'" if self.cells > 1 else "")
            )
        for name in (name for cell in names for name in cell if name not in self.operations):
            raise unknown_name(f"operation of the space {self.name}", name, self.operations)
        return self.from_choices(np.array([[self.operations.index(name) for name in cell] for cell in names]))

    def active(self, architectures: ArrayLike) -> jax.Array:
        """Decisions that matter: int32[..., D] -> bool[..., D]."""
        if not self.conditions:
            return jnp.ones(jnp.shape(architectures), bool)
        return conditional.active(self.conditions, architectures)

    def canonical(self, architectures: ArrayLike) -> jax.Array:
        """The representative of each one's equivalence class: int32[..., D] -> int32[..., D]."""
        architectures = self._meant(jnp.asarray(architectures, jnp.int32))
        return self.canonical_form(architectures) if self.canonical_form else architectures

    def sample(self, key: jax.Array, n: int) -> jax.Array:
        """`n` architectures with replacement, every decision uniform and independent: int32[n, D].

        Of a space with conditions every decision is uniform where it is active.
        """
        if self.moves:
            return self.moves.sample(key, n)
        return self._meant(self._uniform(key, (n,)))

    def _uniform(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        decisions = jnp.asarray(self.decisions)
        return jax.random.randint(key, (*shape, len(self.decisions)), 0, decisions, jnp.int32)

    def _meant(self, architectures: jax.Array) -> jax.Array:
        """The same with 0 for decisions that do not matter."""
        if not self.conditions:
            return architectures
        return jnp.where(self.active(architectures), architectures, 0)

    def mutate(self, key: jax.Array, architectures: ArrayLike) -> jax.Array:
        """Change exactly one decision of each architecture: int32[..., D] -> int32[..., D].

        The decision is uniform over the active ones, its new value uniform over the other choices; decisions that it
        makes active are drawn anew. Every decision needs at least two choices.
        """
        if self.moves:
            return self.moves.mutate(key, architectures)
        architectures = jnp.asarray(architectures, jnp.int32)
        choices = jnp.asarray(self.decisions, jnp.int32)
        where_key, step_key = jax.random.split(key)
        if self.conditions:
            where_key, fill_key = jax.random.split(where_key)
            active = self.active(architectures)
            where = jax.random.categorical(where_key, jnp.where(active, 0.0, -jnp.inf))
            architectures = jnp.where(active, architectures, self._uniform(fill_key, active.shape[:-1]))
        else:
            where = jax.random.randint(where_key, architectures.shape[:-1], 0, len(choices))
        step = jax.random.randint(step_key, architectures.shape[:-1], 1, choices[where], jnp.int32)
        changed = (architectures + step[..., None]) % choices
        return self._meant(jnp.where(jnp.arange(len(choices)) == where[..., None], changed, architectures))

    def crossover(self, key: jax.Array, first: ArrayLike, second: ArrayLike) -> jax.Array:
        """Each decision from one of two parents with equal chances: int32[..., D], twice, -> int32[..., D].

        Where a decision is active in one of them alone, from that one.
        """
        first, second = jnp.asarray(first, jnp.int32), jnp.asarray(second, jnp.int32)
        of_first = jax.random.bernoulli(key, 0.5, first.shape)
        if self.conditions:
            only_first = self.active(first) & ~self.active(second)
            of_first = only_first | (of_first & ~(self.active(second) & ~self.active(first)))
        return self._meant(jnp.where(of_first, first, second))

    def neighbours(self, architecture: ArrayLike) -> jax.Array:
        """All architectures at Hamming distance one: int32[D] -> int32[M, D], M = sum_d (decisions[d] - 1).

        Of a space with conditions a change that does not matter gives the architecture itself, and a decision that
        becomes active is 0.
        """
        entries = np.repeat(np.arange(len(self.decisions)), np.array(self.decisions) - 1)
        steps = np.concatenate([np.arange(1, choices) for choices in self.decisions])
        changes = np.where(entries[:, None] == np.arange(len(self.decisions)), steps[:, None], 0).astype(
            np.int32
        )
        architecture = jnp.asarray(architecture, jnp.int32)
        return self._meant((architecture + changes) % jnp.asarray(self.decisions, jnp.int32))

    def index(self, architectures: ArrayLike) -> jax.Array:
        """Position of each in `all()`: int32[..., D] -> int32[...]."""
        return index(self.decisions, architectures)

    def one_hot(self, architectures: ArrayLike) -> jax.Array:
        """Decisions side by side, each one-hot: int32[..., D] -> float32[..., sum of `decisions`]."""
        architectures = jnp.asarray(architectures, jnp.int32)
        owner = np.repeat(np.arange(len(self.decisions)), self.decisions)
        value = np.concatenate([np.arange(choices) for choices in self.decisions])
        return (architectures[..., owner] == value).astype(jnp.float32)

    def all(self) -> np.ndarray:
        """Every architecture in lexicographic order: int32[size, D]. Raises `InputError` where they are too many."""
        if self.size > LARGEST_LIST:
            raise InputError(
                f"the space {self.name} has {self.size:.1e} architectures: score some of them, such as random:1000"
            )
        return np.indices(self.decisions, np.int32).reshape(len(self.decisions), -1).T.copy()


def index(decisions: tuple[int, ...], architectures: ArrayLike) -> jax.Array:
    """Position in the lexicographic order of all lists of decisions: int32[..., D] -> int32[...]."""
    places = np.cumprod((1, *decisions[:0:-1]))[::-1].astype(np.int32)
    return jnp.sum(jnp.asarray(architectures, jnp.int32) * places, axis=-1, dtype=jnp.int32)
