"""Scores of any architectures by any proxies: what a chunk of them is worth, as a function of the configuration.

`chunk_scorer` draws weights and images once, compiles one program for each kind of network that the proxies
look at, and returns a function from architectures to values and statuses. A score depends on the configuration
and on the architecture alone: not on the other proxies of the same kind, not on the chunk, not on the machine
that computes it (bit for bit where the devices are alike).
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from jnas import data as datasets
from jnas import spaces
from jnas.data import transforms
from jnas.errors import InputError, unknown_name
from jnas.nets import cost
from jnas.proxies import PROXIES, batch
from jnas.proxies.base import KERNEL, NETWORK, REGIONS, SIZE
from jnas.study import strict
from jnas.study.config import NtkConfig, RegionsConfig
from jnas.study.strict import option

log = logging.getLogger("jnas")

# What each use of the seed folds in first, so that no two draw the same numbers.
STREAMS = {NETWORK: 0, KERNEL: 1, REGIONS: 2}
# Architectures in one call of a program for each device: few enough that rows appear often.
ROWS_PER_DEVICE = {"cpu": 16}
ROWS_ON_ACCELERATOR = 256
# Widths tried first on an accelerator, before its memory says more.
FIRST_WIDTH = 8
SCORES = Mapping[str, tuple[np.ndarray, list[str]]]


@dataclass(frozen=True)
class NetworkConfig:
    """The network that proxies of the network to be trained look at."""

    # 64 images, 16 channels and five cells a stage are what the zero-cost proxies were published with.
    batch: int = option(64, "images in a batch", minimum=2)
    repeats: int = option(1, "repeats, averaged; each has weights and images of its own", minimum=1)
    channels: int = option(16, "channels of the first stage", minimum=1)
    cells_per_stage: int = option(5, "cells in each stage", minimum=1)
    initialisation: Literal["kaiming_normal", "pytorch_default"] = option(
        "kaiming_normal", "distribution of the weights"
    )


@dataclass(frozen=True)
class ScoreConfig:
    """How to score; `from_mapping` builds it."""

    space: str = option("nasbench201", "search space (jnas list spaces)")
    seed: int = option(0, "seed of everything random", minimum=0, maximum=2**32 - 1)
    data: str = option("digits", "name of a data set (jnas list data), or the path of a file or folder")
    network: NetworkConfig = NetworkConfig()
    ntk: NtkConfig = NtkConfig(repeats=1)
    regions: RegionsConfig = RegionsConfig(repeats=1)
    memory_gb: float = option(
        0.0, "memory that the work on one device may take, in GB; 0: half of an accelerator's", minimum=0
    )


# Scores of one architecture at a time are what is compared here; a search averages three.
IMPLIED: Mapping[str, Mapping[str, Any]] = {"ntk": {"repeats": 1}, "regions": {"repeats": 1}}


def from_mapping(mapping: Mapping[str, Any], source: str = "settings") -> ScoreConfig:
    """The configuration that a nested mapping describes; raises `InputError` for what it does not know."""
    strict.build(ScoreConfig, mapping, source)
    implied = {section: {**values, **mapping.get(section, {})} for section, values in IMPLIED.items()}
    return strict.build(ScoreConfig, {**mapping, **implied}, source)


def check(config: ScoreConfig, proxies: Sequence[str], dataset: datasets.Dataset) -> None:
    """Raise `InputError` for proxies or sizes that cannot be scored, before anything is computed."""
    for name in proxies:
        if name not in PROXIES:
            raise unknown_name("proxy", name, PROXIES)
    if not proxies:
        raise InputError("no proxy given: name at least one, such as naswot (jnas list proxies)")
    images = len(dataset.x_train)
    subjects = {PROXIES[name].subject for name in proxies}
    wanted = {
        NETWORK: ("network.batch", config.network.batch * (2 if "zico" in proxies else 1)),
        KERNEL: ("ntk.batch", config.ntk.batch),
        REGIONS: ("regions.inputs", 0 if config.regions.crop else config.regions.inputs),
    }
    for subject, (key, count) in wanted.items():
        if subject in subjects and count > images:
            raise InputError(
                f"{key} does not fit: {count} images are needed, '{dataset.name}' has {images} for training; "
                f"lower {key}"
            )
    if REGIONS in subjects and config.regions.crop > min(dataset.x_train.shape[1:3]):
        raise InputError(
            f"regions.crop {config.regions.crop} does not fit into the images of '{dataset.name}'"
        )


def chunk_size(devices: Sequence[jax.Device]) -> int:
    """How many architectures one call of `chunk_scorer`'s function takes."""
    return len(devices) * ROWS_PER_DEVICE.get(devices[0].platform, ROWS_ON_ACCELERATOR)


