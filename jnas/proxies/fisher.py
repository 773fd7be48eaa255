"""Fisher: how much the loss would change if channels were removed. Higher is better; needs labels.

    score = 1/2 sum_channels mean_n ( sum_positions a dL/da )^2

where a is a channel's activation for image n, the output of each convolution before its normalisation and of
the classifier, and L the mean cross-entropy of a batch (Theis et al., 2018, https://arxiv.org/abs/1801.05787;
Turner et al., "BlockSwap", ICLR 2020, https://arxiv.org/abs/1906.04113; as a score: Abdelfattah et al., ICLR
2021, https://arxiv.org/abs/2101.08134). Range [0, inf).

The inner sum is the gradient of a gate of one that multiplies the channel.
"""

import jax
import jax.numpy as jnp
from jax import Array

from jnas.proxies.base import Proxy
from jnas.proxies.probe import Probe


def channel_saliency(probe: Probe) -> Array:
    """The score: float32[]."""
    logits, labels = probe.logits, probe.labels[0]
    residual = jax.nn.softmax(logits) - jax.nn.one_hot(labels, logits.shape[1])
    gradients = [logits * residual / len(logits), *probe.loss_gradients[1]]
    return jnp.sum(jnp.stack([jnp.sum(jnp.mean(g**2, axis=-2)) for g in gradients])) / 2


PROXY = Proxy(
    name="fisher",
    sign=1,
    needs_labels=True,
    summary="how much the loss would change if channels were removed",
    reference="Turner et al., ICLR 2020, https://arxiv.org/abs/1906.04113",
    measure=channel_saliency,
)
