"""What a proxy declares of itself, and how a compiled program runs over many architectures."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jnas.errors import InputError, unknown_name

# What a proxy is measured on: the network to be trained, as `Probe` shows it; the small networks of TE-NAS,
# of which the kernel or the activation patterns are taken; or nothing but the architecture's sizes.
NETWORK, KERNEL, REGIONS, SIZE = "network", "kernel", "regions", "size"


def status_of(value: float) -> str:
    """`"ok"`, or `"not_finite"` for nan and infinities."""
    return "ok" if math.isfinite(value) else "not_finite"


def finite(measured: Any, labels: np.ndarray) -> tuple[float, str]:
    """A measurement that is the score itself, with its status: `"ok"` or `"not_finite"`."""
    value = float(measured)
    return value, status_of(value)


@dataclass(frozen=True)
class Proxy:
    """A training-free score.

    sign: +1 where higher means a better network, -1 where lower does.
    needs_labels: whether the score depends on the images' labels.
    summary: one line; reference: authors, year, URL.
    subject: what it is measured on, one of `NETWORK`, `KERNEL`, `REGIONS`, `SIZE`.
    measure: the part under jit, from a `jnas.proxies.probe.Probe` to float32 arrays (`NETWORK` only).
    finish: the part on the host in float64: (what was measured, labels [N]) to (value, status).

    Raises `InputError` for another sign or subject, and where there is a `measure` that nothing calls or none.
    """

    name: str
    sign: int
    needs_labels: bool
    summary: str
    reference: str
    subject: str = NETWORK
    measure: Callable[[Any], Any] | None = None
    finish: Callable[[Any, np.ndarray], tuple[float, str]] = finite

    def __post_init__(self) -> None:
        subjects = (NETWORK, KERNEL, REGIONS, SIZE)
        if self.subject not in subjects:
            raise unknown_name("subject", self.subject, subjects)
        if self.sign not in (-1, 1):
            raise InputError(f"proxy {self.name}: sign is {self.sign}, give 1 where higher is better, or -1")
        if (self.measure is not None) != (self.subject == NETWORK):
            raise InputError(
                f"proxy {self.name}: measure is for the subject {NETWORK}, which needs it, and for no other"
            )


def architectures_at_once() -> int:
    """How many architectures one step of a program evaluates side by side.

    A few cores are full with one architecture, whose planes then stay in their caches; an accelerator is not.
    """
    return 1 if jax.default_backend() == "cpu" else 8


def map_first(
    function: Callable[[Array], Array], xs: Array, count: Array, chunk: int, out: jax.ShapeDtypeStruct
) -> Array:
    """`function` of the first `count` rows of xs [B, ...], `chunk` rows at a time; zeros for the rest.

    `count` is data: a program with room for B rows runs on fewer without compiling again, at their cost.
    `out` is what `function` returns for a row: finding that out by tracing it would take seconds.
    """
    size = len(xs)
    padded = jnp.concatenate([xs, jnp.zeros((-size % chunk, *xs.shape[1:]), xs.dtype)])

    def step(index, outs):
        start = index * chunk
        if chunk == 1:
            ys = function(padded[start])[None]
        else:
            ys = jax.vmap(function)(jax.lax.dynamic_slice_in_dim(padded, start, chunk))
        return jax.lax.dynamic_update_slice_in_dim(outs, ys, start, 0)

    outs = jnp.zeros((len(padded), *out.shape), out.dtype)
    return jax.lax.fori_loop(0, (count + chunk - 1) // chunk, step, outs)[:size]
