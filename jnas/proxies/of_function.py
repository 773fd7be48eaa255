"""All proxies of one network that is a function of parameters and images, as one function to compile."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jnas.errors import InputError
from jnas.programs.function import Apply, Function, trace
from jnas.proxies.base import REGIONS, Proxy
from jnas.proxies.probe import Probe
from jnas.proxies.regions import count_distinct
from jnas.proxies.views import of_function


def measurements(
    apply: Apply, function: Function, params: Any, proxies: Sequence[Proxy], images: Array, labels: Array
) -> tuple[Callable[[Any, Array, Array, Array], dict[str, Any]], dict[str, str]]:
    """A function of (parameters, key, images, labels) that measures all proxies that the network has; reasons by proxy.

    The reasons say why the network lacks the others. params, images, labels: of the shapes that are to come.
    proxies: of the network and of the regions, which are those of all images. A proxy of b batches takes the images in
    b parts.
    """
    functions = {1: function}

    def measure_one(
        proxy: Proxy, params: Any, key: Array, images: Array, labels: Array, probes: dict[int, Probe]
    ) -> Any:
        batches = proxy.batches
        if batches not in probes:
            count = len(images) // batches
            if count < 2:
                raise InputError(f"takes {batches} batches of the images: give {2 * batches} or more")
            if batches not in functions:
                functions[batches] = trace(apply, params, images[:count])
            shaped = images[: count * batches].reshape(batches, count, *images.shape[1:])
            own = labels[: count * batches].reshape(batches, count)
            probes[batches] = Probe(
                key, of_function(functions[batches]), params, shaped, own, function.classes
            )
        probe = probes[batches]
        if proxy.subject == REGIONS:
            return count_distinct(jnp.concatenate([signs for signs, _ in probe.patterns], axis=1))
        assert proxy.measure is not None
        return proxy.measure(probe)

    reasons: dict[str, str] = {}

    def attempt(params: Any, key: Array, images: Array, labels: Array) -> None:
        probes: dict[int, Probe] = {}
        for proxy in proxies:
            try:
                measure_one(proxy, params, key, images, labels, probes)
            except InputError as error:
                reasons[proxy.name] = str(error)

    jax.eval_shape(attempt, params, jax.random.key(0), images, labels)

    def measure_all(params: Any, key: Array, images: Array, labels: Array) -> dict[str, Any]:
        probes: dict[int, Probe] = {}
        return {
            proxy.name: measure_one(proxy, params, key, images, labels, probes)
            for proxy in proxies
            if proxy.name not in reasons
        }

    return measure_all, reasons
