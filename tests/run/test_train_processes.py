"""Real processes that train one network by `jax.distributed`: as one process does with as many devices."""

import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import small_digits
from jnas_processes import PATIENCE_SECONDS, end, start, start_two

CELL = "|nor_conv_1x1~0|+|none~0|skip_connect~1|+|skip_connect~0|none~1|nor_conv_1x1~2|"
ARGUMENTS = [
    "train", "../config.yaml", "--out", "run", "--arch", CELL, "--space", "nasbench201", "--data", "../small.npz",
    "--channels", "4", "--cells_per_stage", "1", "--checkpoint_seconds", "0",
    "--recipe.epochs", "3", "--recipe.batch", "32",
]  # fmt: skip


@pytest.fixture
def work(tmp_path):
    small_digits.write(tmp_path / "small.npz", 200, 70)
    (tmp_path / "config.yaml").write_text("{}\n")
    return tmp_path


def result(work: Path, out: str) -> dict:
    return json.loads((work / out / "run" / "result.json").read_text())


def test_two_processes_that_were_killed_train_as_one_does(work):
    ((status, _, errors),) = end(start(work / "alone", 4, ARGUMENTS))
    assert status == 0, errors

    both, started = start_two(work, ARGUMENTS), time.monotonic()
    while not list((work / "here" / "run" / "checkpoints").glob("[0-9]*")):
        assert time.monotonic() - started < PATIENCE_SECONDS and both[0].poll() is None
        time.sleep(0.01)
    # Both at once: one alone learns only by JAX's heartbeat, after more than a minute, that the other is gone.
    for process in both:
        process.send_signal(signal.SIGKILL)
    end(*both)
    assert not (work / "here" / "run" / "result.json").exists()

    first, second = end(*start_two(work, ARGUMENTS))
    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    assert not list((work / "there").iterdir()) and "on 4 devices" in first[2]
    found, expected = result(work, "here"), result(work, "alone")
    # Sums over devices run in another order between processes.
    for name, curve in expected["curves"].items():
        np.testing.assert_allclose(found["curves"][name], curve, rtol=1e-3, atol=1.5)
    assert found["architecture"] == expected["architecture"]
