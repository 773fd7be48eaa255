"""SynFlow: how much of a constant input flows through the weights. Higher is better; no labels, no images.

    score = log sum_w | w dR/dw |,    R = sum of the logits of an image of ones, all weights |w|,

without normalisation, biases zero, over convolutions and classifier (Tanaka, Kunin, Yamins and Ganguli, 2020,
https://arxiv.org/abs/2006.05467, as a score: Abdelfattah, Mehrotra, Dudziak and Lane, "Zero-Cost Proxies for
Lightweight NAS", ICLR 2021, https://arxiv.org/abs/2101.08134).

Departures: the logarithm, and a network that divides by constants at the end of each block and adds their
logarithms to the score: the value is the same, and a deep network does not overflow float32. Status
`"not_finite"` with -inf where nothing flows.
"""

import jax
import jax.numpy as jnp
from jax import Array

from jnas.proxies.base import Proxy
from jnas.proxies.probe import Probe


def flow(probe: Probe) -> Array:
    """The score: float32[]."""
    params = jax.tree.map(jnp.abs, probe.params)
    ones = jnp.ones_like(probe.images[0, :1])

    def total(params):
        logits, scale = probe.view.unnormalised(params, ones)
        return jnp.sum(logits), scale

    gradient, logarithms = jax.grad(total, has_aux=True)(params)
    weights = probe.weights(params)
    products = sum(jnp.sum(weights[path] * value) for path, value in probe.weights(gradient).items())
    return jnp.log(products) + logarithms


PROXY = Proxy(
    name="synflow",
    sign=1,
    needs_labels=False,
    summary="how much of a constant input flows through the absolute weights (logarithm)",
    reference="Tanaka, Kunin, Yamins and Ganguli, 2020, https://arxiv.org/abs/2006.05467",
    measure=flow,
)
