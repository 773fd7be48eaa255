"""Where chunks are computed: here, in several processes, or on a cluster whose machines die.

A stand-in for Ray, driven step by step, shows what happens to a chunk whose worker dies; one test runs on a
real cluster of several node processes, and kills one of its workers.
"""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax._src import distributed

from jnas import data as datasets
from jnas import spaces
from jnas.config import score as scoring_config
from jnas.data.base import dataset as make_dataset
from jnas.errors import InputError, RunError
from jnas.run import executors, interruption, processes, scoring
from jnas.run.executors import ATTEMPTS, run_chunks, worker_count
from jnas.run.processes import join, together

SPACE = spaces.get("nasbench201")
CONFIG = scoring_config.from_mapping({"network": {"channels": 1, "cells_per_stage": 1, "batch": 4}})
IMAGES = np.random.default_rng(0).random((20, 8, 8, 1), np.float32)
DATA = make_dataset("few", IMAGES, np.arange(20) % 2, IMAGES, np.arange(20) % 2)
CHUNKS = [SPACE.all()[start : start + 3] for start in range(0, 21, 3)]


def code(architectures: np.ndarray) -> np.ndarray:
    return architectures @ 5.0 ** np.arange(6) / 7


@pytest.fixture
def scorer(monkeypatch):
    """Stands in for the compiled scores; gives the list of what it was made for."""
    made = []

    def chunk_scorer(config, proxies, dataset):
        made.append((config, tuple(proxies), dataset))
        return lambda chunk: {name: (code(chunk), ["ok"] * len(chunk)) for name in proxies}

    monkeypatch.setattr(scoring, "chunk_scorer", chunk_scorer)
    monkeypatch.setattr(executors, "enable_compilation_cache", lambda: None)
    return made


def check_all(results, proxies=("swap",)) -> None:
    """Each chunk once, with its own values."""
    assert sorted(index for index, _ in results) == list(range(len(CHUNKS)))
    for index, scores in results:
        assert tuple(scores) == tuple(proxies)
        assert scores["swap"][0].tolist() == code(CHUNKS[index]).tolist()


def test_here(scorer):
    results = list(run_chunks("local", CONFIG, ["swap"], DATA, CHUNKS))
    assert [index for index, _ in results] == list(range(len(CHUNKS)))
    check_all(results)
    # Made, and so compiled, once.
    assert scorer == [(CONFIG, ("swap",), DATA)]


def test_here_a_chunk_is_computed_when_it_is_asked_for(monkeypatch):
    """Each result can be stored before the next is begun."""
    done = []
    monkeypatch.setattr(scoring, "chunk_scorer", lambda *_: lambda chunk: done.append(len(chunk)))
    results = run_chunks("local", CONFIG, ["swap"], DATA, CHUNKS)
    for number in range(1, 4):
        next(results)
        assert len(done) == number


def test_without_ray(monkeypatch, scorer):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"--executor ray needs Ray: pip install 'jnas\[ray\]'"):
        list(run_chunks("ray", CONFIG, ["swap"], DATA, CHUNKS))


# ------------------------------------------------------------------------------------------- a stand-in for Ray


class RayActorError(Exception):
    pass


class RayTaskError(Exception):
    """As Ray's: the text is the worker's traceback, the cause is what was raised there."""

    def __init__(self, cause):
        super().__init__(f"ray::Worker.score() (pid=1)\n  File 'x', line 1\n{type(cause).__name__}: {cause}")
        self.cause = cause

    def as_instanceof_cause(self):
        mixed = type("RayTaskError(cause)", (RayTaskError, type(self.cause)), {"__init__": lambda *_: None})()
        mixed.args, mixed.cause = self.args, self.cause
        return mixed


