"""Gradient norm: sum over layers of the norms of the loss gradient. Higher is better; needs labels.

    score = sum_l || dL / dW_l ||_2

over the weights of convolutions and classifier, L the mean cross-entropy of a batch (Abdelfattah, Mehrotra,
Dudziak and Lane, "Zero-Cost Proxies for Lightweight NAS", ICLR 2021, https://arxiv.org/abs/2101.08134).
Normalisation by the batch. Range [0, inf).
"""

import jax.numpy as jnp
from jax import Array

from jnas.proxies.base import Proxy
from jnas.proxies.probe import Probe


def norms(probe: Probe) -> Array:
    """The score: float32[]."""
    gradients = probe.loss_gradients[0].values()
    return jnp.sum(jnp.concatenate([jnp.sqrt(jnp.sum(g**2, axis=1)) for g in gradients]))


PROXY = Proxy(
    name="grad_norm",
    sign=1,
    needs_labels=True,
    summary="sum over layers of the norm of the loss gradient",
    reference="Abdelfattah, Mehrotra, Dudziak and Lane, ICLR 2021, https://arxiv.org/abs/2101.08134",
    measure=norms,
)
