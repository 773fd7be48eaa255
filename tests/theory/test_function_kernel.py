"""The kernel of any function within a memory, against the Jacobian written out in float64."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from double import float64

from jnas.programs.function import trace
from jnas.theory.function_kernel import kernel, parts

ROOT = Path(__file__).parents[2]
COUNT, CLASSES = 6, 3
IMAGES = jax.random.normal(jax.random.key(0), (COUNT, 5))


def draw():
    keys = jax.random.split(jax.random.key(1), 3)
    return {
        "first": jax.random.normal(keys[0], (5, 8)),
        "scale": 1 + jax.random.normal(keys[1], (8,)) / 4,
        "last": jax.random.normal(keys[2], (8, CLASSES)),
        "bias": jnp.zeros(CLASSES),
    }


def apply(params, x, by_batch):
    h = x @ params["first"]
    if by_batch:
        h = (h - h.mean(0)) * jax.lax.rsqrt(h.var(0) + 1e-5)
    return jax.nn.tanh(h * params["scale"]) @ params["last"] + params["bias"]


def expected(by_batch, logits, parameters):
    exact = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), (draw(), IMAGES))
    with float64():
        params, x = jax.tree.map(jnp.asarray, exact)
        jacobian = jax.jacobian(lambda params: apply(params, x, by_batch))(params)
        own = [v for name, v in jacobian.items() if parameters == "all" or name != "bias"]
        rows = np.concatenate([np.asarray(leaf).reshape(COUNT, CLASSES, -1) for leaf in own], -1)
    if logits == "trace":
        return np.einsum("nop,mop->nm", rows, rows) / CLASSES
    rows = rows.sum(1) if logits == "sum" else rows.reshape(COUNT * CLASSES, -1)
    return rows @ rows.T


@pytest.mark.parametrize("by_batch", [False, True], ids=["each image alone", "by the batch"])
def test_every_contraction_at_every_memory(by_batch):
    params = draw()
    function = trace(lambda p, x: apply(p, x, by_batch), params, IMAGES)
    assert function.couples == by_batch
    for logits in ("sum", "trace", "full"):
        for parameters in ("weights", "all"):
            reference = expected(by_batch, logits, parameters)
            # All at once; a part for each parameter; rows in blocks of one.
            for memory in (1.0, 2e-6, 1e-8):
                options = {"logits": logits, "parameters": parameters, "memory_gb": memory}
                found = kernel(function, params, IMAGES, **options)
                np.testing.assert_allclose(found, reference, rtol=1e-4, atol=1e-4 * np.abs(reference).max())
                assert (found == found.T).all()
                assert np.linalg.eigvalsh(found)[0] > -1e-5 * np.trace(found)


def test_the_diagonal_and_the_blocks():
    params = draw()
    function = trace(lambda p, x: apply(p, x, False), params, IMAGES)
    for memory in (1.0, 1e-8):
        for logits in ("sum", "trace", "full"):
            options = {"logits": logits, "memory_gb": memory}
            whole = kernel(function, params, IMAGES, **options)
            diagonal = kernel(function, params, IMAGES, entries="diagonal", **options)
            np.testing.assert_allclose(diagonal, np.diag(whole), rtol=1e-5)
        blocks = kernel(function, params, IMAGES, logits="full", entries="blocks", memory_gb=memory)
        own = whole.reshape(COUNT, CLASSES, COUNT, CLASSES)
        np.testing.assert_allclose(blocks, [own[n, :, n] for n in range(COUNT)], rtol=1e-4, atol=1e-4)


def test_parts_fit_into_the_memory():
    sizes = [400, 100, 100, 1000, 50]
    cut = list(parts(sizes, [0, 1, 2, 3, 4], images=10, rows=1, memory=5000))
    assert cut == [((0, 1), 10), ((3,), 2), ((2, 4), 10)]
    for part in cut:
        held = sum(sizes[place] for place in part.places) * part.images
        assert held <= 5000 and (part.images == 10 or 2 * held <= 5000)
    assert sorted(place for part in cut for place in part.places) == [0, 1, 2, 3, 4]


def both_kernels():
    """Of images alone and by the batch, on all devices of this process."""
    found = []
    for by_batch in (False, True):
        function = trace(lambda p, x, by_batch=by_batch: apply(p, x, by_batch), draw(), IMAGES)
        found.append(kernel(function, draw(), IMAGES).tolist())
    return found


def test_two_devices_say_what_one_says():
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2"
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    done = subprocess.run(
        [sys.executable, __file__], capture_output=True, text=True, check=False,
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": paths},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    devices, found = json.loads(done.stdout)
    assert devices == 2
    np.testing.assert_allclose(found, both_kernels(), rtol=1e-5, atol=1e-5)


if __name__ == "__main__":
    print(json.dumps([jax.local_device_count(), both_kernels()]))
