"""Real processes of jnas, alone or together by `jax.distributed`, and what they said."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

ROOT = Path(__file__).parents[1]
PATIENCE_SECONDS = 300
# Where SIGINT is ignored, as it is for the background jobs of a shell, Python leaves it so.
RUN = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from jnas.cli import command
command()
"""


def start(folder: Path, devices: int, arguments: Sequence[str]) -> subprocess.Popen:
    """`jnas ARGUMENTS` in a folder, with so many devices."""
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-c", RUN, *arguments],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_two(base: Path, arguments: Sequence[str], of_second: Sequence[str] = ()) -> list[subprocess.Popen]:
    """A command twice, two devices each; one in the folder `here`, one, as if on another machine, in `there`."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    options = [*arguments, "--coordinator", coordinator, "--processes", "2", "--process"]
    return [start(base / "here", 2, [*options, "0"]), start(base / "there", 2, [*options, "1", *of_second])]


def end(*processes: subprocess.Popen) -> list[tuple[int, str, str]]:
    """(exit status, stdout, stderr) of each, all within the time."""
    try:
        texts = [process.communicate(timeout=PATIENCE_SECONDS) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [(process.returncode, *text) for process, text in zip(processes, texts, strict=True)]


def complaint(errors: str) -> str:
    return next((line for line in errors.splitlines() if line.startswith("jnas: ")), errors)