def chunk_scorer(
    config: ScoreConfig, proxies: Sequence[str], dataset: datasets.Dataset
) -> Callable[[np.ndarray], SCORES]:
    """A function from architectures int32[B, D] to `{proxy: (float64[B], statuses)}`.

    B is at most `chunk_size(jax.local_devices())`; fewer are filled up, so that nothing compiles twice. A batch
    that does not fit into memory is split and tried again; a single architecture that does not fit gets the
    value nan with status `"out_of_memory"`.
    """
    check(config, proxies, dataset)
    space = spaces.get(config.space)
    devices = jax.local_devices()
    mesh = Mesh(np.array(devices), (batch.AXIS,)) if len(devices) > 1 else None
    size = chunk_size(devices)
    by_subject = {
        subject: tuple(name for name in PROXIES if name in proxies and PROXIES[name].subject == subject)
        for subject in (NETWORK, KERNEL, REGIONS, SIZE)
    }
    programs = {
        subject: _Program(names, _PROGRAMS[subject](config, names, dataset, mesh), config.memory_gb)
        for subject, names in by_subject.items()
        if names and subject != SIZE
    }

    def score(architectures: np.ndarray) -> SCORES:
        architectures = np.asarray(architectures, np.int32)
        padded = np.zeros((size, architectures.shape[1]), np.int32)
        padded[: len(architectures)] = architectures
        choices = np.argmax(np.asarray(space.gates(padded)), axis=-1).astype(np.int32)
        scores: dict[str, tuple[np.ndarray, list[str]]] = {}
        for subject, program in programs.items():
            for name in by_subject[subject]:
                scores[name] = (np.zeros(len(architectures)), [])
            for index, per_proxy in enumerate(program(choices, len(architectures))):
                for name in by_subject[subject]:
                    value, status = per_proxy[name]
                    scores[name][0][index] = value
                    scores[name][1].append(status)
        for name in by_subject[SIZE]:
            values = sizes(config, dataset, architectures)[name].astype(np.float64)
            scores[name] = (values, ["ok"] * len(values))
        return {name: scores[name] for name in proxies}

    return score


def sizes(
    config: ScoreConfig, dataset: datasets.Dataset, architectures: np.ndarray
) -> dict[str, np.ndarray]:
    """Parameters, multiply-adds and convolutions of the network that `config.network` describes."""
    network = config.network
    macro = cost.Macro(
        network.channels, network.cells_per_stage, 3, dataset.x_train.shape[1:], dataset.classes
    )
    return {
        "params": cost.params(architectures, macro),
        "flops": cost.flops(architectures, macro),
        "convs": cost.convs(architectures),
    }


class _Program:
    """One compiled measurement with its repeats, the width that memory allows, and what to do when it does not."""

    def __init__(self, proxies: tuple[str, ...], repeats: list[Callable], memory_gb: float):
        self._proxies, self._repeats = proxies, repeats
        self._memory_gb = memory_gb
        self._width = 1 if jax.default_backend() == "cpu" else FIRST_WIDTH

    def __call__(self, choices: np.ndarray, count: int) -> list[dict[str, tuple[float, str]]]:
        """(value, status) by proxy of the first `count` of choices [B, cells, E], averaged over repeats."""
        rounds = [self._attempt(repeat, choices, count) for repeat in self._repeats]
        return [
            {name: _mean([round[index][name] for round in rounds]) for name in rounds[0][index]}
            for index in range(count)
        ]

    def _attempt(self, repeat: Callable, choices: np.ndarray, count: int) -> list[dict]:
        while True:
            try:
                return repeat(choices, count, self._width)
            except (jax.errors.JaxRuntimeError, MemoryError) as error:
                if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
                    raise
                if self._width == 1:
                    break
                self._width //= 2
                log.warning("out of memory: trying %d architectures side by side", self._width)
        if count > 1:
            # Compiled for as many rows as before; the rest of them is of the cheapest kind.
            half = count // 2
            rolled = np.concatenate([choices[half:count], np.zeros_like(choices[: len(choices) - count + half])])
            first = np.concatenate([choices[:half], np.zeros_like(choices[half:])])
            return self._attempt(repeat, first, half) + self._attempt(repeat, rolled, count - half)
        return [dict.fromkeys(self._proxies, (float("nan"), "out_of_memory"))]


