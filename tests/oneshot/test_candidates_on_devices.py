"""Several devices share the candidates, and give each what one device gives it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jnas import data
from jnas.estimators.inherited import inherited
from jnas.oneshot import posterior
from jnas.oneshot.supernets import SUPERNETS
from jnas.types import Candidates

ROOT = Path(__file__).parents[2]
# A cell by its operations alone, and masks of channels side by side; an odd number of candidates.
NAMES = ["nasbench201", "shake_shake"]


def accuracies(name):
    digits = data.load("digits")
    supernet = SUPERNETS[name](digits.x_train.shape[1:], digits.classes, 1, 1)
    gating = posterior.gating(supernet.sizes, "group")
    estimate = inherited(
        supernet, jax.jit(supernet.init)(jax.random.key(0)), digits, digits.x_test[:40], digits.y_test[:40],
        recalibrate=60, batch=5,
    )  # fmt: skip
    rows = posterior.blind(jax.random.key(1), supernet, gating, 0.9, 5)
    return estimate.evaluate(jax.random.key(2), Candidates(rows)).value[:, 0]


@pytest.fixture(scope="module")
def on_two():
    program = "import json, jax, test_candidates_on_devices as own; assert len(jax.devices()) == 2;"
    program += "print(json.dumps({name: own.accuracies(name).tolist() for name in own.NAMES}))"
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent)]),
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2",
        },
        check=False,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    return json.loads(process.stdout)


@pytest.mark.parametrize("name", NAMES)
def test_two_devices_say_what_one_says(name, on_two):
    alone = accuracies(name)
    assert alone.shape == (5,) and len(np.unique(alone)) > 1
    # An image on the edge between two classes may fall to either side.
    np.testing.assert_allclose(on_two[name], alone, atol=100 / 40 + 1e-9)
