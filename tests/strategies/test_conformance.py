"""Every strategy of the registry, by the loop, on a landscape that can be climbed."""

from functools import cache

import jax
import numpy as np
import pytest
from installed import NAMES

from jnas import spaces
from jnas.estimators.settings import Proxies
from jnas.run.loop import run, size
from jnas.strategies import STRATEGIES
from jnas.types import Candidates, Values

SPACE = spaces.get("nasbench201")
# Edges that agree with one cell, at most 6; of gates their mean.
GOAL = np.array([3, 1, 3, 3, 2, 3])
HILL = np.asarray(SPACE.gates(GOAL))
KEY = jax.random.key(7)
BUDGET = 150
# Surrogates that take long, smaller or for several architectures at a time.
SMALL = {
    "gaussian_process": {"batch": 10},
    "bananas": {"layers": 2, "networks": 2},
    "forest": {"batch": 10, "candidates": 100, "trees": 5},
    "optuna": {"batch": 10},
    "preselect": {"proxy": Proxies(proxies="params")},
    "warm_up": {"proxy": Proxies(proxies="params"), "candidates": 100, "best": 10},
}
OBJECTIVES = {"one": ("hill",), "two": ("hill", "again")}


def worth(candidates: Candidates, objectives: int = 1) -> Values:
    gates = SPACE.gates(candidates.architectures) if candidates.gates is None else candidates.gates
    value = (np.asarray(gates) * HILL).sum((1, 2, 3), dtype=np.float64)
    shape = (len(value), objectives)
    return Values(np.broadcast_to(value[:, None], shape), np.zeros(shape, np.int8), np.zeros(len(value)))


@cache
def made(name, objectives, settings):
    """The strategy, once: its compiled functions serve all tests."""
    return STRATEGIES[name](**(SMALL.get(name, {}) | dict(settings))).make(SPACE, objectives, BUDGET)


def search(name, evaluate=None, key=KEY, budget=BUDGET, objectives=("hill",), **settings):
    """(result, the candidates of each round)."""
    asked = []

    def note(number, candidates):
        assert number == len(asked)
        asked.append(Candidates(*(None if rows is None else np.asarray(rows) for rows in candidates)))
        return (evaluate or (lambda number, c: worth(c, len(objectives))))(number, candidates)

    strategy = made(name, objectives, tuple(settings.items()))
    return run(strategy, note, key, budget=budget), asked


def equal(first, second):
    return len(first) == len(second) and all(
        np.array_equal(a, b)
        for one, other in zip(first, second, strict=True)
        for a, b in zip(one, other, strict=True)
        if a is not None
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("objectives", OBJECTIVES.values(), ids=OBJECTIVES)
def test_it_climbs_within_the_space_and_the_budget(name, objectives):
    result, asked = search(name, objectives=objectives)
    assert result.evaluations == sum(map(size, asked)) <= BUDGET and result.rounds == len(asked)
    assert SPACE.from_string(SPACE.to_string(result.best)).tolist() == result.best.tolist()
    for candidates in asked:
        if candidates.gates is not None:
            assert candidates.gates.shape[1:] == (1, 6, 5)
            np.testing.assert_allclose(candidates.gates.sum(-1), 1, rtol=1e-6)
        else:
            rows = np.asarray(candidates.architectures)
            assert (rows >= 0).all() and (rows < np.array(SPACE.decisions)).all()
            if STRATEGIES[name].asks == "trainings":
                assert ((candidates.fidelity > 0) & (candidates.fidelity <= 1)).all()
    # A cell drawn blindly agrees on 1.2 edges.
    assert (result.best == GOAL).sum() >= 3
    whole = STRATEGIES[name]().make(SPACE, objectives, BUDGET).total
    assert result.evaluations == min(BUDGET, whole or BUDGET)


@pytest.mark.parametrize("name", NAMES)
def test_one_key_gives_one_search_and_another_gives_another(name):
    _, first = search(name, budget=60)
    assert equal(first, search(name, budget=60)[1])
    if STRATEGIES[name].asks != "gates":
        assert not equal(first, search(name, budget=60, key=jax.random.key(8))[1])


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_search_is_the_uninterrupted_one(name):
    stored = []
    whole = search(name, budget=60)
    last = min(2, whole[0].rounds - 1)

    def dies(number, candidates):
        if number == last:
            raise KeyboardInterrupt
        stored.append(worth(candidates))
        return stored[-1]

    with pytest.raises(KeyboardInterrupt):
        search(name, dies, budget=60)
    again = search(name, lambda number, c: stored[number] if number < len(stored) else worth(c), budget=60)
    assert equal(again[1], whole[1]) and again[0].best.tolist() == whole[0].best.tolist()


@pytest.mark.parametrize("name", [name for name in NAMES if STRATEGIES[name].asks != "gates"])
def test_it_recovers_when_everything_fails_at_first(name):
    # So many evaluations fail at first.
    bad, told = (70 if STRATEGIES[name]().make(SPACE, ("hill",), BUDGET).total == 0 else 40), []

    def late(number, candidates):
        values = worth(candidates)
        failed = np.arange(sum(map(len, told)), sum(map(len, told)) + len(values.value)) < bad
        told.append(values.value)
        return values._replace(
            value=np.where(failed[:, None], -np.inf, values.value),
            status=np.where(failed[:, None], 1, 0).astype(np.int8),
        )

    result, asked = search(name, late)
    evaluated = np.concatenate([candidates.architectures for candidates in asked])
    good = (evaluated[bad:] == GOAL).sum(axis=1)
    if asked[0].fidelity is not None:
        # Of the longest trainings alone.
        good = good[np.concatenate([candidates.fidelity for candidates in asked])[bad:] == 1]
    assert (result.best == GOAL).sum() == good.max() >= 2


@pytest.mark.parametrize("name", NAMES)
def test_a_search_where_everything_fails_ends(name):
    def fails(number, candidates):
        values = worth(candidates)
        return values._replace(value=np.full(values.value.shape, -np.inf), status=values.status + 1)

    result, _ = search(name, fails, budget=40)
    assert SPACE.to_string(result.best)


@pytest.mark.parametrize("name", [name for name in NAMES if "batch" in STRATEGIES[name].__struct_fields__])
def test_thirty_at_once_run_as_one_at_a_time_does(name):
    for batch in (1, 30):
        result, asked = search(name, budget=90, batch=batch)
        assert {size(candidates) for candidates in asked} == {batch} and result.evaluations == 90


def test_nothing_is_asked_for_twice_by_evolution_until_the_space_is_used_up():
    _, asked = search("evolution", budget=400)
    rows = np.concatenate([candidates.architectures for candidates in asked])
    assert len(np.unique(rows, axis=0)) == len(rows)
    assert np.array_equal(np.asarray(SPACE.canonical(rows)), rows)


@pytest.mark.parametrize(
    "name", ["tpe", "gaussian_process", "bananas", "forest", "optuna", "lanas", "hill_climbing"]
)
def test_equal_cells_are_asked_for_once(name):
    if name not in NAMES:
        pytest.skip(f"{name} is not installed")
    _, asked = search(name, budget=60)
    rows = np.concatenate([candidates.architectures for candidates in asked])
    assert len(np.unique(np.asarray(SPACE.canonical(rows)), axis=0)) == len(rows)
