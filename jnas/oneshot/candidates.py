"""Architectures of a trained supernet: blind ones for comparison, and their sizes.

Letters: B architectures, G groups, D decisions, M masked channels or operations.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jnas.oneshot.posterior import Gating
from jnas.oneshot.supernets import Supernet
from jnas.spaces.masks import OPERATIONS
from jnas.types import Key


def blind(key: Key, supernet: Supernet, gating: Gating, share: float, count: int) -> np.ndarray:
    """Architectures int32[count, D] that know nothing: uniform cells, or masks kept with probability `share`."""
    if supernet.space.operations != OPERATIONS:
        return np.asarray(supernet.space.sample(key, count))
    kept = jax.random.bernoulli(key, share, (count, len(gating.group)))
    return np.asarray(kept[:, gating.expand], np.int32)


def equal_share(supernet: Supernet, gating: Gating, logits: Array) -> float:
    """The probability of keeping every mask at which candidates are as large as those of the posterior, on average."""
    kept = np.asarray(jax.nn.sigmoid(-logits), np.float64)[gating.group][gating.expand]
    return float(kept @ supernet.weights_of_mask / supernet.weights_of_mask.sum())


def parameters(supernet: Supernet, architectures: np.ndarray) -> np.ndarray:
    """Parameters of architectures int32[B, D]: int[B]."""
    kept = np.asarray(supernet.masks_of(jnp.asarray(architectures))) > 0
    return np.asarray(supernet.fixed + kept @ supernet.weights_of_mask)
