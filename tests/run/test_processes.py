"""What several processes tell each other, and how they meet."""

import ctypes
import json
import os
import signal

import jax
import numpy as np
import pytest
from jax._src import distributed

from jnas.errors import InputError, RunError
from jnas.run import interruption, processes
from jnas.run.processes import join, together


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
