"""SNIP: how much the loss would change if weights were removed. Higher is better; needs labels.

    score = sum_w | w dL/dw |

over convolutions and classifier, L the mean cross-entropy of a batch (Lee, Ajanthan and Torr, "SNIP", ICLR
2019, https://arxiv.org/abs/1810.02340; as a score: Abdelfattah et al., ICLR 2021,
https://arxiv.org/abs/2101.08134). Normalisation by the batch. Range [0, inf).
"""

import jax.numpy as jnp
from jax import Array

from jnas.proxies.base import Proxy
from jnas.proxies.probe import Probe


def sensitivity(probe: Probe) -> Array:
    """The score: float32[]."""
    weights = probe.weights(probe.params)
    gradients = probe.loss_gradients[0]
    return jnp.sum(jnp.stack([jnp.sum(jnp.abs(weights[path] * gradients[path])) for path in weights]))


PROXY = Proxy(
    name="snip",
    sign=1,
    needs_labels=True,
    summary="how much the loss would change if weights were removed",
    reference="Lee, Ajanthan and Torr, ICLR 2019, https://arxiv.org/abs/1810.02340",
    measure=sensitivity,
)
