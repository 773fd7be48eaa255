"""Number of linear regions: distinct ReLU sign patterns over the inputs. Higher is better; no labels.

    R = |{ (1[h_k(x_n) > 0])_k : n = 1..N }|,   h_k all inputs of ReLUs of the network

(Chen, Gong and Wang, "TE-NAS", ICLR 2021, https://arxiv.org/abs/2102.11535, after Xiong et al., 2020,
https://arxiv.org/abs/2006.01286.) R lies in 1..N and saturates at N, so TE-NAS feeds 3x3 crops of one
channel to a network of one channel.

Departure: patterns are compared exactly, by sorting, where the authors' code counts by products of
floating-point pattern matrices.
"""

from collections.abc import Mapping
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from jnas.nets.families import FAMILIES
from jnas.nets.modules import Build, initial_parameters
from jnas.proxies.base import REGIONS, Proxy, map_first

PROXY = Proxy(
    name="regions",
    sign=1,
    needs_labels=False,
    summary="number of distinct ReLU patterns, linear regions that the inputs fall into (expressivity)",
    reference="Chen, Gong and Wang, ICLR 2021, https://arxiv.org/abs/2102.11535",
    subject=REGIONS,
)
WORD = 32
# Crops are tiny: this many architectures side by side amortise the loop and still fit in a cache.
ARCHITECTURES_AT_ONCE = 5


def pack(patterns: Array) -> Array:
    """bool[N, M] to uint32[N, ceil(M / 32)], 32 signs a word."""
    count, size = patterns.shape
    padded = jnp.pad(patterns, ((0, 0), (0, -size % WORD))).reshape(count, -1, WORD).astype(jnp.uint32)
    return jnp.sum(padded << jnp.arange(WORD, dtype=jnp.uint32), axis=-1, dtype=jnp.uint32)


def count_distinct(patterns: Array) -> Array:
    """Number of distinct rows of bool[N, M]: int32.

    Rows are told apart word by word: what is known so far of each row is an integer that equals another
    row's exactly if the rows agree, and each word refines it by one sort of N pairs.
    """
    words = pack(patterns)
    count = len(words)

    def refine(known, word):
        order = jnp.lexsort((word, known))
        a, b = known[order], word[order]
        new = jnp.concatenate([jnp.zeros(1, bool), (a[1:] != a[:-1]) | (b[1:] != b[:-1])])
        return jnp.zeros(count, jnp.int32).at[order].set(jnp.cumsum(new, dtype=jnp.int32)), None

    known, _ = jax.lax.scan(refine, jnp.zeros(count, jnp.int32), words.T)
    return jnp.max(known) + 1


def network_of(
    space: str, channels: int, cells_per_stage: int, initialisation: str, inputs: Array
) -> nn.Module:
    """The network whose regions are counted, without a stem where inputs [N, H, W, C] have its channels."""
    family = FAMILIES[space]
    build = Build(planes=family.planes_for_regions, initialisation=initialisation)
    stem = inputs.shape[-1] != channels
    return family.network(channels, 1, build, cells_per_stage, family.region_stages, stem)


def of_network(network: nn.Module, params: Mapping, inputs: Array, gates: Array) -> Array:
    """R of one network on inputs [N, H, W, C]: int32[]."""
    _, sown = network.apply({"params": params}, inputs, gates, mutable=["patterns"])
    leaves = jax.tree.leaves(sown["patterns"])
    return count_distinct(jnp.concatenate([leaf.reshape(len(inputs), -1) for leaf in leaves], axis=1))


@partial(jax.jit, static_argnames=("space", "channels", "cells_per_stage", "initialisation"))
def counts(
    key: Array,
    gates: Array,
    count: Array,
    inputs: Array,
    *,
    space: str = "nasbench201",
    channels: int = 1,
    cells_per_stage: int = 1,
    initialisation: str = "kaiming_normal",
) -> Array:
    """R of the supernet under many gates, with the same weights and inputs: int32[B].

    Args:
      key: of the weights.
      gates: float32[B, cells, E, K]; only the first `count` rows are evaluated, the rest are zero.
      inputs: float32[N, H, W, C]. Without a stem, as TE-NAS has it, where C equals `channels`; otherwise a
        convolution leads from one to the other.
    """
    network = network_of(space, channels, cells_per_stage, initialisation, inputs)
    params = initial_parameters(network, key, inputs[:1], gates[0])

    def regions(gates):
        return of_network(network, params, inputs, gates)

    return map_first(
        regions, gates, count, min(ARCHITECTURES_AT_ONCE, len(gates)), jax.ShapeDtypeStruct((), jnp.int32)
    )
