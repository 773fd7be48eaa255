"""Real processes that train one network by `jax.distributed`: as one process does with as many devices."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import small_digits

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 300
CELL = "|nor_conv_1x1~0|+|none~0|skip_connect~1|+|skip_connect~0|none~1|nor_conv_1x1~2|"
ARGUMENTS = [
    "--arch", CELL, "--space", "nasbench201", "--data", "small.npz", "--channels", "4", "--cells_per_stage", "1",
    "--checkpoint_seconds", "0", "--recipe.epochs", "3", "--recipe.batch", "32",
]  # fmt: skip


@pytest.fixture
def work(tmp_path):
    small_digits.write(tmp_path / "small.npz", 200, 70)
    (tmp_path / "config.yaml").write_text("{}\n")
    return tmp_path


def start(work: Path, devices: int, out: str, *more: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "jnas", "train", "config.yaml", *ARGUMENTS, "--out", out, *more],
        cwd=work,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_two(work: Path) -> list[subprocess.Popen]:
    """The first trains in `here`; the second is given `there`, and must not make it."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    options = ["--coordinator", coordinator, "--processes", "2", "--process"]
    return [start(work, 2, out, *options, str(number)) for number, out in enumerate(("here", "there"))]


def end(*processes: subprocess.Popen) -> list[tuple[int, str]]:
    """(exit status, stderr) of each, all within the time."""
    try:
        texts = [process.communicate(timeout=PATIENCE_SECONDS)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [(process.returncode, text) for process, text in zip(processes, texts, strict=True)]


def result(work: Path, out: str) -> dict:
    return json.loads((work / out / "result.json").read_text())


def test_two_processes_that_were_killed_train_as_one_does(work):
    ((status, errors),) = end(start(work, 4, "alone"))
    assert status == 0, errors

    both, started = start_two(work), time.monotonic()
    while not list((work / "here" / "checkpoints").glob("[0-9]*")):
        assert time.monotonic() - started < PATIENCE_SECONDS and both[0].poll() is None
        time.sleep(0.01)
    # Both at once: one alone learns only by JAX's heartbeat, after more than a minute, that the other is gone.
    for process in both:
        process.send_signal(signal.SIGKILL)
    end(*both)
    assert not (work / "here" / "result.json").exists()

    first, second = end(*start_two(work))
    assert (first[0], second[0]) == (0, 0), first[1] + second[1]
    assert not (work / "there").exists() and "on 4 devices" in first[1]
    found, expected = result(work, "here"), result(work, "alone")
    # Sums over devices run in another order between processes.
    for name, curve in expected["curves"].items():
        np.testing.assert_allclose(found["curves"][name], curve, rtol=1e-3, atol=1.5)
    assert found["architecture"] == expected["architecture"]
