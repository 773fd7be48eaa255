"""The networks that proxies look at: how each is fed, initialised and measured.

`SUBJECTS[proxy.subject]` gives pure functions for `jnas.parallel.Program`:

    init, measure = subjects.kernel("nasbench201", NtkConfig(), classes=10)
    shared = init(key, images)            # weights and data, arguments of the program: another key compiles nothing
    matrix = measure(shared, row)         # float32[M, M]

A row is one architecture, int32[cells, E], or one supernet, gates float32[cells, E, K]. Equal arguments give the same
function objects, so that JAX traces them once.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jnas import spaces
from jnas.data import Dataset, transforms
from jnas.errors import InputError
from jnas.nets import networks
from jnas.nets.modules import Build, initial_parameters
from jnas.nets.sizes import Macro
from jnas.proxies import ntk, regions
from jnas.proxies.base import KERNEL, NETWORK, REGIONS, Proxy
from jnas.proxies.probe import Probe
from jnas.proxies.views import of_supernet
from jnas.spaces.base import Space
from jnas.types import Params

if TYPE_CHECKING:
    from jnas.estimators.settings import NetworkConfig, NtkConfig, RegionsConfig


class Sections(Protocol):
    """Settings of all subjects, such as a `ScoreConfig` or the `Proxies` of a search."""

    @property
    def network(self) -> "NetworkConfig": ...
    @property
    def ntk(self) -> "NtkConfig": ...
    @property
    def regions(self) -> "RegionsConfig": ...


class Functions(NamedTuple):
    """init: (key, *arrays) -> shared, compiled; measure: (shared, row) -> arrays, for a `Program`."""

    init: Callable[..., tuple[Any, ...]]
    measure: Callable[[Any, Array], Any]


class Sample(NamedTuple):
    """Training images of one repeat: arrays for `init`, and the labels int[N] for `Proxy.finish`."""

    arrays: tuple[Array, ...]
    labels: np.ndarray


@dataclass(frozen=True)
class Subject:
    """A network that proxies look at.

    stream: folded into a key first, so that no two subjects draw the same numbers.
    size: settings, proxies -> name of the key and number of the training images that it draws.
    draw: key, dataset, settings, proxies -> `Sample`.
    functions: space, settings, proxies, number of classes -> `Functions`.
    repeats: settings -> draws that scores are averaged over.
    fresh_weights: settings -> whether each repeat has weights of its own.
    takes_gates: whether it is a supernet, which takes gates in place of an architecture.
    width_of_gates: rows of gates side by side on a CPU.
    """

    stream: int
    size: Callable[[Sections, Sequence[Proxy]], tuple[str, int]]
    draw: Callable[[Array, Dataset, Sections, Sequence[Proxy]], Sample]
    functions: Callable[[str | Space, Sections, tuple[Proxy, ...], int], Functions]
    repeats: Callable[[Sections], int]
    fresh_weights: Callable[[Sections], bool]
    takes_gates: bool = True
    width_of_gates: int = 1


def samples(
    subject: Subject, key: Array, dataset: Dataset, settings: Sections, proxies: Sequence[Proxy]
) -> Iterator[tuple[Array, Sample]]:
    """(key of the weights, images) of each repeat, from the key alone; see `jnas.estimators.proxies`."""
    for repeat in range(subject.repeats(settings)):
        own_weights, images = jax.random.split(
            jax.random.fold_in(jax.random.fold_in(key, subject.stream), repeat)
        )
        if repeat == 0 or subject.fresh_weights(settings):
            weights = own_weights
        yield weights, subject.draw(images, dataset, settings, proxies)


def network(
    space: str | Space, settings: "NetworkConfig", proxies: tuple[Proxy, ...], classes: int, stages: int = 3
) -> Functions:
    """The network to be trained, as a `Probe` shows it: init(key, images, labels); arrays by the proxies' names.

    images: float32[batches, N, H, W, C], standardised; labels: int32[batches, N].
    Raises `InputError` where the images do not fit the network, or a proxy reads an array that it does not sow.
    """
    return _network(spaces.get(space), settings, proxies, classes, stages)


def kernel(space: str | Space, settings: "NtkConfig", classes: int, stages: int | None = None) -> Functions:
    """The network of the tangent kernel: init(key, images); float32[M, M], M = N, or N O for full logits.

    images: float32[N, H, W, C], standardised. stages: those of TE-NAS where None. Raises
    `InputError` where the images do not fit the network.
    """
    known = spaces.get(space)
    return _kernel(known, settings, classes, stages or networks.kind_of(known).kernel_stages)


def linear_regions(
    space: str | Space, settings: "RegionsConfig", initialisation: str = "kaiming_normal"
) -> Functions:
    """The network of the linear regions: init(key, inputs float32[N, H, W, C]); their number, int32[].

    The network has no stem where the inputs have its channels.
    """
    return _regions(spaces.get(space), settings, initialisation)


@lru_cache(maxsize=64)
def _network(
    space: Space, settings: "NetworkConfig", proxies: tuple[Proxy, ...], classes: int, stages: int
) -> Functions:
    macro = Macro(settings.channels, settings.cells_per_stage, stages, classes=classes)
    build = partial(networks.build, space, macro)

    def init(key: Array, images: Array, labels: Array) -> tuple[Params, Array, Array, Array]:
        networks.kind_of(space).check_images(images.shape, stages)
        weights_key, probe_key = jax.random.split(key)
        initial = build(Build(initialisation=settings.initialisation))
        choices = jnp.zeros((space.cells, len(space.edges)), jnp.int32)
        return initial_parameters(initial, weights_key, images[0, :1], choices), images, labels, probe_key

    def measure(shared: tuple[Params, Array, Array, Array], choices: Array) -> dict[str, Any]:
        params, images, labels, key = shared
        probe = Probe(key, of_supernet(build, choices, images[0, :1]), params, images, labels, classes)
        measured: dict[str, Any] = {}
        for proxy in proxies:
            assert proxy.measure is not None
            try:
                measured[proxy.name] = proxy.measure(probe)
            except KeyError as error:
                raise InputError(
                    f"{proxy.name} reads {error}, which the network of {space.name} does not have: sow it there, or "
                    "choose another proxy"
                ) from error
            if not jax.tree.leaves(measured[proxy.name]):
                raise InputError(f"{proxy.name} measured nothing: return arrays")
        return measured

    return Functions(jax.jit(init), measure)


@lru_cache(maxsize=64)
def _kernel(space: Space, settings: "NtkConfig", classes: int, stages: int) -> Functions:
    macro = Macro(settings.channels, settings.cells_per_stage, stages, classes=classes)
    build = partial(networks.build, space, macro, search=True)

    def init(key: Array, images: Array) -> tuple[Params, Array]:
        networks.kind_of(space).check_images(images.shape, stages)
        initial = build(Build(initialisation=settings.initialisation))
        return initial_parameters(initial, key, images[:1], jnp.zeros(space.allowed.shape)), images

    def measure(shared: tuple[Params, Array], row: Array) -> Array:
        params, images = shared
        if settings.implementation != "jnas" and jnp.issubdtype(row.dtype, jnp.integer):
            # neural-tangents differentiates forwards as well, which needs plain gates.
            row = jax.nn.one_hot(row, len(space.operations))
        return ntk.kernel(params, images, build, row, settings)

    return Functions(jax.jit(init), measure)


@lru_cache(maxsize=64)
def _regions(space: Space, settings: "RegionsConfig", initialisation: str) -> Functions:
    kind = networks.kind_of(space)
    macro = Macro(settings.channels, settings.cells_per_stage, kind.region_stages, classes=1)
    form = Build(planes=kind.planes_for_regions, initialisation=initialisation)

    def network(inputs: Array) -> nn.Module:
        stem = inputs.shape[-1] != settings.channels
        return networks.build(space, macro, form, search=True, stem=stem)

    def init(key: Array, inputs: Array) -> tuple[Params, Array]:
        gates = jnp.zeros(space.allowed.shape)
        return initial_parameters(network(inputs), key, inputs[:1], gates), inputs

    def measure(shared: tuple[Params, Array], row: Array) -> Array:
        params, inputs = shared
        _, sown = network(inputs).apply({"params": params}, inputs, row, mutable=["patterns"])
        signs = [leaf.reshape(len(inputs), -1) for leaf in jax.tree.leaves(sown["patterns"])]
        return regions.count_distinct(jnp.concatenate(signs, axis=1))

    return Functions(jax.jit(init), measure)


def _images(dataset: Dataset, key: Array, count: int) -> tuple[Array, np.ndarray]:
    """Different training images, standardised, and their labels."""
    chosen = np.asarray(jax.random.permutation(key, len(dataset.x_train))[:count])
    return transforms.normalise(dataset, dataset.x_train[chosen]), np.asarray(dataset.y_train[chosen])


def _batches(proxies: Sequence[Proxy]) -> int:
    return max(proxy.batches for proxy in proxies)


def _draw_network(key: Array, dataset: Dataset, settings: Sections, proxies: Sequence[Proxy]) -> Sample:
    shape = _batches(proxies), settings.network.batch
    images, labels = _images(dataset, key, math.prod(shape))
    arrays = images.reshape(*shape, *images.shape[1:]), jnp.asarray(labels.reshape(shape))
    return Sample(arrays, labels[: settings.network.batch])


def _draw_kernel(key: Array, dataset: Dataset, settings: Sections, proxies: Sequence[Proxy]) -> Sample:
    images, labels = _images(dataset, key, settings.ntk.batch)
    return Sample((images,), labels)


def _draw_regions(key: Array, dataset: Dataset, settings: Sections, proxies: Sequence[Proxy]) -> Sample:
    image_key, crop_key = jax.random.split(key)
    inputs, labels = _images(dataset, image_key, settings.regions.inputs)
    if settings.regions.crop:
        inputs = transforms.crops(crop_key, inputs, settings.regions.inputs, settings.regions.crop)
    return Sample((inputs,), labels)


SUBJECTS: dict[str, Subject] = {
    NETWORK: Subject(
        stream=0,
        size=lambda settings, proxies: ("network.batch", settings.network.batch * _batches(proxies)),
        draw=_draw_network,
        functions=lambda space, settings, proxies, classes: network(
            space, settings.network, proxies, classes
        ),
        repeats=lambda settings: settings.network.repeats,
        fresh_weights=lambda settings: True,
        takes_gates=False,
    ),
    KERNEL: Subject(
        stream=1,
        size=lambda settings, proxies: ("ntk.batch", settings.ntk.batch),
        draw=_draw_kernel,
        functions=lambda space, settings, proxies, classes: kernel(space, settings.ntk, classes),
        repeats=lambda settings: settings.ntk.repeats,
        fresh_weights=lambda settings: settings.ntk.fresh_weights,
    ),
    # TE-NAS initialises both of its networks alike.
    REGIONS: Subject(
        stream=2,
        size=lambda settings, proxies: (
            "regions.inputs",
            0 if settings.regions.crop else settings.regions.inputs,
        ),
        draw=_draw_regions,
        functions=lambda space, settings, proxies, classes: linear_regions(
            space, settings.regions, settings.ntk.initialisation
        ),
        repeats=lambda settings: settings.regions.repeats,
        fresh_weights=lambda settings: settings.ntk.fresh_weights,
        # Crops are tiny: a few supernets side by side amortise the loop and still fit in a cache.
        width_of_gates=4,
    ),
}
