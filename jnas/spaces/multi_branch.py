"""Layers that read any earlier ones: an operation and skip bits a layer; chain, residual and dense are its points.

    join=sum|layer_1=conv_3x3|layer_2=conv_5x5|skip_1_2=0|layer_3=...     skip_a_b = 1: layer b also reads layer a - 1

Layer l reads layer l - 1 always and any of the layers before that, of which layer 0 is the stem. Join `sum` adds them
up; `concatenation` puts them side by side and brings them to the width by a 1x1 convolution and normalisation. No bit
is a chain; with sum, one bit a layer over two layers is a residual network; all bits with concatenation are a dense
one. Layers have one width; maxima over 2x2 pixels halve all of them after each third of the layers.

The kind of space of Zoph and Le, "Neural Architecture Search with Reinforcement Learning", ICLR 2017,
https://arxiv.org/abs/1611.01578, and of the macro space of Pham, Guan, Zoph, Le and Dean, "Efficient Neural
Architecture Search via Parameter Sharing", ICML 2018, https://arxiv.org/abs/1802.03268: 12 layers of six operations,
6^12 2^66 = 1.6e29, are `multi_branch(12)` but for the join. The registered space has six layers: 2 6^6 2^15 = 3.06e9
codes, all of them distinct. Departures: the layer before is always read; the join is a decision.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from jnas.spaces.base import Space
from jnas.spaces.layers import Classifier, convolution_norm, max_pool, norm, operation
from jnas.spaces.networks import of_networks

OPERATIONS = ("conv_3x3", "conv_5x5", "sep_conv_3x3", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3")
JOINS = ("sum", "concatenation")
WIDTH, STAGES = 36, 3


class MultiBranch(nn.Module):
    """The network, from images [N, H, W, C] to logits [N, classes].

    operations: of each layer; sources: the layers that each reads, the last one before it first.
    """

    operations: tuple[str, ...]
    sources: tuple[tuple[int, ...], ...]
    join: str
    classes: int
    width: int = WIDTH

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        layers, count = [convolution_norm(x, self.width, 3, train)], len(self.operations)
        for place, (name, sources) in enumerate(zip(self.operations, self.sources, strict=True)):
            read = [layers[source] for source in sources]
            if self.join == "sum" or len(read) == 1:
                x = sum(read[1:], start=read[0])
            else:
                x = convolution_norm(nn.relu(jnp.concatenate(read, axis=-1)), self.width, 1, train)
            y = operation(name, x, train)
            layers.append(checkpoint_name(y, f"block {place + 1}"))
            # Behind each third of the layers but the last.
            third, after = place * STAGES // count, (place + 1) * STAGES // count
            if third < after < STAGES:
                layers = [max_pool(layer, 2, 2) for layer in layers]
        return Classifier(self.classes)(nn.relu(norm(layers[-1], train)), train)


def multi_branch(layers: int, width: int = WIDTH, name: str = "multi_branch") -> Space:
    """The space of so many layers of a width."""
    decisions: dict[str, Sequence[Any]] = {"join": JOINS}
    for layer in range(1, layers + 1):
        decisions[f"layer_{layer}"] = OPERATIONS
        decisions |= {f"skip_{earlier}_{layer}": (0, 1) for earlier in range(1, layer)}

    def network(architecture: Mapping[str, Any], classes: int) -> MultiBranch:
        numbers = range(1, layers + 1)
        sources = tuple(
            (layer - 1, *(a - 1 for a in range(1, layer) if architecture[f"skip_{a}_{layer}"]))
            for layer in numbers
        )
        operations = tuple(architecture[f"layer_{layer}"] for layer in numbers)
        return MultiBranch(operations, sources, architecture["join"], classes, width)

    return of_networks(name, decisions, network)


SPACE: Space = multi_branch(6)
