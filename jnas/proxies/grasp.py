"""GraSP: how much removing weights would reduce the gradient's flow. Higher is better; needs labels.

    score = - sum_w w (H g)_w,    g = dL/dw,  H = d^2 L / dw^2

over convolutions and classifier, L the mean cross-entropy of a batch (Wang, Zhang and Grosse, "Picking Winning
Tickets Before Training by Preserving Gradient Flow", ICLR 2020, https://arxiv.org/abs/2002.07376; as a score:
Abdelfattah et al., ICLR 2021, https://arxiv.org/abs/2101.08134). H g is the gradient of <g, g'> with g' held
constant: two backward passes, one through the other. Normalisation by the batch, differentiated twice.
"""

import jax
import jax.numpy as jnp
from jax import Array

from jnas.proxies.base import Proxy
from jnas.proxies.probe import Probe


def gradient_flow(probe: Probe) -> Array:
    """The score: float32[]."""

    def half_flow(params):
        gradient = probe.weights(jax.grad(probe.loss)(params, 0, {}))
        return sum(jnp.sum(g * jax.lax.stop_gradient(g)) for g in gradient.values())

    weights = probe.weights(probe.params)
    products = probe.weights(jax.grad(half_flow)(probe.params))
    return -jnp.sum(jnp.stack([jnp.sum(weights[path] * products[path]) for path in weights]))


PROXY = Proxy(
    name="grasp",
    sign=1,
    needs_labels=True,
    summary="how much removing weights would reduce the flow of the gradient",
    reference="Wang, Zhang and Grosse, ICLR 2020, https://arxiv.org/abs/2002.07376",
    measure=gradient_flow,
)