class Cluster:
    """Workers that compute when their result is waited for; `dies(worker, call)` says which calls are lost."""

    def __init__(self, nodes=3, gpus=0, dies=lambda worker, call: False):
        self.nodes_alive, self.gpus, self.dies = nodes, gpus, dies
        self.workers, self.killed, self.options, self.calls = 0, [], {}, 0
        self.exceptions = SimpleNamespace(RayActorError=RayActorError, RayTaskError=RayTaskError)

    def is_initialized(self):
        return True

    def cluster_resources(self):
        return {"CPU": 4.0 * self.nodes_alive, **({"GPU": float(self.gpus)} if self.gpus else {})}

    def nodes(self):
        return [{"Alive": True}] * self.nodes_alive + [{"Alive": False}]

    def put(self, value):
        return value

    def remote(self, *arguments, **options):
        self.options = {**self.options, **options}

        def decorate(kind):
            def make(*arguments):
                self.workers += 1
                return _Handle(self, self.workers, lambda: kind(*arguments))

            def options(**more):
                self.options = {**self.options, **more}
                return SimpleNamespace(remote=make)

            return SimpleNamespace(remote=make, options=options)

        return decorate(*arguments) if arguments else decorate

    def wait(self, references, num_returns=1, **options):
        # The youngest first: nothing may rely on the order.
        return references[-num_returns:], references[:-num_returns]

    def get(self, reference):
        return reference()

    def kill(self, worker, **options):
        self.killed.append(worker.number)


class _Handle:
    def __init__(self, cluster, number, make):
        self.number, self._cluster, self._make, self._actor = number, cluster, make, None
        self.score = SimpleNamespace(remote=self._score)

    def _score(self, chunk):
        cluster = self._cluster
        cluster.calls += 1
        call = cluster.calls

        def compute():
            if cluster.dies(self.number, call):
                raise RayActorError("the worker died")
            try:
                self._actor = self._actor or self._make()
            except Exception as error:
                # A worker that cannot be made is a dead one to Ray; the cause is in the text alone.
                raise RayActorError(f"error raised in its creation task, {error!r}") from error
            try:
                return self._actor.score(chunk)
            except Exception as error:
                raise RayTaskError(error) from error

        return compute


@pytest.fixture
def cluster(monkeypatch, scorer):
    def install(**options):
        stand_in = Cluster(**options)
        monkeypatch.setitem(sys.modules, "ray", stand_in)
        return stand_in

    return install


def on_ray(chunks=CHUNKS, config=CONFIG, data=DATA):
    return list(run_chunks("ray", config, ["swap"], data, chunks))


def test_every_chunk_comes_back_once(cluster, scorer):
    ray = cluster(nodes=3)
    check_all(on_ray())
    assert ray.workers == 3 and ray.calls == len(CHUNKS)
    # Each worker compiles once, for what was asked.
    assert scorer == [(CONFIG, ("swap",), DATA)] * 3


@pytest.mark.parametrize("nodes, gpus, expected", [(1, 0, 1), (3, 0, 3), (3, 2, 2), (2, 4, 4), (50, 0, 7)])
def test_a_worker_for_each_gpu_or_node_but_none_without_work(cluster, nodes, gpus, expected):
    ray = cluster(nodes=nodes, gpus=gpus)
    check_all(on_ray())
    assert ray.workers == expected


def test_a_worker_on_a_gpu_reserves_it(cluster):
    """Ray hides the GPUs from whatever did not ask for one."""
    ray = cluster(nodes=1, gpus=2)
    check_all(on_ray())
    assert ray.options.get("num_gpus") == 1


@pytest.mark.parametrize("gpus", [0, 2])
def test_workers_are_spread_over_the_nodes(cluster, gpus):
    ray = cluster(nodes=2, gpus=gpus)
    check_all(on_ray())
    assert ray.options.get("scheduling_strategy") == "SPREAD"


def test_a_worker_keeps_what_it_compiles_before_it_compiles(cluster, scorer, monkeypatch):
    before = []
    monkeypatch.setattr(executors, "enable_compilation_cache", lambda: before.append(len(scorer)))
    cluster(nodes=3)
    check_all(on_ray())
    assert before == [0, 1, 2] and len(scorer) == 3


@pytest.mark.parametrize("nodes, gpus, chunks, expected", [(3, 0, 7, 3), (3, 2, 7, 2), (9, 0, 7, 7)])
def test_how_many_work_at_once(cluster, nodes, gpus, chunks, expected):
    cluster(nodes=nodes, gpus=gpus)
    assert worker_count("ray", chunks) == expected
    assert worker_count("local", chunks) == worker_count("ray", 1) == 1


@pytest.mark.parametrize("lost", [{1}, {2}, {7}, {1, 2, 3}, {3, 5, 7, 8}])
def test_chunks_of_dead_workers_are_computed_elsewhere(cluster, lost):
    ray = cluster(nodes=3, dies=lambda worker, call: call in lost)
    check_all(on_ray())
    assert ray.calls == len(CHUNKS) + len(lost)


