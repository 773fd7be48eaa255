"""Ordinary Linen networks, from which nothing is sown, have the scores of the supernets whose weights they have."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import ordinary_networks
import pytest

from jnas import spaces
from jnas.estimators.settings import NtkConfig
from jnas.nets import macro, networks, stacks
from jnas.nets.modules import Build, initial_parameters
from jnas.nets.sizes import Macro
from jnas.programs import counts
from jnas.programs.function import trace
from jnas.proxies import PROXIES, ntk
from jnas.proxies.base import NETWORK
from jnas.proxies.probe import Probe
from jnas.proxies.views import of_function, of_supernet
from jnas.theory.function_kernel import kernel

NAMES = tuple(name for name, proxy in PROXIES.items() if proxy.subject == NETWORK)
CLASSES, COUNT = 3, 6
IMAGES = jax.random.normal(jax.random.key(1), (2, COUNT, 8, 8, 3))
LABELS = jnp.array([[0, 1, 2, 0, 1, 2], [2, 1, 0, 1, 1, 0]], jnp.int32)
ARCHITECTURES = {
    "nasbench201": "|nor_conv_1x1~0|+|skip_connect~0|nor_conv_3x3~1|+|none~0|avg_pool_3x3~1|nor_conv_3x3~2|",
    "darts": "random",
}


class Case:
    """A supernet with the choices of an architecture, and the ordinary network of it."""

    def __init__(self, name, search=False, **sizes):
        self.space = spaces.get(name)
        text = ARCHITECTURES[name]
        row = self.space.sample(jax.random.key(3), 1)[0] if text == "random" else self.space.from_string(text)
        self.choices = np.asarray(self.space.choices(np.asarray(row)[None]))[0]
        self.macro = Macro(classes=CLASSES, **sizes)
        supernet = networks.build(self.space, self.macro, Build(), search=search)
        # Each edge may carry its operation alone: a fraction to compile, and the same scores (tests/nets/test_cell.py).
        alone = macro.restricted(supernet, self.choices)
        self.build = lambda build: alone.clone(build=build)
        self.rows = [stacks.weighted(graph) for graph in alone.graphs]
        self.params = initial_parameters(self.build(Build()), jax.random.key(2), IMAGES[0, :1])
        self.network, self.own = self.ordinary(self.params)

    def ordinary(self, params):
        params = jax.tree.map(jnp.asarray, dict(params))
        if self.space.name == "nasbench201":
            sizes = CLASSES, self.macro.stages, self.macro.cells
            return ordinary_networks.residual(params, self.choices[0].tolist(), *sizes, self.rows[0])
        kinds = self.build(Build()).kinds
        return ordinary_networks.two_inputs(
            params, self.choices.tolist(), self.space.operations, kinds, CLASSES, self.rows
        )

    def apply(self, params, images):
        zeros = jax.eval_shape(self.network.init, jax.random.key(0), images)["batch_stats"]
        stats = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), zeros)
        variables = {"params": params, "batch_stats": stats}
        return self.network.apply(variables, images, mutable=["batch_stats"])


# All proxies of both forms of a DARTS network take minutes to compile: `python tests/proxies/test_any_function.py`.
SIZES = {"nasbench201": {"channels": 3, "cells": 1, "stages": 2}, "darts": {"channels": 2, "cells": 1}}
SOME = {"nasbench201": NAMES, "darts": ("naswot", "nngp", "snip", "fisher", "az_trainability")}


@pytest.fixture(scope="module", params=ARCHITECTURES)
def case(request):
    return Case(request.param, **SIZES[request.param])


def measured(case, names):
    """(of the supernet, of the ordinary network), by proxy: measurements before they are finished."""

    @jax.jit
    def both(params, own):
        key = jax.random.key(5)
        supernet = of_supernet(case.build, None, IMAGES[0, :1])
        function = of_function(trace(case.apply, own, IMAGES[0]))
        # The two have different orders of weights, so Zen's normal weights are drawn once.
        function = function._replace(redrawn=lambda key, own: case.ordinary(supernet.redrawn(key, params))[1])
        probes = (
            Probe(key, view, weights, IMAGES, LABELS, CLASSES)
            for view, weights in ((supernet, params), (function, own))
        )
        return tuple({name: PROXIES[name].measure(probe) for name in names} for probe in probes)

    return jax.device_get(both(case.params, case.own))


def finished(measurements, name):
    return [PROXIES[name].finish(own[name], np.asarray(LABELS[0])) for own in measurements]


def test_proxies_of_an_ordinary_network(case):
    names = SOME[case.space.name]
    measurements = measured(case, names)
    for name in names:
        (expected, status), (value, own_status) = finished(measurements, name)
        assert status == own_status and value == pytest.approx(expected, rel=1e-3, abs=1e-4), name


def test_sizes_of_an_ordinary_network(case):
    counted = networks.sizes_of(case.space, replace(case.macro, image=IMAGES.shape[2:]), case.choices)
    params = sum(leaf.size for leaf in jax.tree.leaves(case.own))
    found = counts.of_function(lambda p, x: case.apply(p, x)[0], case.own, IMAGES[0, :1])
    if case.space.name == "nasbench201":
        # Of DARTS's supernet, edges that a cell does not have count neither.
        assert params == counted.params
    # The closed form counts the additions of the classifier's bias.
    assert found.flops + CLASSES == counted.flops


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_kernel_of_an_ordinary_network(name):
    """Normalised by the batch, so that each row of the Jacobian is a backward pass of all images."""
    case = Case(name, search=True, channels=2, cells=1, stages={"nasbench201": 2, "darts": 1}[name])
    function = trace(case.apply, case.own, IMAGES[0])
    assert function.couples
    for logits, memory in (("sum", 1.0), ("trace", 3e-5)):
        settings = NtkConfig(channels=2, logits=logits)
        expected = ntk.kernel(case.params, IMAGES[0], case.build, None, settings)
        own = kernel(function, case.own, IMAGES[0], logits=logits, memory_gb=memory)
        np.testing.assert_allclose(own, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


if __name__ == "__main__":
    for space in ARCHITECTURES:
        one = Case(space, **SIZES[space])
        for proxy in NAMES:
            (of_space, _), (of_network, status) = finished(measured(one, [proxy]), proxy)
            print(f"{space:12}  {proxy:18}  {of_space:12.6g}  {of_network:12.6g}  {status}", flush=True)
