"""The LSTM of policies: one step of a layer, and parameters drawn as NASNet's controller has them.

    i, f, o, n = split([x, h] W + b)
    c <- sigmoid(f) c + sigmoid(i) tanh(n),    h <- sigmoid(o) tanh(c)

Hochreiter and Schmidhuber, "Long Short-Term Memory", Neural Computation 1997,
https://doi.org/10.1162/neco.1997.9.8.1735.

Letters: I inputs, H units.
"""

from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array

from jnas.types import Key

# Parameters are drawn uniformly from -INITIAL..INITIAL.
INITIAL = 0.1

# Cell and hidden state, float32[H] each.
Memory: TypeAlias = tuple[Array, Array]


def shapes(inputs: int, units: int) -> list[tuple[int, ...]]:
    """Shapes of the weights and biases of a layer: [I + H, 4 H] and [4 H]."""
    return [(inputs + units, 4 * units), (4 * units,)]


def drawn(key: Key, form: Any) -> Any:
    """Parameters float32 of a pytree of shapes."""
    leaves, tree = jax.tree.flatten(form, is_leaf=lambda node: isinstance(node, tuple))
    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(
        tree,
        [
            jax.random.uniform(one, shape, minval=-INITIAL, maxval=INITIAL)
            for one, shape in zip(keys, leaves, strict=True)
        ],
    )


def step(weights: list[Array], signal: Array, memory: Memory) -> Memory:
    """One step: what enters, float32[I], and the memory before it to the memory after it."""
    cell, hidden = memory
    gates = jnp.concatenate([signal, hidden]) @ weights[0] + weights[1]
    enter, keep, leave, new = jnp.split(gates, 4)
    cell = jax.nn.sigmoid(keep) * cell + jax.nn.sigmoid(enter) * jnp.tanh(new)
    return cell, jax.nn.sigmoid(leave) * jnp.tanh(cell)
