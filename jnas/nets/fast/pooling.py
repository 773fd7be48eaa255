"""Skip connections and 3x3 pools that leave one node of a DARTS cell for its targets, on channel-first planes.

    y_t = skip_t x + average_t average_pool(x) + largest_t max_pool(x)

with a derivative written by hand for the many passes of an exact neural tangent kernel: cotangents are summed
over targets first, so that each pool has one adjoint, a sum of nine shifted planes. Of equal largest values the
first in reading order gets the derivative. Differentiates backwards only, and not with respect to the gates.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from jnas.nets import operations

_SHIFTS = [(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1)]


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def skip_and_pools(x: Array, gates: Array, stride: int = 1) -> Array:
    """x [C, N, H, W] and gates [T, 3] of skip, average and largest to [T, C, N, H / stride, W / stride].

    The skip connection is left out where stride is 2: halving it takes weights.
    """
    return _forward(x, gates, stride)[0]


def _forward(x, gates, stride):
    image = x.shape[-2:]
    average = operations.every(operations.average_pool(x, "CNHW"), stride, "CNHW")
    padded = jnp.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)], constant_values=-jnp.inf)
    around = jnp.stack(
        [padded[..., 1 + row : 1 + row + image[0] : stride, 1 + column : 1 + column + image[1] : stride]
         for row, column in _SHIFTS]
    )  # fmt: skip
    place = jnp.argmax(around, axis=0).astype(jnp.int8)
    largest = jnp.max(around, axis=0)
    parts = jnp.stack([x, average, largest] if stride == 1 else [average, largest])
    y = jnp.tensordot(gates[:, -len(parts) :], parts, 1)
    return y, (jnp.zeros((0, *image)), gates, place)


def _backward(stride, kept, d):
    empty, gates, place = kept
    image = empty.shape[-2:]
    # A product, not a sum that would be computed again for every shift.
    summed = jnp.tensordot(gates.T, d.reshape(len(d), -1), 1).reshape(3, *d.shape[1:])
    skip, average, largest = summed
    inverse = operations.inverse_counts(*image)[::stride, ::stride]
    average = average * jnp.asarray(inverse, d.dtype)
    beyond = len(_SHIFTS)  # no place at all, for what lies outside and between
    average, largest, place = (
        operations.spread(values, stride, (-2, -1), image, border=1, fill=fill)
        for values, fill in ((average, 0), (largest, 0), (place, beyond))
    )
    dx = skip if stride == 1 else jnp.zeros((*d.shape[1:-2], *image), d.dtype)
    for number, (row, column) in enumerate(_SHIFTS):
        window = (..., slice(1 - row, 1 - row + image[0]), slice(1 - column, 1 - column + image[1]))
        dx = dx + average[window] + jnp.where(place[window] == number, largest[window], 0)
    return dx, jnp.zeros_like(gates)


skip_and_pools.defvjp(_forward, _backward)