def _mean(pairs: list[tuple[float, str]]) -> tuple[float, str]:
    """Mean value with status `"ok"`, or the first failure."""
    for value, status in pairs:
        if status != "ok":
            return value, status
    return float(np.mean([value for value, _ in pairs])), "ok"


def _key(config: ScoreConfig, subject: str, repeat: int) -> tuple[Array, Array]:
    """Of the weights and of the data of one repeat."""
    key = jax.random.fold_in(jax.random.key(config.seed), STREAMS[subject])
    weights, images = jax.random.split(jax.random.fold_in(key, repeat))
    return weights, images


def _draw(dataset: datasets.Dataset, key: Array, count: int) -> tuple[Array, np.ndarray]:
    """Different training images, standardised, and their labels."""
    chosen = np.asarray(jax.random.permutation(key, len(dataset.x_train))[:count])
    return transforms.normalise(dataset, dataset.x_train[chosen]), np.asarray(dataset.y_train[chosen])


def _finish(
    run: Callable[[Array, int], dict[str, Any]],
    proxies: tuple[str, ...],
    labels: np.ndarray,
    choices: np.ndarray,
    count: int,
    width: int,
) -> list[dict[str, tuple[float, str]]]:
    """Measure on the devices, then finish on the host."""
    measured = jax.device_get(run(jnp.asarray(choices), width))
    rows = []
    for index in range(count):
        own = {name: jax.tree.map(lambda array, i=index: array[i], measured[name]) for name in proxies}
        rows.append({name: PROXIES[name].finish(own[name], labels) for name in proxies})
    return rows


def _network_repeats(config, proxies, dataset, mesh) -> list[Callable]:
    settings, repeats = config.network, []
    batches = 2 if "zico" in proxies else 1
    for repeat in range(settings.repeats):
        key, draw = _key(config, NETWORK, repeat)
        images, labels = _draw(dataset, draw, batches * settings.batch)
        shape = (batches, settings.batch)

        def run(choices, width, key=key, images=images, labels=labels, shape=shape):
            return batch.network_measurements(
                key,
                choices,
                images.reshape(*shape, *images.shape[1:]),
                jnp.asarray(labels.reshape(shape)),
                proxies=proxies,
                classes=dataset.classes,
                channels=settings.channels,
                cells_per_stage=settings.cells_per_stage,
                initialisation=settings.initialisation,
                width=width,
                mesh=mesh,
            )

        repeats.append(partial(_finish, run, proxies, labels[: settings.batch]))
    return repeats


def _kernel_repeats(config, proxies, dataset, mesh) -> list[Callable]:
    settings, repeats = config.ntk, []
    for repeat in range(settings.repeats):
        key, draw = _key(config, KERNEL, repeat if settings.fresh_weights else 0)
        if not settings.fresh_weights:
            _, draw = _key(config, KERNEL, repeat)
        images, labels = _draw(dataset, draw, settings.batch)

        def run(choices, width, key=key, images=images):
            kernels = batch.kernel_measurements(
                key,
                choices,
                images,
                classes=dataset.classes,
                channels=settings.channels,
                cells_per_stage=settings.cells_per_stage,
                normalisation=settings.normalisation,
                logits=settings.logits,
                parameters=settings.parameters,
                initialisation=settings.initialisation,
                implementation=settings.implementation,
                width=width,
                mesh=mesh,
            )
            return dict.fromkeys(proxies, kernels)

        repeats.append(partial(_finish, run, proxies, labels))
    return repeats


def _region_repeats(config, proxies, dataset, mesh) -> list[Callable]:
    settings, repeats = config.regions, []
    for repeat in range(settings.repeats):
        key, draw = _key(config, REGIONS, repeat)
        image_key, crop_key = jax.random.split(draw)
        inputs, labels = _draw(dataset, image_key, settings.inputs)
        if settings.crop:
            inputs = transforms.crops(crop_key, inputs, settings.inputs, settings.crop)

        def run(choices, width, key=key, inputs=inputs):
            counts = batch.region_measurements(
                key,
                choices,
                inputs,
                channels=settings.channels,
                cells_per_stage=settings.cells_per_stage,
                initialisation=config.ntk.initialisation,
                width=width,
                mesh=mesh,
            )
            return dict.fromkeys(proxies, counts)

        repeats.append(partial(_finish, run, proxies, labels))
    return repeats


_PROGRAMS = {NETWORK: _network_repeats, KERNEL: _kernel_repeats, REGIONS: _region_repeats}
