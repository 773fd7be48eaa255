"""A constraint on what networks cost: the part of a space that is small enough.

    c(a) <= limit    parameters and multiply-adds of NAS-Bench-201's network for CIFAR-10 or its like

These are counted, not measured, so nothing is asked for and thrown away: the strategy searches a smaller space. A space
of at most `LISTED` architectures is a list of those that fit. Of a larger one draws and mutants that do not fit are
drawn anew (`jnas.spaces.subset.where`).

For what is measured, with the accuracy, see `jnas.estimators.wraps.feasible_first` and `weighted_product`.

Letters: B architectures, D decisions.
"""

import logging
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jnas.errors import InputError
from jnas.nets import own
from jnas.spaces import Space
from jnas.spaces.subset import subset, where
from jnas.strategies.lemonade import sizes
from jnas.strategies.unseen import LISTED

log = logging.getLogger("jnas")
# Random architectures by which the share that fits is estimated where the space is not listed.
DRAWS = 4096


def affordable(space: Space, limits: Mapping[str, float]) -> Space:
    """The architectures whose sizes, in millions, are at most `limits`; 0: no limit.

    Raises `InputError` where none fits, and for networks that are not built alone.
    """
    limits = {name: limit for name, limit in limits.items() if limit}
    if not limits:
        return space
    costs, most = sizes(space, list(limits)), jnp.array(list(limits.values()))

    def fits(architectures: ArrayLike) -> Array:
        flat = jnp.reshape(architectures, (-1, len(space.decisions)))
        return (costs(flat) <= most).all(axis=-1).reshape(jnp.shape(architectures)[:-1])

    if space.size > LISTED and own.is_own(space):
        raise InputError(
            f"networks of {space.name} are built one by one to count them, and there are {space.size:,}: leave the "
            "constraint out"
        )
    rows = space.all() if space.size <= LISTED else space.sample(jax.random.key(0), DRAWS)
    fitting = np.asarray(fits(rows) & space.contains(rows))
    bounds = ", ".join(f"{name} of at most {limit:g}" for name, limit in limits.items())
    if not fitting.any():
        raise InputError(
            f"none of {len(rows):,} architectures of {space.name} has {bounds}: raise the limits"
        )
    log.info("%d of %d architectures of %s have %s", fitting.sum(), len(rows), space.name, bounds)
    return subset(space, fitting) if space.size <= LISTED else where(space, fits)
