"""ZiCo: how large gradients are beside their variation between batches. Higher is better; needs labels.

    score = sum_l log sum_{w in l} E|dL/dw| / sqrt(Var(dL/dw))

over convolutions and classifier l, mean and deviation over batches (Li, Yang, Marculescu and Marculescu,
"ZiCo: Zero-shot NAS via Inverse Coefficient of Variation on Gradients", ICLR 2023,
https://arxiv.org/abs/2301.11300). Two batches, the least there can be and what the authors take. Weights whose
gradient does not vary, and layers without others, are left out, as in the authors' code.
"""

import jax.numpy as jnp
from jax import Array

from jnas.proxies.base import Proxy
from jnas.proxies.probe import Probe


def inverse_variation(probe: Probe) -> Array:
    """The score: float32[]."""
    first, second = probe.weight_gradients(0), probe.weight_gradients(1)
    score = jnp.zeros(())
    for path in first:
        one, other = first[path], second[path]
        mean, deviation = (jnp.abs(one) + jnp.abs(other)) / 2, jnp.abs(one - other) / 2
        ratios = jnp.where(deviation > 0, mean / jnp.where(deviation > 0, deviation, 1), 0)
        totals = jnp.sum(ratios, axis=1)
        score = score + jnp.sum(jnp.where(totals > 0, jnp.log(jnp.where(totals > 0, totals, 1)), 0))
    return score


PROXY = Proxy(
    name="zico",
    sign=1,
    needs_labels=True,
    summary="how large gradients are beside their variation between batches",
    reference="Li, Yang, Marculescu and Marculescu, ICLR 2023, https://arxiv.org/abs/2301.11300",
    measure=inverse_variation,
    batches=2,
)
