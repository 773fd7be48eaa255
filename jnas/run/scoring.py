"""Scores of any architectures by any proxies: what a chunk of them is worth, as a function of the configuration.

`chunk_scorer` draws weights and images once, compiles one program for each kind of network that the proxies
look at, and returns a function from architectures to values and statuses. A score depends on the configuration
and on the architecture alone: not on the other proxies of the same kind, not on the chunk, not on the machine
that computes it (bit for bit where the devices are alike).
"""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from jnas import data as datasets
from jnas import spaces
from jnas.config.score import ScoreConfig
from jnas.data import transforms
from jnas.errors import InputError, unknown_name
from jnas.nets import cost
from jnas.nets.families import FAMILIES
from jnas.parallel import AXIS, rows_here
from jnas.proxies import PROXIES, batch
from jnas.proxies.base import KERNEL, NETWORK, REGIONS, SIZE
from jnas.run.processes import Everyone

log = logging.getLogger("jnas")

# What each use of the seed folds in first, so that no two draw the same numbers.
STREAMS = {NETWORK: 0, KERNEL: 1, REGIONS: 2}
# Architectures in one call of a program for each device: few enough that rows appear often.
ROWS_PER_DEVICE = {"cpu": 16}
ROWS_ON_ACCELERATOR = 256
# Widths tried first on an accelerator, before its memory says more.
FIRST_WIDTH = 8
SCORES = Mapping[str, tuple[np.ndarray, list[str]]]


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
    config: ScoreConfig,
    proxies: Sequence[str],
    dataset: datasets.Dataset,
    everyone: Everyone | None = None,
) -> Callable[[np.ndarray], SCORES]:
    """A function from architectures int32[B, D] to `{proxy: (float64[B], statuses)}`.

    The work is that of all devices of this process. With `everyone` it is that of all devices of all processes
    of `jax.distributed`: they call this, and the function, with the same arguments, and get the same scores.

    B is at most `chunk_size` of these devices; fewer are filled up, so that nothing compiles twice. A batch
    that does not fit into memory is split and tried again; a single architecture that does not fit gets the
    value nan with status `"out_of_memory"`.
    """
    check(config, proxies, dataset)
    space = spaces.get(config.space)
    # By process, so that the rows of a process lie side by side.
    devices = (
        jax.local_devices()
        if everyone is None
        else sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    )
    mesh = Mesh(np.array(devices), (AXIS,)) if len(devices) > 1 else None
    size = chunk_size(devices)
    by_subject = {
        subject: tuple(name for name in PROXIES if name in proxies and PROXIES[name].subject == subject)
        for subject in (NETWORK, KERNEL, REGIONS, SIZE)
    }
    programs = {
        subject: _Program(
            names, *PROGRAMS[subject](config, names, dataset, mesh), config.memory_gb, everyone or _alone
        )
        for subject, names in by_subject.items()
        if names and subject != SIZE
    }

    def score(architectures: np.ndarray) -> SCORES:
        architectures = np.asarray(architectures, np.int32)
        if len(architectures) > size:
            # Asked for by a machine with more devices than this one.
            first, rest = score(architectures[:size]), score(architectures[size:])
            return {
                name: (np.concatenate([first[name][0], rest[name][0]]), [*first[name][1], *rest[name][1]])
                for name in proxies
            }
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


def sizes(config: ScoreConfig, dataset: datasets.Dataset, architectures: np.ndarray) -> dict[str, np.ndarray]:
    """Parameters, multiply-adds and convolutions of the network that `config.network` describes."""
    network, family = config.network, FAMILIES[config.space]
    choices = np.asarray(spaces.get(config.space).choices(architectures))
    macro = cost.Macro(
        network.channels, network.cells_per_stage, 3, dataset.x_train.shape[1:], dataset.classes
    )
    return {
        "params": family.params(choices, macro),
        "flops": family.flops(choices, macro),
        "convs": family.convs(choices),
    }


@dataclass(frozen=True)
class _Repeat:
    """What one repeat feeds into a program: key of the weights, images (and labels), labels [N] for the host."""

    key: Array
    arrays: tuple[Array, ...]
    labels: np.ndarray


