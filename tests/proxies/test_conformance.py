"""What every member of the family of proxies must keep to."""

import importlib
import math
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from measure import counts, kernels, network
from nasbench201_networks import sizes

from jnas import proxies
from jnas.nets.sizes import Macro
from jnas.proxies import PROXIES, ntk, regions
from jnas.proxies.base import (
    KERNEL,
    NETWORK,
    REGIONS,
    SIZE,
    Proxy,
    finite,
    status_of,
)


@pytest.mark.parametrize("name", PROXIES)
def test_what_a_proxy_declares(name):
    proxy = PROXIES[name]
    assert isinstance(proxy, Proxy) and proxy.name == name
    assert re.fullmatch("[a-z][a-z0-9_]*", name)
    assert proxy.sign in (-1, 1) and proxy.needs_labels in (False, True)
    assert proxy.subject in (NETWORK, KERNEL, REGIONS, SIZE)
    assert (proxy.measure is not None) == (proxy.subject == NETWORK)
    for text in (proxy.summary, proxy.reference):
        assert text.strip() == text != "" and "\n" not in text


# Files of the family that declare no proxy.
SHARED = {"__init__", "base", "combination", "of_function", "probe", "subjects", "views"}


def test_every_file_is_registered():
    """What any file declares is in `PROXIES`, under its own name, once; every file declares something."""
    files = {path.stem for path in Path(proxies.__file__).parent.glob("*.py")} - SHARED
    declared = {
        file: [
            value
            for value in vars(importlib.import_module(f"jnas.proxies.{file}")).values()
            if isinstance(value, Proxy)
        ]
        for file in files
    }
    assert all(declared.values())
    found = [proxy for of_file in declared.values() for proxy in of_file]
    names = [proxy.name for proxy in found]
    assert len(set(names)) == len(names)
    by_size = {name for name, proxy in PROXIES.items() if proxy.subject == SIZE}
    assert set(names) | by_size == set(PROXIES) and by_size == {"params", "flops", "convs"}
    assert all(PROXIES[proxy.name] is proxy for proxy in found)
    assert PROXIES["ntk"] is ntk.PROXY and PROXIES["regions"] is regions.PROXY
    assert PROXIES["ntk"].sign == -1 and PROXIES["regions"].sign == 1


def test_a_value_and_its_status():
    for value in (0.0, -1e300, 5.0):
        assert status_of(value) == "ok" and finite(np.float32(value / 1e300), np.zeros(1)) == (
            pytest.approx(value / 1e300),
            "ok",
        )
    for value in (math.nan, math.inf, -math.inf):
        assert status_of(value) == "not_finite" and finite(value, np.zeros(1))[1] == "not_finite"


# A cell with convolutions on the way from every node to the next, and one through which nothing passes.
GOOD, NOTHING = (3, 3, 1, 3, 0, 1), (0, 0, 0, 0, 0, 0)
LABELS = np.array([[0, 1, 2, 0, 1, 2], [2, 1, 0, 1, 1, 0]], np.int32)


@pytest.fixture(scope="module")
def of_two_cells():
    """{proxy: [(value, status) of the good cell, of the cell of nothing]}."""
    cells = np.array([GOOD, NOTHING, GOOD], np.int32)
    choices = jnp.asarray(cells)[:, None]
    images = jax.random.normal(jax.random.key(1), (2, 6, 4, 4, 1))
    names = {
        subject: tuple(name for name, proxy in PROXIES.items() if proxy.subject == subject)
        for subject in (NETWORK, KERNEL, REGIONS)
    }
    # One stage compiles in half the time; test_network_proxies.py has what stands between stages.
    measured = network(jax.random.key(0), choices, images, jnp.asarray(LABELS), names[NETWORK])
    matrices = kernels(jax.random.key(2), choices, images[0, :3])
    crops = jax.random.normal(jax.random.key(3), (60, 3, 3, 1))
    counted = counts(jax.random.key(4), choices, crops)
    measured |= dict.fromkeys(names[KERNEL], matrices) | dict.fromkeys(names[REGIONS], counted)

    def finish(name, row):
        labels = LABELS[0, :3] if PROXIES[name].subject == KERNEL else LABELS[0]
        return PROXIES[name].finish(jax.tree.map(lambda leaf: leaf[row], measured[name]), labels)

    scores = {name: [finish(name, row) for row in (0, 1)] for name in measured}
    macro = Macro(2, 1, 1, (4, 4, 1), 3)
    counts_of = sizes(cells, macro)._asdict()
    return scores | {
        name: [(float(values[row]), "ok") for row in (0, 1)] for name, values in counts_of.items()
    }


@pytest.mark.parametrize("name", PROXIES)
def test_a_good_cell_scores_and_a_cell_of_nothing_is_worse(name, of_two_cells):
    (good, good_status), (nothing, nothing_status) = of_two_cells[name]
    assert good_status == "ok" and math.isfinite(good)
    assert isinstance(good, float) and isinstance(nothing, float)
    assert (nothing_status == "ok") == math.isfinite(nothing)
    if name == "grasp":
        # It has no worst value: removing weights may reduce the gradient's flow or raise it. Nothing flows here.
        assert nothing == 0 and good != 0
    else:
        assert nothing_status != "ok" or PROXIES[name].sign * nothing < PROXIES[name].sign * good
