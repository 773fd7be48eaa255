"""States of strategies on disk: any strategy goes on as if it had not stopped; other files are refused in one line."""

from types import SimpleNamespace
from typing import NamedTuple

import jax
import numpy as np
import pytest
from installed import NAMES

import jnas
from jnas import spaces
from jnas.errors import InputError
from jnas.estimators.settings import Proxies
from jnas.strategies import STRATEGIES
from jnas.types import Strategy, Values

SPACE = spaces.get("nasbench201")
GOAL = np.array([3, 1, 3, 3, 2, 3])
HILL = np.asarray(SPACE.gates(GOAL))
KEY = jax.random.key(3)
# Small: what is stored matters here, not what is found.
SMALL = {
    "bananas": {"layers": 2, "networks": 2, "batch": 5, "initial": 5},
    "forest": {"candidates": 30, "trees": 3, "initial": 2},
    "gaussian_process": {"initial": 2, "candidates": 30},
    "policy_gradient": {"batch": 4, "units": 5},
    "lemonade": {"initial": 2, "batch": 2, "children": 10},
    "evolution": {"children": 5},
    "exhaustive": {"batch": 7},
    "preselect": {"proxy": Proxies(proxies="params")},
    "warm_up": {"proxy": Proxies(proxies="params"), "candidates": 20, "best": 5},
}


def made(name, objectives=("hill",), budget=40):
    return STRATEGIES[name](**SMALL.get(name, {})).make(SPACE, objectives, budget)


def told(candidates):
    gates = SPACE.gates(candidates.architectures) if candidates.gates is None else candidates.gates
    value = (np.asarray(gates) * HILL).sum((1, 2, 3), dtype=np.float64)[:, None]
    return Values(value, np.zeros(value.shape, np.int8), np.zeros(len(value)))


def bits(leaf):
    is_key = isinstance(leaf, jax.Array) and jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


def rounds(strategy, state, numbers):
    """(the candidates of some rounds, the state after them)."""
    asked = []
    for number in numbers:
        if strategy.done(state):
            break
        candidates, state = strategy.ask(jax.random.fold_in(KEY, number), state)
        state, _ = strategy.tell(state, candidates, told(candidates))
        asked.append(candidates)
    return asked, state


@pytest.mark.parametrize("name", NAMES)
def test_it_goes_on_as_if_it_had_not_stopped(name, tmp_path):
    strategy = made(name, budget=12)
    _, state = rounds(strategy, strategy.init(KEY), range(2))
    path = tmp_path / "state.npz"
    jnas.save_state(path, strategy, state)
    again = jnas.load_state(path, made(name, budget=12))
    assert jax.tree.structure(again) == jax.tree.structure(state)
    for one, other in zip(map(bits, jax.tree.leaves(state)), map(bits, jax.tree.leaves(again)), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    first, second = (rounds(strategy, each, range(2, 3))[0] for each in (state, again))
    for one, other in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(strategy.best(state), strategy.best(again))


def test_a_fresh_state_is_stored_too(tmp_path):
    for name in ("draw", "exhaustive", "aging"):
        strategy = made(name)
        jnas.save_state(tmp_path / name, strategy, strategy.init(KEY))
        again = jnas.load_state(tmp_path / name, strategy)
        for one, other in zip(jax.tree.leaves(strategy.init(KEY)), jax.tree.leaves(again), strict=True):
            np.testing.assert_array_equal(one, other)


class Keyed(NamedTuple):
    key: jax.Array
    count: int
    share: float


def test_keys_and_numbers_keep_their_kinds(tmp_path):
    strategy = Strategy("own", lambda key: Keyed(key, 0, 0.5), None, None, None, None)
    jnas.save_state(tmp_path / "own", strategy, Keyed(jax.random.key(9), 4, 0.25))
    again = jnas.load_state(tmp_path / "own", strategy)
    assert type(again.count) is int and (again.count, again.share) == (4, 0.25)
    assert jax.random.bits(again.key) == jax.random.bits(jax.random.key(9))


def test_what_is_no_array_is_refused(tmp_path):
    strategy = Strategy("own", lambda key: {"model": SimpleNamespace(fitted=False)}, *[None] * 4)
    with pytest.raises(InputError, match=r"SimpleNamespace at .*keep arrays"):
        jnas.save_state(tmp_path / "own", strategy, {"model": SimpleNamespace(fitted=True)})
    assert not (tmp_path / "own").exists()


def test_other_files_are_refused_in_one_line(tmp_path):
    strategy = made("aging")
    path = tmp_path / "state.npz"
    jnas.save_state(path, strategy, strategy.init(KEY))
    for other, fault in (
        (made("tpe"), "is a state of aging, not of tpe"),
        (made("aging", budget=41), "another space, budget"),
        (made("aging", ("a", "b")), "another space, budget"),
    ):
        with pytest.raises(InputError, match=fault) as raised:
            jnas.load_state(path, other)
        assert "\n" not in str(raised.value)
    with pytest.raises(InputError, match="no state"):
        jnas.load_state(tmp_path / "absent", strategy)
    content = path.read_bytes()
    table = tmp_path / "table.npz"
    np.savez(table, accuracy=np.zeros(3))
    for bad in (content[: len(content) // 2], b"", b"architecture,test_acc\n", table.read_bytes()):
        path.write_bytes(bad)
        with pytest.raises(InputError, match="damaged or no state") as raised:
            jnas.load_state(path, strategy)
        assert "\n" not in str(raised.value)