class _Program:
    """One compiled measurement with its repeats, the width that memory allows, and what to do when it does not.

    Several processes run one program, so the least memory among them decides for all, and where it does not
    suffice in one, all try again.
    """

    def __init__(
        self,
        proxies: tuple[str, ...],
        lower: Callable[..., Any],
        repeats: list[_Repeat],
        memory_gb: float,
        everyone: Everyone,
    ):
        self._proxies, self._lower, self._repeats = proxies, lower, repeats
        self._width = 1 if jax.default_backend() == "cpu" else FIRST_WIDTH
        self._everyone = everyone
        budgets = everyone(_memory_budget(memory_gb))
        # None as well once it has been used, or memory ran out in spite of it: only the first width is a guess.
        self._budget = None if None in budgets else min(budgets)
        self._compiled: Any = None

    def __call__(self, choices: np.ndarray, count: int) -> list[dict[str, tuple[float, str]]]:
        """(value, status) by proxy of the first `count` of choices [B, cells, E], averaged over repeats."""
        rounds = [self._attempt(repeat, choices, count) for repeat in self._repeats]
        return [
            {name: _mean([row[index][name] for row in rounds]) for name in self._proxies}
            for index in range(count)
        ]

    def _attempt(
        self, repeat: _Repeat, choices: np.ndarray, count: int
    ) -> list[dict[str, tuple[float, str]]]:
        while True:
            answers = self._everyone(self._rows_here(repeat, choices, count))
            if None not in answers:
                return [row for rows in answers for row in rows]
            if self._width == 1:
                break
            self._width, self._compiled, self._budget = self._width // 2, None, None
            log.warning("out of memory: trying %d architectures side by side", self._width)
        if count > 1:
            # Compiled for as many rows as before; what fills them up is of the cheapest kind.
            half = count // 2
            parts = choices[:half], choices[half:count]
            padded = [np.concatenate([part, np.zeros_like(choices[len(part) :])]) for part in parts]
            return self._attempt(repeat, padded[0], half) + self._attempt(repeat, padded[1], count - half)
        return [dict.fromkeys(self._proxies, (float("nan"), "out_of_memory"))]

    def _rows_here(
        self, repeat: _Repeat, choices: np.ndarray, count: int
    ) -> list[dict[str, tuple[float, str]]] | None:
        """Of the first `count` those on devices of this process; None where memory does not suffice."""
        try:
            return self._measure(repeat, choices, count)
        except (jax.errors.JaxRuntimeError, MemoryError) as error:
            if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
                raise
            return None

    def _measure(
        self, repeat: _Repeat, choices: np.ndarray, count: int
    ) -> list[dict[str, tuple[float, str]]]:
        """Measure on the devices, then finish on the host in float64."""
        if self._compiled is None:
            self._compile(repeat, choices)
        first, measured = rows_here(self._compiled(repeat.key, jnp.asarray(choices), *repeat.arrays))
        rows = []
        for index in range(min(count - first, len(jax.tree.leaves(measured)[0]))):
            row = {}
            for name in self._proxies:
                # The kernel and the regions are one measurement for all their proxies.
                own = measured[name] if isinstance(measured, dict) else measured
                row[name] = _finished(name, jax.tree.map(lambda array, i=index: array[i], own), repeat.labels)
            rows.append(row)
        return rows

    def _compile(self, repeat: _Repeat, choices: np.ndarray) -> None:
        def compile(width: int) -> Any:
            start = time.perf_counter()
            lowered = self._lower(repeat.key, jnp.asarray(choices), *repeat.arrays, width=width)
            compiled = lowered.compile()
            analysis = compiled.memory_analysis()
            size = analysis.temp_size_in_bytes if analysis is not None else 0
            log.info(
                "compiled %s in %.1f s: %d side by side, %.2f GB of working memory",
                ", ".join(self._proxies), time.perf_counter() - start, width, size / 1e9,
            )  # fmt: skip
            return compiled, size

        self._compiled, size = compile(self._width)
        if self._budget is None or not size:
            return
        fitting = 2 ** math.floor(math.log2(max(1, self._budget / (size / self._width))))
        self._budget = None
        width = min(ROWS_ON_ACCELERATOR, fitting)
        if width != self._width:
            self._width = width
            self._compiled, _ = compile(width)


