"""SWAP: number of sample-wise activation patterns. Higher is better; no labels.

    score = | { (1[h_k(x_n) > 0])_n : all ReLU inputs k } |

the patterns of single units over the images of a batch, where linear regions count the patterns of single images
over the units (Peng, Song, Fayek, Ciesielski and Chang, "SWAP-NAS: Sample-Wise Activation Patterns for
Ultra-fast NAS", ICLR 2024, https://arxiv.org/abs/2403.04161). Range 1 to the number of units. The first 32
images of the batch, one bit each of a word.

Departure: without the authors' optional regularisation by size, whose two constants are fitted to a table.
"""

import jax.numpy as jnp
from jax import Array

from jnas.proxies.base import Proxy
from jnas.proxies.probe import Probe
from jnas.proxies.regions import WORD, pack


def distinct_units(probe: Probe) -> Array:
    """The score: float32[]."""
    words, read = [], []
    for signs, readers in probe.patterns:
        words.append(pack(signs[:WORD].T)[:, 0])
        read.append(jnp.broadcast_to(readers > 0, words[-1].shape))
    every, is_read = jnp.concatenate(words), jnp.concatenate(read)
    # A node that nothing reads has no ReLU: its units repeat a pattern that counts anyway.
    ordered = jnp.sort(jnp.where(is_read, every, every[jnp.argmax(is_read)]))
    return 1 + jnp.sum(ordered[1:] != ordered[:-1], dtype=jnp.float32)


PROXY = Proxy(
    name="swap",
    sign=1,
    needs_labels=False,
    summary="number of sample-wise activation patterns",
    reference="Peng et al., ICLR 2024, https://arxiv.org/abs/2403.04161",
    measure=distinct_units,
)
