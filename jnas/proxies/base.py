"""What a proxy declares of itself, and how a compiled program runs over many architectures."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array


@dataclass(frozen=True)
class Proxy:
    """A training-free score.

    sign: +1 where higher means a better network, -1 where lower does.
    needs_labels: whether the score depends on the images' labels.
    summary: one line; reference: authors, year, URL.
    """

    name: str
    sign: int
    needs_labels: bool
    summary: str
    reference: str


def architectures_at_once() -> int:
    """How many architectures one step of a program evaluates side by side.

    A few cores are full with one architecture, whose planes then stay in their caches; an accelerator is not.
    """
    return 1 if jax.default_backend() == "cpu" else 8


def map_first(
    function: Callable[[Array], Array], xs: Array, count: Array, chunk: int, out: jax.ShapeDtypeStruct
) -> Array:
    """`function` of the first `count` rows of xs [B, ...], `chunk` rows at a time; zeros for the rest.

    `count` is data: a program with room for B rows runs on fewer without compiling again, at their cost.
    `out` is what `function` returns for a row: finding that out by tracing it would take seconds.
    """
    size = len(xs)
    padded = jnp.concatenate([xs, jnp.zeros((-size % chunk, *xs.shape[1:]), xs.dtype)])

    def step(index, outs):
        start = index * chunk
        if chunk == 1:
            ys = function(padded[start])[None]
        else:
            ys = jax.vmap(function)(jax.lax.dynamic_slice_in_dim(padded, start, chunk))
        return jax.lax.dynamic_update_slice_in_dim(outs, ys, start, 0)

    outs = jnp.zeros((len(padded), *out.shape), out.dtype)
    return jax.lax.fori_loop(0, (count + chunk - 1) // chunk, step, outs)[:size]
