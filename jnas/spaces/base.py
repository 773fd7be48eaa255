"""What every search space offers, and the parts that all spaces of independent decisions share.

An architecture is `int32[D]`: one categorical decision an entry. Letters: B architectures, D decisions,
E edges, K operations.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike


@dataclass(frozen=True)
class Space:
    """A search space: data about its decisions and pure functions on `int32[..., D]` architectures.

    | field | meaning |
    |---|---|
    | `name` | its key in `jnas.spaces.SPACES` |
    | `operations` | the K operation names, in the official order |
    | `edges` | the E pairs (source node, target node) of a cell |
    | `cells` | kinds of cell that have gates of their own |
    | `cell_names` | what they are called |
    | `nodes` | what the nodes of a cell are called |
    | `decisions` | the number of choices of each of the D entries |
    | `size` | the number of architectures |
    | `sample` | `(key, n) -> int32[n, D]`, uniform |
    | `mutate` | `(key, int32[..., D]) -> int32[..., D]`, exactly one decision changes |
    | `neighbours` | `int32[D] -> int32[M, D]`, all at Hamming distance one |
    | `canonical` | `int32[..., D] -> int32[..., D]`, the representative of the equivalence class |
    | `to_string`, `from_string` | the field's own string, both ways; `InputError` on bad text |
    | `gates` | `int32[..., D] -> float32[..., cells, E, K]`, one-hot |
    | `from_gates` | its inverse: one-hot `[cells, E, K]` to int32[D] |
    | `incoming` | how many edges each node keeps in an architecture; None: all |
    | `all` | `() -> int32[size, D]`, in lexicographic order; `InputError` where they are too many |
    """

    name: str
    operations: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]
    cells: int
    cell_names: tuple[str, ...]
    nodes: tuple[str, ...]
    decisions: tuple[int, ...]
    size: int
    sample: Callable[[jax.Array, int], jax.Array]
    mutate: Callable[[jax.Array, ArrayLike], jax.Array]
    neighbours: Callable[[ArrayLike], jax.Array]
    canonical: Callable[[ArrayLike], jax.Array]
    to_string: Callable[[ArrayLike], str]
    from_string: Callable[[str], np.ndarray]
    gates: Callable[[ArrayLike], jax.Array]
    from_gates: Callable[[ArrayLike], np.ndarray]
    all: Callable[[], np.ndarray]
    incoming: int | None = None


def sample(decisions: tuple[int, ...], key: jax.Array, n: int) -> jax.Array:
    """Draw `n` architectures uniformly, with replacement: int32[n, D].

    Every decision is independent and uniform over its `decisions[d]` choices.
    """
    return jax.random.randint(key, (n, len(decisions)), 0, jnp.asarray(decisions), jnp.int32)


def mutate(decisions: tuple[int, ...], key: jax.Array, architectures: ArrayLike) -> jax.Array:
    """Change exactly one decision of each architecture: int32[..., D] -> int32[..., D].

    The decision is uniform over the D, its new value uniform over the other choices. Every decision needs at
    least two choices.
    """
    architectures = jnp.asarray(architectures, jnp.int32)
    choices = jnp.asarray(decisions, jnp.int32)
    where_key, step_key = jax.random.split(key)
    where = jax.random.randint(where_key, architectures.shape[:-1], 0, len(decisions))
    step = jax.random.randint(step_key, architectures.shape[:-1], 1, choices[where], jnp.int32)
    changed = (architectures + step[..., None]) % choices
    return jnp.where(jnp.arange(len(decisions)) == where[..., None], changed, architectures)


def neighbours(decisions: tuple[int, ...], architecture: ArrayLike) -> jax.Array:
    """All architectures at Hamming distance one: int32[D] -> int32[M, D], M = sum_d (decisions[d] - 1)."""
    pairs = [(entry, step) for entry, choices in enumerate(decisions) for step in range(1, choices)]
    steps = np.zeros((len(pairs), len(decisions)), np.int32)
    for row, (entry, step) in enumerate(pairs):
        steps[row, entry] = step
    return (jnp.asarray(architecture, jnp.int32) + steps) % jnp.asarray(decisions, jnp.int32)


def everything(decisions: tuple[int, ...]) -> np.ndarray:
    """Every architecture in lexicographic order: int32[size, D], size = product of `decisions`."""
    return np.indices(decisions, np.int32).reshape(len(decisions), -1).T.copy()


def index(decisions: tuple[int, ...], architectures: ArrayLike) -> jax.Array:
    """Position of each architecture in `everything(decisions)`: int32[..., D] -> int32[...]."""
    places = np.cumprod((1, *decisions[:0:-1]))[::-1].astype(np.int32)
    return jnp.sum(jnp.asarray(architectures, jnp.int32) * places, axis=-1, dtype=jnp.int32)
