"""Posterior over architecture and weights by variational dropout: the mathematics, on flat arrays.

Zhou, Sun, Luo, Zha and Zeng, "One-Shot Neural Architecture Search Through A Posteriori Distribution Guided
Sampling", 2019, https://arxiv.org/abs/1906.09557 (AAAI-20: "Posterior-Guided Neural Architecture Search").

Weights m are multiplied by Bernoulli masks (the hybrid representation): group g of weights, W_g, is dropped with the
learned probability p_g = sigmoid(logit_g), by C_g independent masks. The negative evidence lower bound, over N images:

    loss = mean CE(f(x; m, mask), y)
         + (l / N) sum_g (1 - p_g) ||W_g||^2
         + (d / N) sum_g C_g [ p_g log(p_g / (1 - u_g)) + (1 - p_g) log((1 - p_g) / u_g) ]

u_g is the prior probability that group g is included; with u = 1/2 the last sum is the paper's negative entropy but for
the constant log 2. In training masks are relaxed and fresh for each image; a candidate is one draw of hard masks, with
the weights it inherits. Activations are not divided by 1 - p, hence the factor (1 - p_g) of ||W_g||^2.

The gates of a cell's operations (NAS-Bench-201) weigh what an operation gives out after normalisation, offsets
included, rather than its weights: a gate of zero removes the operation, and ||W_g||^2 is that of its kernels.

Departures: the paper's printed equations have errors that its code does not have (p for 1 - p, the sign of the
entropy); what stands here is derived, and agrees with the code. The paper's two Gumbel variables are one logistic
variable here, which is their difference. The prior inclusion u, and masks shared by a whole group, are jnas's.

Letters: G groups, D independent masks, M masked channels or operations, N images, B candidates.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jnas.errors import InputError, unknown_name


class Gating(NamedTuple):
    """Which masks are independent.

    group: int[D], the group whose probability each independent mask has; expand: int[M], the independent mask that
    each masked channel has; counts: int[G], the independent masks of each group: C_g in the loss.
    """

    group: np.ndarray
    expand: np.ndarray
    counts: np.ndarray


GATES = {
    "channel": "every input channel has a mask of its own (the paper's)",
    "group": "a group has one mask, so that it leaves as a whole",
}


def gating(sizes: tuple[int, ...], gates: str) -> Gating:
    """The masks of groups with so many channels each. Raises `InputError` unless `gates` is a name in `GATES`."""
    if gates not in GATES:
        raise unknown_name("kind of gates", gates, GATES)
    group_of_channel = np.repeat(np.arange(len(sizes)), sizes)
    if gates == "channel":
        return Gating(group_of_channel, np.arange(len(group_of_channel)), np.array(sizes))
    return Gating(np.arange(len(sizes)), group_of_channel, np.ones(len(sizes), int))


def logits_of(probabilities: ArrayLike) -> Array:
    """log(p / (1 - p)). Raises `InputError` unless every probability lies inside (0, 1)."""
    values = np.asarray(probabilities, np.float64)
    if not ((values > 0) & (values < 1)).all():
        wrong = values[~((values > 0) & (values < 1))].flat[0]
        raise InputError(f"probability {wrong:g} does not fit: give one above 0 and below 1")
    return jnp.asarray(np.log(values) - np.log1p(-values), jnp.float32)


def relaxed_masks(key: Array, logits: Array, images: int, temperature: float) -> Array:
    """Concrete masks float[N, D], fresh for each image, near 1 where kept and near 0 where dropped.

    mask = sigmoid(-(logit + L) / temperature), L ~ Logistic(0, 1); logits [D] are those of dropping. P(mask < 1/2)
    = p at every temperature; temperature -> 0 gives hard masks (Maddison, Mnih and Teh, ICLR 2017,
    https://arxiv.org/abs/1611.00712).
    """
    noise = jax.random.logistic(key, (images, *logits.shape), logits.dtype)
    return jax.nn.sigmoid(-(logits + noise) / temperature)


def hard_masks(key: Array, logits: Array, count: int) -> Array:
    """`count` draws of masks, bool[count, D], True where kept: each dropped with probability sigmoid(logit)."""
    return jax.random.bernoulli(key, jax.nn.sigmoid(-logits), (count, *logits.shape))


def regulariser(
    logits: Array,
    squared_norms: Array,
    counts: ArrayLike,
    inclusion: np.ndarray | float,
    images: float,
    *,
    weight_penalty: float,
    entropy: float = 1.0,
    penalty: str = "kept",
) -> Array:
    """The loss without its cross-entropy: a scalar.

    Args:
      logits: float[G], of dropping; squared_norms: float[G], ||W_g||^2; counts: [G], C_g; inclusion: u, [G] or one.
      images: N.
      weight_penalty: l; entropy: d, 1 in the paper.
      penalty: `"kept"` weighs ||W_g||^2 by 1 - p_g; `"constant"` does not (plain L2, for comparison).
    """
    log_drop, log_keep = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    drop, keep = jnp.exp(log_drop), jnp.exp(log_keep)
    weights = squared_norms * (keep if penalty == "kept" else 1.0)
    # Before they are rounded: an inclusion next to 1 has a logarithm in float64 alone.
    prior = np.asarray(inclusion, np.float64)
    log_excluded, log_included = (
        jnp.asarray(values, logits.dtype) for values in (np.log1p(-prior), np.log(prior))
    )
    divergence = drop * (log_drop - log_excluded) + keep * (log_keep - log_included)
    return (weight_penalty * jnp.sum(weights) + entropy * jnp.sum(jnp.asarray(counts) * divergence)) / images


def expected_parameters(logits: Array, weights_of_mask: ArrayLike, fixed: int) -> Array:
    """Expected number of parameters of a candidate: fixed + sum_D (1 - p) weights_of_mask [D]; logits [D]."""
    return fixed + jnp.sum(jax.nn.sigmoid(-logits) * jnp.asarray(weights_of_mask, jnp.float32), axis=-1)