def test_a_node_that_is_gone_for_good(cluster):
    ray = cluster(nodes=2, dies=lambda worker, call: worker == 1)
    check_all(on_ray())
    assert ray.workers == 3


def test_a_chunk_that_kills_every_worker_ends_the_run_with_one_line(cluster):
    ray = cluster(nodes=2, dies=lambda worker, call: True)
    with pytest.raises(
        RunError, match=f"worker died {ATTEMPTS} times on the same batch.*more memory"
    ) as raised:
        on_ray()
    assert "\n" not in str(raised.value)
    assert ATTEMPTS <= ray.calls < 2 * ATTEMPTS
    # Nobody goes on working for nothing.
    assert ray.killed


def test_what_is_wrong_with_the_input_is_said_in_one_line(cluster, monkeypatch):
    def chunk_scorer(*arguments):
        def run(chunk):
            raise InputError("images of 7x6 do not fit")

        return run

    monkeypatch.setattr(scoring, "chunk_scorer", chunk_scorer)
    cluster()
    with pytest.raises(InputError) as raised:
        on_ray()
    assert str(raised.value) == "images of 7x6 do not fit"


def test_a_worker_that_cannot_begin_is_no_lack_of_memory(cluster, monkeypatch):
    """Such as one on a machine where something is not installed."""

    def chunk_scorer(*arguments):
        raise ImportError("No module named 'flax'")

    monkeypatch.setattr(scoring, "chunk_scorer", chunk_scorer)
    cluster()
    with pytest.raises(Exception, match="No module named 'flax'"):
        on_ray()


def test_an_interruption_stops_the_workers(cluster):
    ray = cluster(nodes=3)
    results = run_chunks("ray", CONFIG, ["swap"], DATA, CHUNKS)
    next(results)
    results.close()
    assert len(set(ray.killed)) == 3


# --------------------------------------------------------------------------------------------- several processes


class Store(dict):
    """Stands in for the client of JAX's coordination service; `waiting` happens when a key is not there yet."""

    def __init__(self):
        self.waiting = lambda: pytest.fail("waits for a key that nobody writes")

    def key_value_set(self, key, text):
        assert key not in self
        self[key] = text

    def blocking_key_value_get(self, key, milliseconds):
        if key not in self:
            self.waiting()
            raise jax.errors.JaxRuntimeError(f"DEADLINE_EXCEEDED: no {key}")
        return self[key]

    def key_value_dir_get(self, folder):
        return [(key, text) for key, text in self.items() if key.startswith(folder)]

    def key_value_delete(self, key):
        del self[key]


@pytest.fixture
def store(monkeypatch):
    """This process is the first of two."""
    stand_in = Store()
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: 0)
    monkeypatch.setattr(distributed.global_state, "client", stand_in)
    monkeypatch.setattr(processes, "_meetings", iter("ab"))
    return stand_in


def test_a_process_by_itself_has_nobody_to_agree_with():
    with together() as everyone:
        assert everyone is None


def test_what_each_process_says_is_told_to_all(store):
    odd = [0.1, float("nan"), float("-inf"), -0.0, 5e-324]
    store.update({"jnas/a/0/1": json.dumps(odd), "jnas/a/1/1": '"b"', "jnas/a/2/1": "null"})
    with together() as everyone:
        mine, other = everyone([1, "a"])
        assert mine == [1, "a"] and np.array(other).tobytes() == np.array(odd).tobytes()
        assert everyone(None) == [None, "b"]
    # What all have read is gone, but for the last step, which the others may still read.
    assert [key for key in store if key.endswith("/0")] == ["jnas/a/2/0"]
    # The next work has nothing to do with this one.
    store["jnas/b/0/1"] = "3"
    store["jnas/b/1/1"] = "null"
    with together() as everyone:
        assert everyone(2) == [2, 3]


def test_nobody_is_done_before_all_are(store):
    """A full disk after the last chunk is told as well."""
    store.waiting = lambda: store.update({"jnas/a/failed/1": "failed: the disk is full"})
    told = r"^process 1 of 2 failed: the disk is full; nothing .* in all of them$"
    with pytest.raises(RunError, match=told), together():
        pass
    assert "jnas/a/failed/0" not in store


