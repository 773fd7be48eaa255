"""Strategies made of strategies: what they leave as it is, and what they change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_space import toy

from jnas import spaces
from jnas.errors import InputError
from jnas.estimators.scores import looked_up
from jnas.run.loop import run, simulate
from jnas.spaces.subset import subset, where
from jnas.strategies import STRATEGIES, constraint
from jnas.strategies.lemonade import sizes
from jnas.strategies.listed import listed
from jnas.strategies.wraps import REDRAWS, distinct, preselect, warm_up
from jnas.types import Candidates, Values

SPACE = spaces.get("nasbench201")
WORTH = np.asarray((SPACE.all() == np.array([3, 1, 3, 3, 2, 3])).sum(axis=1), np.float32)[:, None]
ESTIMATOR = looked_up(SPACE, ("hill",), WORTH)
KEYS = jax.random.split(jax.random.key(3), 2)


def made(name, budget=60, space=SPACE, **settings):
    return STRATEGIES[name](**settings).make(space, ("hill",), budget)


def asked(strategy, budget=60, space=SPACE, key=KEYS[0]):
    """The architectures of each round, in a search on the number of decisions that are 0."""
    rounds = []

    def evaluate(number, candidates):
        rounds.append(np.asarray(candidates.architectures))
        value = (rounds[-1] == 0).sum(axis=1, keepdims=True).astype(np.float64)
        return Values(value, np.zeros(value.shape, np.int8), np.zeros(len(value)))

    return run(strategy, evaluate, key, budget=budget), rounds


def together(strategy, rounds=60):
    rows, values, _ = simulate(KEYS, strategy=strategy, estimator=ESTIMATOR, rounds=rounds)
    return np.asarray(rows), np.asarray(values)


def classes(rows, space=SPACE):
    return np.asarray(space.index(space.canonical(rows)))


@pytest.mark.parametrize("name", ["tpe", "local", "aging"])
def test_a_wrapper_that_changes_nothing_asks_the_same_bit_for_bit(name):
    plain, _ = together(made(name))
    every = np.ones(SPACE.size, bool)
    affordable_space = constraint.affordable(SPACE, {"params": 1e9})
    wrapped = {
        "one ask": preselect(made(name), ESTIMATOR, 1),
        "no limit": made(name, space=constraint.affordable(SPACE, {"params": 0.0})),
    }
    for how, strategy in wrapped.items():
        assert np.array_equal(together(strategy)[0], plain), how
    # A restriction draws by other numbers; one that all fit asks what the list of all does.
    one, other = (together(made(name, space=space))[0] for space in (affordable_space, subset(SPACE, every)))
    assert np.array_equal(one, other)
    if name == "tpe":
        # It repeats nothing by itself.
        assert np.array_equal(together(distinct(made(name), SPACE, 60))[0], plain)


def test_distinct_asks_for_each_class_once_and_ends_where_the_space_is_used_up():
    space = toy(3, 2, 2)
    strategy = distinct(made("random", 40, space, batch=1), space, 40)
    result, rounds = asked(strategy, 40, space)
    rows = np.concatenate(rounds)
    assert result.evaluations == 12 == len(np.unique(rows, axis=0))
    # The strategy under it would have repeated itself.
    assert (
        len(np.unique(np.concatenate(asked(made("random", 12, space, batch=1), 12, space)[1]), axis=0)) < 12
    )


def test_the_last_round_of_a_used_up_space_is_shorter_on_the_host():
    space = toy(3, 2, 2)
    rows = np.zeros((5, 3), np.int32)
    stubborn = listed(lambda key: rows, 5)._replace(done=lambda state: False)
    result, rounds = asked(distinct(stubborn, space, 40), 40, space)
    assert [len(each) for each in rounds] == [5, 5, 2] and result.evaluations == 12
    assert len(np.unique(np.concatenate(rounds), axis=0)) == 12


def test_a_strategy_that_runs_out_is_asked_for_no_more():
    space = toy(3, 2, 2)
    whole = made("exhaustive", 40, space, batch=5)
    result, rounds = asked(distinct(whole, space, 40), 40, space)
    assert [len(each) for each in rounds] == [5, 5, 2] and result.evaluations == 12


def test_distinct_asks_so_often_before_it_draws():
    space, calls = toy(3, 3), []
    one = np.zeros((1, 2), np.int32)
    counted = listed(lambda key: one, 1)
    counted = counted._replace(
        ask=lambda key, state: calls.append(key) or (Candidates(one), state), done=lambda state: False
    )
    asked(distinct(counted, space, 2), 2, space)
    assert len(calls) == 1 + 1 + REDRAWS


def test_distinct_keeps_a_child_beside_its_parent():
    _, rows = asked(made("distinct", of=STRATEGIES["lemonade"](initial=5, batch=1), budget=30), 30)
    assert len(np.unique(classes(np.concatenate(rows)))) == 30
    known = []

    def evaluate(number, candidates):
        for row, parent in zip(
            np.asarray(candidates.architectures), np.asarray(candidates.parent), strict=True
        ):
            assert parent == -1 or (known[parent] != row).sum() == 1
            known.append(row)
        value = np.zeros((len(candidates.architectures), 1))
        return Values(value, np.zeros(value.shape, np.int8), np.zeros(len(value)))

    run(
        made("distinct", of=STRATEGIES["lemonade"](initial=5, batch=3), budget=30),
        evaluate,
        KEYS[0],
        budget=30,
    )


@pytest.mark.parametrize("name", ["aging", "local", "tree_search"])
def test_a_constraint_asks_for_nothing_that_does_not_fit(name):
    strategy = STRATEGIES["constraint"](of=STRATEGIES[name](), params=0.4, flops=60.0).make(
        SPACE, ("hill",), 60
    )
    assert strategy.name == f"constraint:{name}"
    rows = together(strategy)[0].reshape(-1, 6)
    millions = np.asarray(sizes(SPACE, ["params", "flops"])(rows))
    assert (millions <= np.float32([0.4, 60])).all() and len(np.unique(rows, axis=0)) > 30


def test_a_space_that_is_not_listed_is_drawn_from_until_all_fit(monkeypatch):
    params = sizes(SPACE, ["params"])
    monkeypatch.setattr(constraint, "LISTED", 100)
    small = constraint.affordable(SPACE, {"params": 0.2})
    rows = small.sample(KEYS[0], 64)
    assert (params(rows) <= 0.2).all() and (params(small.mutate(KEYS[1], rows)) <= 0.2).all()
    assert not (params(SPACE.sample(KEYS[0], 64)) <= 0.2).all()
    all_fit = where(SPACE, lambda rows: jnp.ones(jnp.shape(rows)[:-1], bool))
    assert np.array_equal(all_fit.sample(KEYS[0], 8), SPACE.sample(KEYS[0], 8))
    with pytest.raises(InputError, match="raise the limits"):
        constraint.affordable(SPACE, {"params": 1e-6})


def test_a_perfect_proxy_finds_the_best_of_the_pool():
    plain = made("random", 20, batch=5)

    state, key = plain.init(KEYS[0]), KEYS[1]
    strategy = preselect(plain, ESTIMATOR, 7)
    chosen, _ = strategy.ask(key, strategy.init(KEYS[0]))
    keys = [key, *(jax.random.fold_in(key, number) for number in range(1, 7))]
    rows = np.concatenate([np.asarray(plain.ask(each, state)[0].architectures) for each in keys])
    worth = WORTH[np.asarray(SPACE.index(rows)), 0]
    best = np.sort(np.argsort(-worth, kind="stable")[:5])
    assert np.array_equal(chosen.architectures, rows[best])


def test_a_warm_up_evaluates_the_best_by_the_proxy_first():
    strategy = warm_up(made("aging", population=6, tournament=3), SPACE, ESTIMATOR, 500, 6)
    rows, values = together(strategy)
    for own in values[:, :6, 0]:
        # Of 500 random cells six agree on three edges or more.
        assert (own >= 3).all() and (np.diff(own) <= 0).all()
    assert all(len(np.unique(classes(own[:6]))) == 6 for own in rows)
    # What follows are children of these.
    parents = rows[:, :6].reshape(2, 6, 1, 6)
    assert ((parents != rows[:, None, 6:7]).sum(-1).min(axis=1) == 1).all()


@pytest.mark.parametrize("number", [4, 6])
def test_a_strategy_that_counts_its_asks_starts_after_the_warm_up(number):
    space = toy(4, 4, 2)
    proxy = looked_up(space, ("first",), space.all()[:, :1].astype(np.float32))
    whole = made("exhaustive", space=space, batch=4)
    _, rounds = asked(warm_up(whole, space, proxy, 20, number), 16, space)
    own, skipped = np.concatenate(asked(whole, 16, space)[1]), number % 4
    rows = np.concatenate(rounds)
    assert (np.diff(rows[:number, 0]) <= 0).all()
    assert np.array_equal(rows[number:], own[skipped : 16 - number + skipped])


def test_wrappers_of_wrappers():
    of = preselect(made("aging", population=8), ESTIMATOR, 5)
    strategy = warm_up(distinct(of, SPACE, 60), SPACE, ESTIMATOR, 100, 5)
    assert strategy.name == "warm_up:distinct:preselect:aging" and strategy.jittable
    rows, values = together(strategy)
    assert all(len(np.unique(classes(own[5:]))) == 55 for own in rows)
    assert (values.max(axis=(1, 2)) == 6).all()


def test_gates_and_fidelities_are_refused():
    gates = STRATEGIES["pruning"]().make(SPACE, ("ntk",), 5)
    for wrap in (
        lambda: distinct(gates, SPACE, 5),
        lambda: preselect(gates, ESTIMATOR, 2),
        lambda: warm_up(gates, SPACE, ESTIMATOR, 5, 2),
    ):
        with pytest.raises(InputError, match="compares architectures, and pruning asks for gates"):
            wrap()
    halving = made("random", batch=1)
    shares = halving._replace(
        ask=lambda key, state: (halving.ask(key, state)[0]._replace(fidelity=jnp.ones(1)), state)
    )
    with pytest.raises(InputError, match="leave distinct out"):
        asked(distinct(shares, SPACE, 5), 5)
