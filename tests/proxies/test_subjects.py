"""One program for many architectures: what it computes for one does not depend on how it is asked."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from measure import counts, kernels, network

from jnas import spaces
from jnas.errors import InputError
from jnas.estimators.settings import NetworkConfig
from jnas.proxies import PROXIES, subjects

SPACE = spaces.get("nasbench201")
ROOT = Path(__file__).parents[2]
CELLS = np.array(
    [(2, 1, 3, 0, 4, 3), (3, 3, 2, 3, 3, 2), (0, 0, 0, 0, 0, 0), (0, 3, 2, 1, 3, 1), (4, 1, 1, 3, 0, 2)],
    np.int32,
)
IMAGES = jax.random.normal(jax.random.key(1), (1, 4, 4, 4, 1))
LABELS = jnp.array([[0, 1, 2, 0]], jnp.int32)
# One of each way of measuring; those left out take a gradient as these do.
NAMES = ("naswot", "jacob_cov", "synflow", "snip", "fisher", "zen", "az_trainability", "nngp")


def choices(cells) -> jax.Array:
    return jnp.asarray(cells, jnp.int32)[:, None]


def finish(name, measured, row) -> float:
    own = jax.tree.map(lambda leaf: leaf[row], measured)
    return PROXIES[name].finish(own, np.asarray(LABELS[0]))[0]


def measure(cells, proxies=NAMES, key=0, **settings):
    """Scores {proxy: float64[B]} of networks of one cell."""
    measured = network(jax.random.key(key), choices(cells), IMAGES, LABELS, proxies, **settings)
    return {
        name: np.array([finish(name, measured[name], row) for row in range(len(cells))]) for name in proxies
    }


def assert_equal(found, expected, rows=slice(None)):
    for name in found:
        np.testing.assert_allclose(found[name], expected[name][rows], rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.fixture(scope="module")
def scores():
    return measure(CELLS)


def test_scores_differ(scores):
    """What the other tests compare is not constant."""
    for name in NAMES:
        finite = scores[name][np.isfinite(scores[name])]
        assert len(finite) >= 2 and len(np.unique(finite)) == len(finite), name


def test_a_score_does_not_depend_on_the_other_architectures(scores):
    order = [3, 0, 4, 2, 1]
    assert_equal(measure(CELLS[order]), scores, order)
    assert_equal(measure(np.repeat(CELLS[1:2], 5, 0)), scores, [1] * 5)
    other = measure(CELLS, key=5)
    assert not np.allclose(other["snip"][:2], scores["snip"][:2], rtol=1e-3)


def test_equal_arguments_give_the_same_functions():
    """So that JAX traces them once; a proxy defined anew under an old name is another one."""
    proxy = PROXIES["naswot"]

    def functions(**changes):
        return subjects.network("nasbench201", NetworkConfig(), (replace(proxy, **changes),), 3)

    assert functions() is functions() is not functions(measure=lambda probe: probe.logits)


def test_a_score_does_not_depend_on_how_many_architectures_and_proxies_there_are(scores):
    assert_equal(measure(CELLS[[3]], ("snip", "naswot")), scores, [3])


def test_a_score_does_not_depend_on_how_many_are_side_by_side(scores):
    """Two at a time, with one left over: a forward and a backward pass, as more take long to compile."""
    found = measure(CELLS, ("naswot", "snip"), width=2)
    for name in found:
        np.testing.assert_allclose(found[name], scores[name], rtol=1e-3, atol=1e-3, err_msg=name)


def test_images_that_do_not_fit():
    with pytest.raises(InputError, match="images of 4x3 do not fit"):
        network(jax.random.key(0), choices(CELLS), IMAGES[:, :, :, :3], LABELS, ("snip",), stages=3)


@pytest.mark.parametrize("normalisation", ["train", "frozen"])
def test_kernels_of_choices_equal_those_of_gates(normalisation):
    images = IMAGES[0, :3]
    found = kernels(jax.random.key(2), choices(CELLS[:3]), images, normalisation=normalisation)
    expected = kernels(jax.random.key(2), SPACE.gates(CELLS[:3]), images, normalisation=normalisation)
    assert found.dtype == np.float32 and found.shape == expected.shape
    for row in range(3):
        largest = np.abs(expected[row]).max()
        np.testing.assert_allclose(found[row], expected[row], rtol=1e-3, atol=1e-4 * largest)
    assert np.abs(expected[0]).max() > 0 and not np.any(expected[2])


@pytest.mark.parametrize("width", [1, 2])
def test_regions_of_choices_equal_those_of_gates(width):
    crops = jax.random.normal(jax.random.key(3), (1000, 3, 3, 1))
    expected = counts(jax.random.key(4), SPACE.gates(CELLS), crops)
    found = counts(jax.random.key(4), choices(CELLS), crops, width=width)
    assert found.dtype == np.int32 and len(set(expected.tolist())) > 2
    np.testing.assert_array_equal(found, expected)


def of_devices(count):
    """Of eight cells, the agreement of patterns and the regions; compared between processes."""
    assert jax.local_device_count() == count
    cells = choices(np.concatenate([CELLS, CELLS[:3]]))
    crops = jax.random.normal(jax.random.key(3), (60, 3, 3, 1))
    agreement = network(jax.random.key(0), cells, IMAGES, LABELS, ("naswot",))["naswot"]
    return [agreement.tolist(), counts(jax.random.key(4), cells, crops).tolist()]


def test_several_devices_share_the_architectures():
    """Eight processors in a process of their own give the numbers of one here."""
    program = "import json, test_subjects; print(json.dumps(test_subjects.of_devices(8)))"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests", Path(__file__).parent))),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8",
    }
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, env=environment
    )
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout) == of_devices(1)
