"""Run one function over many architectures on all devices: loop, vectorise, shard."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, PartitionSpec

AXIS = "architectures"


def over_architectures(
    function: Callable[[Any, Any], Any], shared: Any, choices: Any, width: int, mesh: Mesh | None
) -> Any:
    """`function(shared, choice)` of each of choices, arrays [B, ...], `width` at a time on each device of `mesh`.

    B must be a multiple of the number of devices.
    """

    def on_one_device(shared, choices):
        one = partial(function, shared)
        if width == len(jax.tree.leaves(choices)[0]) > 1:
            # Without a loop: within one XLA has no fast form of convolutions by groups on a CPU.
            return jax.vmap(one)(choices)
        # Without a batch axis a conditional on the choice stays one, and runs what is chosen alone.
        return jax.lax.map(one, choices, batch_size=None if width == 1 else width)

    if mesh is None:
        return on_one_device(shared, choices)
    split = PartitionSpec(AXIS)
    return jax.shard_map(
        on_one_device, mesh=mesh, in_specs=(PartitionSpec(), split), out_specs=split, check_vma=False
    )(shared, choices)


def rows_here(measured: Any) -> tuple[int, Any]:
    """Of arrays [B, ...] the rows on devices of this process, as NumPy arrays, and the number of the first row.

    They are all rows unless the mesh has devices of other processes, whose numbers this process cannot read.
    """

    def start(shard: Any) -> int:
        return shard.index[0].start or 0

    def rows(array: Array) -> np.ndarray:
        return np.concatenate([np.asarray(s.data) for s in sorted(array.addressable_shards, key=start)])

    shards = jax.tree.leaves(measured)[0].addressable_shards
    return min(map(start, shards)), jax.tree.map(rows, measured)
