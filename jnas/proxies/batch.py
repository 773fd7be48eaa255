"""Measurements of many architectures in one compiled program, whatever the proxies.

Architectures are data (the operation of each edge), so one program serves all. On a CPU a device takes one
architecture after another and runs only the operations it has; on an accelerator it takes `width` of them side
by side. Several devices, of one process or of several, share the architecture axis. Every architecture sees the
same weights and images, and its measurements do not depend on which others are in the batch.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh

from jnas import spaces
from jnas.errors import InputError
from jnas.nets.families import FAMILIES
from jnas.nets.modules import Build, initial_parameters
from jnas.parallel import over_architectures
from jnas.proxies import ntk, regions
from jnas.proxies.base import Proxy
from jnas.proxies.probe import Probe


def _gates(space: str, choices: Array) -> Array:
    """Of the shape that one of choices [B, cells, E] has as gates."""
    return jnp.zeros((*choices.shape[1:], len(spaces.get(space).operations)))


def _measured(proxy: Proxy, space: str, probe: Probe) -> Any:
    """What a proxy measures. Raises `InputError` where the network does not sow what the proxy reads."""
    assert proxy.measure is not None
    try:
        measured = proxy.measure(probe)
    except KeyError as error:
        raise InputError(
            f"{proxy.name} reads {error}, which the network of {space} does not have: sow it there, or choose "
            "another proxy"
        ) from error
    if not jax.tree.leaves(measured):
        raise InputError(f"{proxy.name} measured nothing: return arrays")
    return measured


@partial(
    jax.jit,
    static_argnames=(
        "space", "proxies", "classes", "channels", "cells_per_stage", "stages", "initialisation", "width",
        "mesh",
    ),
)  # fmt: skip
def network_measurements(
    key: Array,
    choices: Array,
    images: Array,
    labels: Array,
    *,
    space: str = "nasbench201",
    proxies: tuple[Proxy, ...],
    classes: int,
    channels: int,
    cells_per_stage: int,
    stages: int = 3,
    initialisation: str = "kaiming_normal",
    width: int = 1,
    mesh: Mesh | None = None,
) -> dict[str, Any]:
    """What each of `proxies` (those measured on the network) measures: arrays [B, ...] by name.

    A program belongs to the proxies themselves: one that is defined anew under an old name is compiled anew.

    Args:
      key: of the weights and of what else a proxy draws.
      choices: int32[B, cells, E].
      images: float32[batches, N, H, W, C], standardised; labels: int32[batches, N]; two batches for `zico`.
      space, channels, cells_per_stage, stages, initialisation: of the network.
      width: architectures side by side; mesh: devices that share B, along the axis `AXIS`.

    Raises `InputError` when the images do not fit the network.
    """
    family = FAMILIES[space]
    family.check_images(images.shape, stages)
    weights_key, probe_key = jax.random.split(key)

    def network(build: Build) -> nn.Module:
        return family.chosen(channels, classes, build, cells_per_stage, stages)

    initial = network(Build(initialisation=initialisation))
    params = initial_parameters(initial, weights_key, images[0, :1], choices[0])

    def measure(shared, choice):
        params, images, labels, key = shared
        probe = Probe(key, network, params, choice, images, labels, classes)
        return {proxy.name: _measured(proxy, space, probe) for proxy in proxies}

    return over_architectures(measure, (params, images, labels, probe_key), choices, width, mesh)


@partial(
    jax.jit,
    static_argnames=(
        "space", "classes", "channels", "cells_per_stage", "normalisation", "logits", "parameters",
        "initialisation", "implementation", "width", "mesh",
    ),
)  # fmt: skip
def kernel_measurements(
    key: Array,
    choices: Array,
    images: Array,
    *,
    space: str = "nasbench201",
    classes: int,
    channels: int = 3,
    cells_per_stage: int = 1,
    normalisation: str = "train",
    logits: str = "sum",
    parameters: str = "weights",
    initialisation: str = "kaiming_normal",
    implementation: str = "jnas",
    width: int = 1,
    mesh: Mesh | None = None,
) -> Array:
    """Exact kernels of single architectures, float32[B, M, M]; arguments as those of `ntk.kernels`."""
    family = FAMILIES[space]
    family.check_images(images.shape, family.kernel_stages)

    def network(build: Build) -> nn.Module:
        return family.network(channels, classes, build, cells_per_stage, family.kernel_stages, True)

    gates = _gates(space, choices)
    initial = network(Build(initialisation=initialisation))
    params = initial_parameters(initial, key, images[:1], gates)

    def kernel(shared, choice):
        params, images = shared
        if implementation != "jnas":
            # neural-tangents differentiates forwards as well, which needs plain gates.
            choice = jax.nn.one_hot(choice, gates.shape[-1])
        return ntk.kernel_function(
            params,
            images,
            network,
            normalisation=normalisation,
            logits=logits,
            parameters=parameters,
            implementation=implementation,
        )(choice)

    return over_architectures(kernel, (params, images), choices, width, mesh)


@partial(jax.jit, static_argnames=("space", "channels", "cells_per_stage", "initialisation", "width", "mesh"))
def region_measurements(
    key: Array,
    choices: Array,
    inputs: Array,
    *,
    space: str = "nasbench201",
    channels: int = 1,
    cells_per_stage: int = 1,
    initialisation: str = "kaiming_normal",
    width: int = 1,
    mesh: Mesh | None = None,
) -> Array:
    """Linear regions of single architectures, int32[B]; arguments as those of `regions.counts`."""
    network = regions.network_of(space, channels, cells_per_stage, initialisation, inputs)
    gates = _gates(space, choices)
    params = initial_parameters(network, key, inputs[:1], gates)

    def count(shared, choice):
        params, inputs = shared
        return regions.of_network(network, params, inputs, choice)

    return over_architectures(count, (params, inputs), choices, width, mesh)
