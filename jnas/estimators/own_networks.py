"""Training-free scores of spaces that give a network for each architecture."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from msgspec.structs import replace

from jnas.data import Dataset
from jnas.errors import InputError
from jnas.nets import own
from jnas.programs.function import trace
from jnas.proxies.base import KERNEL, Proxy, finished
from jnas.proxies.of_function import measurements
from jnas.proxies.subjects import Sample, Subject, samples
from jnas.spaces.base import Space
from jnas.theory.function_kernel import kernel
from jnas.types import Key

# Of the Jacobian, where no memory is given.
MEMORY_GB = 1.0
Scores = list[tuple[float, str]]


def measurement_alone(
    space: Space,
    subject: Subject,
    members: tuple[Proxy, ...],
    dataset: Dataset,
    settings: Any,
    memory_gb: float,
) -> Callable[[Key, np.ndarray], dict[str, Scores]]:
    """A function of key and rows to the scores by objective, for a space that gives a network for each architecture.

    Each row is a program. Weights, images and labels come from the keys of `jnas.estimators.proxies`. The network is
    the one that is trained, whatever the subject, and `regions` looks at whole images.
    """
    settings = replace(settings, regions=replace(settings.regions, crop=0))
    of_kernel = members[0].subject == KERNEL

    def scores(key: Key, rows: np.ndarray) -> dict[str, Scores]:
        drawn = list(samples(subject, key, dataset, settings, members))
        columns: dict[str, Scores] = {}
        for row in rows:
            network = own.build(space, row, dataset.x_train.shape[1:], dataset.classes)
            for repeat, (weights, sample) in enumerate(drawn):
                measured = _of_network(
                    network, weights, sample, members, settings if of_kernel else None, memory_gb
                )
                for proxy in members:
                    score = finished(proxy, measured, sample.labels)
                    columns.setdefault(f"{proxy.name}/{repeat}", []).append(score)
        return columns

    return scores


def _of_network(
    network: own.Own, key: Key, sample: Sample, members: tuple[Proxy, ...], settings: Any, memory_gb: float
) -> Any:
    """Measurements of one network: by proxy, or with settings its kernel."""
    # Batches of images one after the other.
    shape = sample.arrays[0].shape
    count = len(sample.labels)
    images = sample.arrays[0].reshape(-1, *shape[len(shape) - 3 :])
    labels = sample.arrays[1].reshape(-1) if len(sample.arrays) > 1 else sample.labels
    weights_key, probe_key = jax.random.split(key)
    params, rest = jax.jit(network.init)(weights_key, images[:1])

    def apply(params: Any, images: Any) -> Any:
        return network.train(params, rest, images)

    function = trace(apply, params, images[:count])
    if settings is not None:
        if settings.ntk.normalisation == "frozen" and function.couples:
            raise InputError(
                "ntk.normalisation frozen is for cells; a network of one's own normalises as it does: choose train"
            )
        return kernel(
            function, params, images, logits=settings.ntk.logits, parameters=settings.ntk.parameters,
            memory_gb=memory_gb or MEMORY_GB,
        )  # fmt: skip
    measured: dict[str, Any] = {}
    for batches in sorted({proxy.batches for proxy in members}):
        alike = [proxy for proxy in members if proxy.batches == batches]
        taken = slice(0, batches * count)
        measure, reasons = measurements(
            apply, function, params, alike, images[taken], jnp.asarray(labels[taken])
        )
        for name, reason in reasons.items():
            raise InputError(f"{name}: {reason}")
        measured |= jax.device_get(jax.jit(measure)(params, probe_key))
    return measured