def _alone(said: Any) -> list[Any]:
    """`Everyone` of a process by itself."""
    return [said]


def _finished(name: str, measured: Any, labels: np.ndarray) -> tuple[float, str]:
    """What a proxy makes of a measurement. Raises `InputError` where that is no value with a status."""
    try:
        value, status = PROXIES[name].finish(measured, labels)
        return float(value), str(status)
    except (TypeError, ValueError) as error:
        shapes = [np.shape(leaf) for leaf in jax.tree.leaves(measured)]
        raise InputError(
            f"{name}: its finish makes no value and status of arrays {shapes} ({error}): without one of your own, "
            "measure a single number"
        ) from error


def _memory_budget(memory_gb: float) -> float | None:
    """Bytes that the work on one accelerator may take; None on a CPU, whose work does not grow with the batch."""
    if jax.default_backend() == "cpu":
        return None
    if memory_gb:
        return memory_gb * 1e9
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    return None if limit is None else limit / 2


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


def _network(
    config: ScoreConfig, proxies: tuple[str, ...], dataset: datasets.Dataset, mesh: Mesh | None
) -> tuple[Callable[..., Any], list[_Repeat]]:
    settings = config.network
    shape = (2 if "zico" in proxies else 1, settings.batch)
    repeats = []
    for repeat in range(settings.repeats):
        key, draw = _key(config, NETWORK, repeat)
        images, labels = _draw(dataset, draw, math.prod(shape))
        arrays = (images.reshape(*shape, *images.shape[1:]), jnp.asarray(labels.reshape(shape)))
        repeats.append(_Repeat(key, arrays, labels[: settings.batch]))
    lower = partial(
        batch.network_measurements.lower,
        space=config.space,
        proxies=tuple(PROXIES[name] for name in proxies),
        classes=dataset.classes,
        channels=settings.channels,
        cells_per_stage=settings.cells_per_stage,
        initialisation=settings.initialisation,
        mesh=mesh,
    )
    return lower, repeats


def _kernel(
    config: ScoreConfig, proxies: tuple[str, ...], dataset: datasets.Dataset, mesh: Mesh | None
) -> tuple[Callable[..., Any], list[_Repeat]]:
    settings = config.ntk
    repeats = []
    for repeat in range(settings.repeats):
        key, _ = _key(config, KERNEL, repeat if settings.fresh_weights else 0)
        _, draw = _key(config, KERNEL, repeat)
        images, labels = _draw(dataset, draw, settings.batch)
        repeats.append(_Repeat(key, (images,), labels))
    lower = partial(
        batch.kernel_measurements.lower,
        space=config.space,
        classes=dataset.classes,
        channels=settings.channels,
        cells_per_stage=settings.cells_per_stage,
        normalisation=settings.normalisation,
        logits=settings.logits,
        parameters=settings.parameters,
        initialisation=settings.initialisation,
        implementation=settings.implementation,
        mesh=mesh,
    )
    return lower, repeats


def _regions(
    config: ScoreConfig, proxies: tuple[str, ...], dataset: datasets.Dataset, mesh: Mesh | None
) -> tuple[Callable[..., Any], list[_Repeat]]:
    settings = config.regions
    repeats = []
    for repeat in range(settings.repeats):
        key, draw = _key(config, REGIONS, repeat)
        image_key, crop_key = jax.random.split(draw)
        inputs, labels = _draw(dataset, image_key, settings.inputs)
        if settings.crop:
            inputs = transforms.crops(crop_key, inputs, settings.inputs, settings.crop)
        repeats.append(_Repeat(key, (inputs,), labels))
    lower = partial(
        batch.region_measurements.lower,
        space=config.space,
        channels=settings.channels,
        cells_per_stage=settings.cells_per_stage,
        initialisation=config.ntk.initialisation,
        mesh=mesh,
    )
    return lower, repeats


PROGRAMS = {NETWORK: _network, KERNEL: _kernel, REGIONS: _regions}
