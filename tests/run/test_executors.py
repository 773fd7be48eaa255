"""Where chunks are evaluated: here, or on a cluster whose machines die."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from jnas.errors import InputError
from jnas.run.evaluate import in_this_process
from jnas.run.executors import runner
from jnas.types import Candidates, Estimator, Values

CHUNKS = [Candidates(architectures=np.full((3, 2), number, np.int32)) for number in range(8)]


def maker(seconds: float = 0.0):
    """Makes an estimator whose values depend on key and architecture; a worker gets it by value."""

    def make() -> Estimator:
        def evaluate(key, candidates):
            time.sleep(seconds)
            value = np.asarray(candidates.architectures)[:, :1] + float(jax.random.uniform(key))
            return Values(value, np.zeros(value.shape, np.int8), np.zeros(len(value)))

        return Estimator(("x",), evaluate, batch=3)

    return make


make = maker()


def test_here_a_chunk_is_computed_when_it_is_asked_for():
    """Each result can be stored before the next is begun."""
    done = []
    estimator = Estimator(("x",), lambda key, chunk: done.append(chunk), batch=3)
    assert runner("local", make) is in_this_process
    results = in_this_process(estimator, jax.random.key(0), CHUNKS)
    for number in range(3):
        assert next(results)[0] == number and len(done) == number + 1


def test_without_ray(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"--executor ray needs Ray: pip install 'jnas\[ray\]'"):
        list(runner("ray", make)(make(), jax.random.key(0), CHUNKS))


def test_an_executor_that_nobody_knows():
    with pytest.raises(InputError, match="unknown executor 'slurm': choose one of local, ray"):
        runner("slurm", make)


def descendants() -> dict[int, bytes]:
    """Command lines of the processes below this one, by id."""
    parents, names = {}, {}
    for entry in Path("/proc").iterdir():
        try:
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            names[int(entry.name)] = (entry / "cmdline").read_bytes()
        except (OSError, ValueError):
            continue

    def below(number: int) -> bool:
        while number in parents:
            number = parents[number]
            if number == os.getpid():
                return True
        return False

    return {number: name for number, name in names.items() if below(number)}


# In a process of its own: Ray forks, which a process with JAX's threads must not.
START = """
import sys
from ray.cluster_utils import Cluster
node = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
cluster.add_node(**node)
print("address", cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@pytest.fixture
def real_cluster(monkeypatch):
    """Two node processes on this machine."""
    ray = pytest.importorskip("ray")
    if not Path("/proc/self/stat").exists():
        pytest.skip("finds the workers' processes in /proc")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    with subprocess.Popen(
        [sys.executable, "-c", START],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        lines = iter(process.stdout.readline, "")
        address = next((line.split()[1] for line in lines if line.startswith("address ")), None)
        if address is None:
            pytest.skip(f"no Ray cluster can be started here: {process.communicate()[1][-300:]}")
        ray.init(address=address, log_to_driver=False, logging_level="error")
        yield ray
        ray.shutdown()
        process.communicate()


# Ray warns of its own plans, and leaves sockets and streams to the garbage collector.
@pytest.mark.filterwarnings("ignore")
def test_a_real_cluster_gives_the_same_numbers_though_a_worker_is_killed(real_cluster):
    key = jax.random.key(3)
    expected = dict(in_this_process(make(), key, CHUNKS))
    values, victim = {}, None
    for number, part in runner("ray", maker(0.2))(make(), key, CHUNKS):
        assert number not in values
        values[number] = part
        if victim is None:
            victim = next(pid for pid, name in descendants().items() if name.startswith(b"ray::_Worker"))
            os.kill(victim, signal.SIGKILL)
    assert victim is not None and sorted(values) == list(range(len(CHUNKS)))
    for number, part in expected.items():
        assert values[number].value.tobytes() == part.value.tobytes()
