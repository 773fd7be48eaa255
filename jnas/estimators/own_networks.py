"""Training-free scores of spaces that give a network for each architecture."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from msgspec.structs import replace

from jnas.data import Dataset
from jnas.errors import InputError
from jnas.nets import own
from jnas.parallel import Program, rows_outside_loops
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
            draws = [_draw(network, weights, sample) for weights, sample in drawn]
            every = (
                _kernels(network, draws, settings, memory_gb or MEMORY_GB)
                if of_kernel
                else _measured(network, draws, members)
            )
            for repeat, (draw, measured) in enumerate(zip(draws, every, strict=True)):
                for proxy in members:
                    score = finished(proxy, measured, draw.labels_of_first)
                    columns.setdefault(f"{proxy.name}/{repeat}", []).append(score)
        return columns

    return scores


class Draw(NamedTuple):
    """Weights and images of a repeat.

    params, rest: parameters and all other collections. images: float32[N, H, W, C], batches one after the other, and
    their labels. labels_of_first: of the first batch. key: of the numbers that proxies draw.
    """

    params: Any
    rest: Any
    images: Array
    labels: Array
    labels_of_first: np.ndarray
    key: Key


def _draw(network: own.Own, key: Key, sample: Sample) -> Draw:
    shape = sample.arrays[0].shape
    images = sample.arrays[0].reshape(-1, *shape[len(shape) - 3 :])
    labels = sample.arrays[1].reshape(-1) if len(sample.arrays) > 1 else jnp.asarray(sample.labels)
    weights_key, probe_key = jax.random.split(key)
    params, rest = jax.jit(network.init)(weights_key, images[:1])
    return Draw(params, rest, images, labels, sample.labels, probe_key)


def _kernels(network: own.Own, draws: list[Draw], settings: Any, memory_gb: float) -> list[np.ndarray]:
    """The kernel of each draw. Raises `InputError` for frozen statistics of a network that normalises by the batch."""
    matrices, function, before = [], None, None
    for draw in draws:
        # A program serves all draws whose other collections are the same, as zeros and ones of statistics are.
        if function is None or not _equal(before, draw.rest):
            apply, before = partial(_apply, network, draw.rest), draw.rest
            function = trace(apply, draw.params, draw.images)
        if settings.ntk.normalisation == "frozen" and function.couples:
            raise InputError(
                "ntk.normalisation frozen is for cells; a network of one's own normalises as it does: choose train"
            )
        matrices.append(
            kernel(
                function,
                draw.params,
                draw.images,
                logits=settings.ntk.logits,
                parameters=settings.ntk.parameters,
                memory_gb=memory_gb,
            )
        )
    return matrices


def _measured(network: own.Own, draws: list[Draw], members: tuple[Proxy, ...]) -> list[dict[str, Any]]:
    """Measurements by proxy of each draw; the draws of one network are rows of one program."""
    count = len(draws[0].labels_of_first)
    measured: list[dict[str, Any]] = [{} for _ in draws]
    for batches in sorted({proxy.batches for proxy in members}):
        alike = [proxy for proxy in members if proxy.batches == batches]

        def measure(shared: Any, row: Any, alike: list[Proxy] = alike) -> dict[str, Any]:
            params, rest, images, labels, key_data = row
            apply = partial(_apply, network, rest)
            function = trace(apply, params, images[:count])
            measured_by, reasons = measurements(apply, function, params, alike, images, labels)
            for name, reason in reasons.items():
                raise InputError(f"{name}: {reason}")
            return measured_by(params, jax.random.wrap_key_data(key_data), images, labels)

        rows = [
            (d.params, d.rest, d.images[: batches * count], d.labels[: batches * count], jax.random.key_data(d.key))
            for d in draws
        ]  # fmt: skip
        program = Program("network", measure, rows=rows_outside_loops())
        outs = program.stacked((), jax.tree.map(lambda *leaves: np.stack(leaves), *rows))
        for place, own_measured in enumerate(measured):
            own_measured |= jax.tree.map(lambda leaf, place=place: leaf[place], outs)
    return measured


def _apply(network: own.Own, rest: Any, params: Any, images: Any) -> Any:
    return network.train(params, rest, images)


def _equal(one: Any, two: Any) -> bool:
    return all(map(np.array_equal, jax.tree.leaves(one), jax.tree.leaves(two)))
