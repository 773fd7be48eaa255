"""GraSP: how much removing weights would reduce the gradient's flow. Higher is better; needs labels.

    score = - sum_w w (H g)_w,    g = dL/dw,  H = d^2 L / dw^2

over convolutions and classifier, L the mean cross-entropy of a batch (Wang, Zhang and Grosse, "Picking Winning
Tickets Before Training by Preserving Gradient Flow", ICLR 2020, https://arxiv.org/abs/2002.07376; as a score:
Abdelfattah et al., ICLR 2021, https://arxiv.org/abs/2101.08134). Normalisation by the batch, differentiated twice.

The authors differentiate <g, g'> with g' held constant, a pass backwards through a pass backwards. H is symmetric, so
the same number is -w' H g, the mixed second derivative of the loss along w and g: the gradient, which other proxies
need too, and one pass forwards with directions beside the values.
"""

import jax
import jax.numpy as jnp
from jax import Array

from jnas.proxies.base import Proxy
from jnas.proxies.probe import Probe


def gradient_flow(probe: Probe) -> Array:
    """The score: float32[]."""
    weights = probe.weights(probe.params)
    try:
        return -probe.curvature(weights, probe.loss_gradients[0])
    except TypeError as error:
        # A user's function may have custom derivatives for backward passes alone.
        if "custom_vjp" not in str(error):
            raise

    def half_flow(params):
        gradient = probe.weights(jax.grad(probe.loss)(params, 0, {}))
        return sum(jnp.sum(g * jax.lax.stop_gradient(g)) for g in gradient.values())

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
