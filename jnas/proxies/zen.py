"""Zen-score: how strongly features react to the input, normalisation undone. Higher is better; no images.

    score = log E || f(x) - f(x + a e) ||_1  +  sum_l log sqrt(mean_c Var_l,c),    x, e ~ N(0, 1),  a = 0.01

f are the last features before pooling, weights are N(0, 1), l runs over the normalised convolutions and
Var_l,c is the batch's variance of channel c before normalisation (Lin et al., "Zen-NAS: A Zero-Shot NAS for
High-Performance Deep Image Recognition", ICCV 2021, https://arxiv.org/abs/2102.01063).

Departure: the variance is the batch's; the authors' code reads running averages that have seen one or two
batches with momentum 0.1, which mixes them with their initial value of one.
"""

import jax
import jax.numpy as jnp
from jax import Array

from jnas.errors import InputError
from jnas.proxies.base import Proxy
from jnas.proxies.probe import NO_CLASSIFIER, Probe

MIXTURE = 0.01


def reaction(probe: Probe) -> Array:
    """The score: float32[]."""
    weights_key, x_key, e_key = jax.random.split(probe.key, 3)
    params = probe.view.redrawn(weights_key, probe.params)
    x = jax.random.normal(x_key, probe.images[0].shape)
    e = jax.random.normal(e_key, x.shape)
    seen, moved = probe.view.look(params, x), probe.view.look(params, x + MIXTURE * e)
    if seen.last is None or moved.last is None:
        raise InputError(NO_CLASSIFIER)
    if seen.deviation is None:
        raise InputError(
            "the network normalises, and not by the batch: what that takes away cannot be given back"
        )
    difference = jnp.abs(seen.last - moved.last).reshape(len(x), -1)
    return jnp.log(jnp.mean(jnp.sum(difference, axis=1))) + seen.deviation


PROXY = Proxy(
    name="zen",
    sign=1,
    needs_labels=False,
    summary="how strongly features react to the input, normalisation undone",
    reference="Lin et al., ICCV 2021, https://arxiv.org/abs/2102.01063",
    measure=reaction,
)
