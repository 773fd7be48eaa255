"""One program for many architectures: what it computes for one does not depend on how it is asked."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnas import spaces
from jnas.errors import InputError
from jnas.proxies import PROXIES, batch, ntk, regions

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
    measured = jax.device_get(
        batch.network_measurements(
            jax.random.key(key),
            choices(cells),
            IMAGES,
            LABELS,
            proxies=tuple(map(PROXIES.get, proxies)),
            classes=3,
            channels=2,
            cells_per_stage=1,
            stages=1,
            **settings,
        )
    )
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
    programs = batch.network_measurements._cache_size()
    order = [3, 0, 4, 2, 1]
    assert_equal(measure(CELLS[order]), scores, order)
    assert_equal(measure(np.repeat(CELLS[1:2], 5, 0)), scores, [1] * 5)
    # Architectures are data, and so are keys.
    other = measure(CELLS, key=5)
    assert batch.network_measurements._cache_size() == programs
    assert not np.allclose(other["snip"][:2], scores["snip"][:2], rtol=1e-3)


def test_a_score_does_not_depend_on_how_many_architectures_and_proxies_there_are(scores):
    assert_equal(measure(CELLS[[3]], ("snip", "naswot")), scores, [3])


def test_a_score_does_not_depend_on_how_many_are_side_by_side(scores):
    """Two at a time, with one left over: a forward and a backward pass, as more take long to compile."""
    found = measure(CELLS, ("naswot", "snip"), width=2)
    for name in found:
        np.testing.assert_allclose(found[name], scores[name], rtol=1e-3, atol=1e-3, err_msg=name)


def test_images_that_do_not_fit():
    with pytest.raises(InputError, match="images of 4x3 do not fit"):
        batch.network_measurements(
            jax.random.key(0), choices(CELLS), IMAGES[:, :, :, :3], LABELS,
            proxies=(PROXIES["snip"],), classes=3, channels=1, cells_per_stage=1,
        )  # fmt: skip


@pytest.mark.parametrize(("normalisation", "logits", "width"), [("train", "sum", 1), ("frozen", "sum", 1)])
def test_kernels_of_choices_equal_those_of_gates(normalisation, logits, width):
    settings = {"classes": 3, "channels": 1, "normalisation": normalisation, "logits": logits}
    images = IMAGES[0, :3]
    found = batch.kernel_measurements(jax.random.key(2), choices(CELLS[:3]), images, width=width, **settings)
    gates = SPACE.gates(CELLS[:3])
    expected = np.asarray(ntk.kernels(jax.random.key(2), gates, jnp.int32(3), images, **settings))
    assert found.dtype == jnp.float32 and found.shape == expected.shape
    for row in range(3):
        largest = np.abs(expected[row]).max()
        np.testing.assert_allclose(found[row], expected[row], rtol=1e-3, atol=1e-4 * largest)
    assert np.abs(expected[0]).max() > 0 and not np.any(expected[2])


@pytest.mark.parametrize("width", [1, 2])
def test_regions_of_choices_equal_those_of_gates(width):
    crops = jax.random.normal(jax.random.key(3), (1000, 3, 3, 1))
    expected = np.asarray(regions.counts(jax.random.key(4), SPACE.gates(CELLS), jnp.int32(5), crops))
    found = batch.region_measurements(jax.random.key(4), choices(CELLS), crops, width=width)
    assert found.dtype == jnp.int32 and len(set(expected.tolist())) > 2
    np.testing.assert_array_equal(found, expected)


def test_several_devices_share_the_architectures():
    """Eight processors in a process of their own give the numbers of one here."""
    cells = np.concatenate([CELLS, CELLS[:3]])
    crops = jax.random.normal(jax.random.key(3), (60, 3, 3, 1))
    program = f"""
        import json
        import jax, jax.numpy as jnp, numpy as np
        from jax.sharding import Mesh
        from jnas.proxies import PROXIES, batch

        devices = jax.local_devices()
        assert len(devices) == 8
        mesh = Mesh(np.array(devices), (AXIS,))
        choices = jnp.array({cells.tolist()}, jnp.int32)[:, None]
        found = batch.network_measurements(
            jax.random.key(0), choices,
            jax.random.normal(jax.random.key(1), (1, 4, 4, 4, 1)), jnp.array([[0, 1, 2, 0]], jnp.int32),
            proxies=(PROXIES["naswot"],), classes=3, channels=2, cells_per_stage=1, stages=1, mesh=mesh,
        )["naswot"]
        assert len(found.sharding.device_set) == 8
        crops = jax.random.normal(jax.random.key(3), (60, 3, 3, 1))
        counted = batch.region_measurements(jax.random.key(4), choices, crops, mesh=mesh)
        print(json.dumps([found.tolist(), counted.tolist()]))
    """
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
    }
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert process.returncode == 0, process.stderr
    agreement, counted = map(np.array, json.loads(process.stdout))
    expected = batch.network_measurements(
        jax.random.key(0), choices(cells), IMAGES, LABELS, proxies=(PROXIES["naswot"],), classes=3, channels=2,
        cells_per_stage=1, stages=1,
    )  # fmt: skip
    np.testing.assert_array_equal(agreement, expected["naswot"])
    np.testing.assert_array_equal(
        counted, batch.region_measurements(jax.random.key(4), choices(cells), crops)
    )
