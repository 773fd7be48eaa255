"""Declaration of a training-free score."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, SupportsFloat, TypeAlias

import jax
import numpy as np

from jnas.errors import InputError, unknown_name
from jnas.proxies.probe import Probe
from jnas.types import STATUSES

# Subjects: the network to be trained, as `Probe` shows it; the small networks of TE-NAS, of which the kernel or the
# activation patterns are taken (`jnas.proxies.subjects`); or nothing but the architecture's sizes.
NETWORK, KERNEL, REGIONS, SIZE = "network", "kernel", "regions", "size"

# (measurement, labels int[N]) -> (value, status of `jnas.types.STATUSES`).
Finish: TypeAlias = Callable[[Any, np.ndarray], tuple[float, str]]
# (kernel float64[M, M], labels int[N]) -> value.
KernelScore: TypeAlias = Callable[[np.ndarray, np.ndarray], float]


def status_of(value: float) -> str:
    """`"ok"`, or `"not_finite"` for nan and infinities."""
    return "ok" if math.isfinite(value) else "not_finite"


def finite(measured: SupportsFloat, labels: np.ndarray) -> tuple[float, str]:
    """A measurement that is the score itself, with its status: `"ok"` or `"not_finite"`."""
    value = float(measured)
    return value, status_of(value)


def of_kernel(score: KernelScore, needs_classes: bool = False) -> Finish:
    """The `finish` of a score of a kernel float64[M, M] and labels [N].

    Statuses: `"not_finite"` where an entry is not; `"singular"` with -inf where the trace is zero; `"one_class"` where
    `needs_classes` and the images are of one class.
    """

    def finish(kernel: np.ndarray, labels: np.ndarray) -> tuple[float, str]:
        kernel = np.asarray(kernel, np.float64)
        if not np.isfinite(kernel).all():
            return float("nan"), "not_finite"
        if np.trace(kernel) <= 0:
            return float("-inf"), "singular"
        if needs_classes and len(np.unique(labels)) == 1:
            return float("nan"), "one_class"
        return finite(score(kernel, labels), labels)

    return finish


@dataclass(frozen=True)
class Proxy:
    """A training-free score.

    sign: +1 where higher means a better network, -1 where lower does.
    needs_labels: whether the score depends on the images' labels.
    summary: one line; reference: authors, year, URL.
    subject: the object of measurement, one of `NETWORK`, `KERNEL`, `REGIONS`, `SIZE`.
    measure: the part under jit, from a `jnas.proxies.probe.Probe` to float32 arrays (`NETWORK` only).
    finish: the part on the host in float64: (measurement, labels [N]) to (value, status of `jnas.types.STATUSES`).
    batches: batches of images that `measure` takes (`NETWORK` only).

    Raises `InputError` for another sign or subject, and where there is a `measure` that nothing calls or none.
    """

    name: str
    sign: int
    needs_labels: bool
    summary: str
    reference: str
    subject: str = NETWORK
    measure: Callable[[Probe], Any] | None = None
    finish: Finish = finite
    batches: int = 1

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


def finished(proxy: Proxy, out: Any, labels: np.ndarray) -> tuple[float, str]:
    """A proxy's value of one measurement, with a status. Raises `InputError` where its `finish` gives neither."""
    if out is None:
        return np.nan, "out_of_memory"
    # The kernel and the regions are one measurement for all their proxies.
    measured = out[proxy.name] if isinstance(out, dict) else out
    try:
        value, status = proxy.finish(measured, labels)
        value = float(value)
    except (TypeError, ValueError) as error:
        shapes = [np.shape(leaf) for leaf in jax.tree.leaves(measured)]
        raise InputError(
            f"{proxy.name}: its finish makes no value and status of arrays {shapes} ({error}): without one of your "
            "own, measure a single number"
        ) from error
    if status not in STATUSES:
        raise InputError(
            f"{proxy.name}: its finish gives the status '{status}': choose one of {', '.join(STATUSES)}"
        )
    return value, "not_finite" if status == "ok" and not np.isfinite(value) else status
