"""Number of linear regions: distinct ReLU sign patterns over the inputs. Higher is better; no labels.

    R = |{ (1[h_k(x_n) > 0])_k : n = 1..N }|,   h_k all inputs of ReLUs of the network

(Chen, Gong and Wang, "TE-NAS", ICLR 2021, https://arxiv.org/abs/2102.11535, after Xiong et al., 2020,
https://arxiv.org/abs/2006.01286.) R lies in 1..N and saturates at N, so TE-NAS feeds 3x3 crops of one
channel to a network of one channel.

Departure: patterns are compared exactly, by sorting, where the authors' code counts by products of
floating-point pattern matrices.
"""

import jax
import jax.numpy as jnp
from jax import Array

from jnas.proxies.base import REGIONS, Proxy

PROXY = Proxy(
    name="regions",
    sign=1,
    needs_labels=False,
    summary="number of distinct ReLU patterns, linear regions that the inputs fall into (expressivity)",
    reference="Chen, Gong and Wang, ICLR 2021, https://arxiv.org/abs/2102.11535",
    subject=REGIONS,
)
WORD = 32


def pack(patterns: Array) -> Array:
    """bool[N, M] to uint32[N, ceil(M / 32)], 32 signs a word."""
    count, size = patterns.shape
    padded = jnp.pad(patterns, ((0, 0), (0, -size % WORD))).reshape(count, -1, WORD).astype(jnp.uint32)
    return jnp.sum(padded << jnp.arange(WORD, dtype=jnp.uint32), axis=-1, dtype=jnp.uint32)


def count_distinct(patterns: Array) -> Array:
    """Number of distinct rows of bool[N, M]: int32.

    Rows are told apart word by word: what is known so far of each row is an integer that equals another
    row's exactly if the rows agree, and each word refines it by one sort of N pairs.
    """
    words = pack(patterns)
    count = len(words)

    def refine(known, word):
        order = jnp.lexsort((word, known))
        a, b = known[order], word[order]
        new = jnp.concatenate([jnp.zeros(1, bool), (a[1:] != a[:-1]) | (b[1:] != b[:-1])])
        return jnp.zeros(count, jnp.int32).at[order].set(jnp.cumsum(new, dtype=jnp.int32)), None

    known, _ = jax.lax.scan(refine, jnp.zeros(count, jnp.int32), words.T)
    return jnp.max(known) + 1