@pytest.mark.parametrize(
    "error, told",
    [
        (KeyboardInterrupt(), "was interrupted"),
        (InputError("no file 'x': give one"), "failed: no file 'x': give one"),
        (ZeroDivisionError("by\nzero"), "failed: ZeroDivisionError: by zero"),
    ],
    ids=repr,
)
def test_what_ends_one_process_is_told_to_the_others(store, error, told):
    with pytest.raises(type(error)), together():
        raise error
    assert store == {"jnas/a/failed/0": told}


def test_a_process_that_waits_can_be_interrupted(store, monkeypatch):
    with interruption.interruptible():
        store.waiting = interruption._asked.set
        with pytest.raises(KeyboardInterrupt), together() as everyone:
            everyone(1)
    assert store["jnas/a/failed/0"] == "was interrupted"


def test_a_coordinator_that_is_gone(store):
    def gone():
        raise jax.errors.JaxRuntimeError("UNAVAILABLE: failed to connect")

    store.waiting = gone
    said = r"cannot be reached \(.*UNAVAILABLE.*\): run the same command again"
    with pytest.raises(RunError, match=said), together() as everyone:
        everyone(1)


@pytest.fixture
def initialised(monkeypatch):
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **arguments: calls.append(arguments))
    return calls


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("host:1", None, "0"), "--processes is missing: with --coordinator HOST:PORT give --processes N"),
        (("host:1", "2", None), "--process is missing"),
        (("host:1", "two", "0"), "--processes is 'two'"),
        (("host:1", "2", "-1"), "--process is '-1'"),
        (("host:1", "2", "2"), "--process is 2: with --processes 2 give a smaller number"),
        (("host", "2", "0"), "--coordinator is 'host': give HOST:PORT of process 0, or auto"),
        (("host:", "2", "0"), "--coordinator is 'host:'"),
        ((":80", "2", "0"), "--coordinator is ':80'"),
    ],
)
def test_wrong_options_of_a_process(initialised, arguments, message):
    with pytest.raises(InputError, match=message):
        join(*arguments)
    assert initialised == []


def test_joining_is_as_in_jax(initialised):
    join("host:8476", "4", "3")
    join("auto", None, None)
    assert initialised == [
        {
            "coordinator_address": "host:8476",
            "num_processes": 4,
            "process_id": 3,
            "cluster_detection_method": "deactivate",
        },
        {},
    ]


def test_joining_leaves_the_signals_as_they_were(monkeypatch):
    """JAX takes SIGTERM for itself, behind Python's back."""
    libc = ctypes.CDLL(None)
    monkeypatch.setattr(jax.distributed, "initialize", lambda: libc.signal(int(signal.SIGTERM), 1))
    with interruption.interruptible():
        join("auto", None, None)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(
    "raised, kind, message",
    [
        (ValueError("coordinator_address should be defined."), InputError, "auto finds no cluster that JAX"),
        (
            jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED: 1/2"),
            RunError,
            "did not meet at auto .*1/2.*: start all",
        ),
    ],
)
def test_a_cluster_that_does_not_come_together(monkeypatch, raised, kind, message):
    def initialize():
        raise raised

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(kind, match=message):
        join("auto", None, None)


# ---------------------------------------------------------------------------------------------- a real cluster


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


def nodes_with_workers() -> set[int]:
    """Ids of the node processes that have a worker."""
    found = set()
    for number, name in descendants().items():
        if name.startswith(b"ray::_Worker"):
            # It may be gone by now.
            with contextlib.suppress(OSError):
                found.add(int(Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[1]))
    return found


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
    data, size = datasets.load("digits"), 16
    cells = SPACE.all()[3000 : 3000 + 12 * size]
    chunks = [cells[start : start + size] for start in range(0, len(cells), size)]
    expected = dict(run_chunks("local", CONFIG, ["swap"], data, chunks))
    found, victim, nodes = {}, None, set()
    for index, scores in run_chunks("ray", CONFIG, ["swap"], data, chunks):
        assert index not in found
        found[index] = scores
        nodes |= nodes_with_workers()
        if victim is None:
            victim = next(
                number for number, name in descendants().items() if name.startswith(b"ray::_Worker")
            )
            os.kill(victim, signal.SIGKILL)
            # A dead process without a command line may wait for its parent's notice.
            while descendants().get(victim):
                time.sleep(0.01)
    assert len(nodes) == 2
    assert victim is not None and sorted(found) == list(range(len(chunks)))
    for index, scores in expected.items():
        for name, (values, statuses) in scores.items():
            assert found[index][name][0].tobytes() == values.tobytes()
            assert list(found[index][name][1]) == list(statuses)
