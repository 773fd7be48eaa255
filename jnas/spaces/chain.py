"""Chains of layers, as long as they are: convolutions and pools, each with parameters of its own.

    layer 1 .. 6:  kind = convolution | pool | end        end: this layer and all after it are not there
                   filters = 16 | 32 | 64, kernel = 1 | 3 | 5      where the kind is convolution
                   pool = 2 | 3 | 5                                where it is pool

The first layer is a convolution or a pool. A convolution of stride 1 is followed by batch normalisation and ReLU; a
maximum is taken over pool x pool pixels at every second one; global average pooling and a linear classifier end the
network. A layer that is there is one of 12, so that A(1) = 12 and A(n) = 12 (1 + A(n - 1)): A(6) = 3,257,436
architectures of six layers at most.

The kind of space of Baker, Gupta, Naik and Raskar, "Designing Neural Network Architectures using Reinforcement
Learning", ICLR 2017, https://arxiv.org/abs/1611.02167. Departures: six layers instead of 18; fewer filters; every pool
has stride 2, may follow another and may come first; no fully connected layers; batch normalisation instead of dropout.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
from jax import Array

from jnas.spaces.base import Space
from jnas.spaces.networks import of_networks

KINDS = ("convolution", "pool", "end")
# Of a layer: the kind that it belongs to, and its values.
PARAMETERS: dict[str, tuple[str, tuple[int, ...]]] = {
    "filters": ("convolution", (16, 32, 64)), "kernel": ("convolution", (1, 3, 5)), "pool": ("pool", (2, 3, 5)),
}  # fmt: skip


class Chain(nn.Module):
    """The network of an architecture, from images [N, H, W, C] to logits [N, classes].

    layers: filters, kernel and pool of each; a pool of 0 is a convolution.
    """

    layers: tuple[tuple[int, int, int], ...]
    classes: int

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        for filters, kernel, pool in self.layers:
            if pool:
                x = nn.max_pool(x, (pool, pool), (2, 2), "SAME")
            else:
                x = nn.Conv(filters, (kernel, kernel), use_bias=False)(x)
                x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
        return nn.Dense(self.classes)(x.mean((1, 2)))


def chain(layers: int) -> Space:
    """The space of at most so many layers."""
    decisions: dict[str, Sequence[Any]] = {}
    conditions: dict[str, dict[str, Sequence[Any]]] = {}
    for layer in range(1, layers + 1):
        decisions[f"layer_{layer}"] = KINDS[:2] if layer == 1 else KINDS
        if layer > 1:
            conditions[f"layer_{layer}"] = {f"layer_{layer - 1}": KINDS[:2]}
        for name, (kind, values) in PARAMETERS.items():
            decisions[f"{name}_{layer}"] = values
            conditions[f"{name}_{layer}"] = {f"layer_{layer}": (kind,)}

    def network(architecture: Mapping[str, Any], classes: int) -> Chain:
        rows = []
        for layer in range(1, layers + 1):
            if architecture.get(f"layer_{layer}", "end") == "end":
                break
            rows.append(tuple(architecture.get(f"{name}_{layer}", 0) for name in PARAMETERS))
        return Chain(tuple(rows), classes)

    return of_networks("chain", decisions, network, conditions)


SPACE = chain(6)
