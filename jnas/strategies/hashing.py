"""A hash of integers that runs under jit: the finaliser of MurmurHash3.

Appleby, 2011, https://github.com/aappleby/smhasher, public domain.
"""

import jax.numpy as jnp
from jax import Array


def mixed(codes: Array) -> Array:
    """Hashes uint32 -> uint32 of the same shape, different for different codes."""
    codes = (codes ^ (codes >> 16)) * jnp.uint32(0x85EBCA6B)
    codes = (codes ^ (codes >> 13)) * jnp.uint32(0xC2B2AE35)
    return codes ^ (codes >> 16)
