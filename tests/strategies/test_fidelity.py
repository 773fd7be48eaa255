"""Successive halving, Hyperband and ASHA against published brackets and the definition of a promotion."""

import functools
import itertools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jnas import spaces
from jnas.run.loop import run
from jnas.strategies import STRATEGIES, archive
from jnas.strategies.hyperband import bracket, brackets, schedule, shares
from jnas.types import STATUSES, Candidates, Values

SPACE = spaces.get("nasbench201")
KEY = jax.random.key(3)
BRACKETED = ("successive_halving", "hyperband", "bohb")
NAMES = (*BRACKETED, "asha")


def noisy(candidates: Candidates, failing: float = 0.0) -> np.ndarray:
    """A value of each training, other for each length; some fail."""
    rows, share = np.asarray(candidates.architectures), np.asarray(candidates.fidelity)
    value = np.array(
        [np.random.default_rng([*row, round(1000 * s)]).random() for row, s in zip(rows, share, strict=True)]
    )
    return np.where(value < failing, -np.inf, value + 10 * (1 - share))


def values_of(column: np.ndarray) -> Values:
    status = np.where(np.isfinite(column), 0, STATUSES.index("failed")).astype(np.int8)
    return Values(column[:, None], status[:, None], np.zeros(len(column)))


@functools.cache
def history(name, batch, budget, failing=0.0):
    """(result, rows, fidelities, values, number of the round) of a search, in the order asked."""
    parts = []

    def evaluate(number, candidates):
        column = noisy(candidates, failing)
        parts.append((candidates.architectures, candidates.fidelity, column, np.full(len(column), number)))
        return values_of(column)

    strategy = STRATEGIES[name](batch=batch).make(SPACE, ("accuracy",), budget)
    result = run(strategy, evaluate, KEY, budget=budget)
    return result, *(np.concatenate(part) for part in zip(*parts, strict=True))


def test_the_brackets_of_the_paper():
    """Li et al., JMLR 2018, table 1: R = 81, eta = 3; each bracket pays at most five times 81."""
    counts = [[count for count, _ in one] for one in brackets(3, 5)]
    assert counts == [[81, 27, 9, 3, 1], [27, 9, 3, 1], [9, 3, 1], [6, 2], [5]]
    lengths = [[81 * float(shares(3, 5)[level]) for _, level in one] for one in brackets(3, 5)]
    np.testing.assert_allclose(lengths[0], [1, 3, 9, 27, 81], rtol=1e-6)
    np.testing.assert_allclose([one[0] for one in lengths], [1, 3, 9, 27, 81], rtol=1e-6)
    for number, length in zip(counts, lengths, strict=True):
        assert np.dot(number, length) <= 5 * 81 * (1 + 1e-6)


def test_the_brackets_of_hpbandster_from_1_to_12_epochs():
    counts = [[count for count, _ in one] for one in brackets(3, 3)]
    assert counts == [[9, 3, 1], [3, 1], [3]]
    epochs = 12 * np.asarray(shares(3, 3))
    np.testing.assert_allclose(epochs, [4 / 3, 4, 12], rtol=1e-6)
    # A cycle: 96 epochs, eight trainings of 12, for 15 architectures.
    assert sum(count * epochs[level] for one in brackets(3, 3) for count, level in one) == pytest.approx(96)
    assert sum(one[0][0] for one in brackets(3, 3)) == 15


@given(st.integers(2, 4), st.integers(1, 4), st.integers(1, 60))
def test_a_bracket_ends_with_full_trainings(eta, rungs, count):
    one = bracket(count, eta, 0, rungs)
    assert [level for _, level in one] == list(range(rungs)) and one[0][0] == count
    assert all(1 <= more[0] <= max(1, less[0] // eta) for less, more in itertools.pairwise(one))


@given(st.integers(2, 4), st.integers(1, 4), st.integers(1, 20), st.integers(1, 120))
@settings(max_examples=40, deadline=None)
def test_a_slot_waits_for_the_rung_below(eta, rungs, batch, slots):
    """Every slot of a rung is asked for once, and after the batch that ends the rung it comes from."""
    plan = schedule(brackets(eta, rungs), batch, slots)
    level, rung, source, rank = (np.asarray(column) for column in plan)
    assert len(level) == slots
    sizes = [size for _ in range(slots) for one in brackets(eta, rungs) for size, _ in one]
    for number in np.unique(rung):
        own = np.flatnonzero(rung == number)
        assert rank[own].tolist() == list(range(len(own))) and len(own) <= sizes[number]
        below = source[own[0]]
        assert (source[own] == below).all()
        if below >= 0:
            before = np.flatnonzero(rung == below)
            assert (
                below == number - 1
                and len(before) == sizes[below]
                and (level[before] + 1 == level[own[0]]).all()
            )
            assert before[-1] // batch < own[0] // batch


@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize("name", BRACKETED)
def test_the_best_of_a_rung_are_promoted(name, batch):
    budget = 70
    result, rows, share, value, _ = history(name, batch, budget)
    cycle = [bracket(9, 3, 0, 3)] if name == "successive_halving" else brackets(3, 3)
    _, rung, source, rank = (np.asarray(column) for column in schedule(cycle, batch, budget))
    assert result.evaluations == budget and share.sum() <= budget
    for slot in np.flatnonzero(source >= 0):
        members = np.flatnonzero(rung == source[slot])
        order = members[np.argsort(-value[members], kind="stable")]
        assert rows[slot].tolist() == rows[order[rank[slot]]].tolist()
        assert share[slot] == pytest.approx(3 * share[members[0]])


@pytest.mark.parametrize("name", BRACKETED)
def test_a_failure_is_not_promoted(name):
    _, rows, share, value, _ = history(name, 1, 70, failing=0.9)
    failed = {(*row, round(9 * s)) for row, s, v in zip(rows, share, value, strict=True) if v == -np.inf}
    cycle = [bracket(9, 3, 0, 3)] if name == "successive_halving" else brackets(3, 3)
    source = np.asarray(schedule(cycle, 1, 70).source)
    promoted = [(*rows[slot], round(3 * share[slot])) for slot in np.flatnonzero(source >= 0)]
    assert failed and not failed & set(promoted)


@pytest.mark.parametrize("batch", [1, 5])
def test_asha_promotes_once_whatever_is_in_the_top_of_its_rung(batch):
    _, rows, share, value, number = history("asha", batch, 130, 0.05)
    level = np.rint(np.log(share) / np.log(3)).astype(int) + 2
    taken = set()
    for slot in range(130):
        told = np.flatnonzero(number < number[slot])
        open_to = []
        for rung in (1, 0):
            members = told[level[told] == rung]
            order = members[np.argsort(-value[members], kind="stable")][: len(members) // 3]
            open_to += [place for place in order if place not in taken and np.isfinite(value[place])]
        if open_to:
            assert rows[slot].tolist() == rows[open_to[0]].tolist() and level[slot] == level[open_to[0]] + 1
            taken.add(open_to[0])
        else:
            assert level[slot] == 0
    assert len(taken) > 30


def test_asha_is_successive_halving_where_a_rung_is_told_at_once():
    """A rung of nine, then as many asks as there are promotions: both train the same architectures as long."""
    halving = STRATEGIES["successive_halving"](batch=1).make(SPACE, ("accuracy",), 13)
    asked = []

    def evaluate(number, candidates):
        asked.append(candidates)
        return values_of(noisy(candidates))

    run(halving, evaluate, KEY, budget=13)
    rung = Candidates(
        np.concatenate([c.architectures for c in asked[:9]]),
        fidelity=np.concatenate([c.fidelity for c in asked[:9]]),
    )
    one = STRATEGIES["asha"]().make(SPACE, ("accuracy",), 13)
    state, _ = one.tell(one.init(KEY), rung, values_of(noisy(rung)))
    for step in (slice(9, 12), slice(12, 13)):
        own = []
        for _ in asked[step]:
            candidates, state = one.ask(KEY, state)
            own.append(candidates)
        for candidates, theirs in zip(own, asked[step], strict=True):
            assert np.array_equal(candidates.architectures, theirs.architectures)
            assert np.array_equal(candidates.fidelity, theirs.fidelity)
            state, _ = one.tell(state, candidates, values_of(noisy(candidates)))
    assert np.array_equal(one.best(state), asked[12].architectures[0])


@pytest.mark.parametrize("name", NAMES)
def test_the_best_is_of_the_longest_trainings(name):
    """Short trainings show ten points more here."""
    result, rows, share, value, _ = history(name, 1, 70)
    full = np.flatnonzero(share == 1)
    assert value.argmax() not in full
    assert result.best.tolist() == rows[full[value[full].argmax()]].tolist()


def test_the_best_before_a_full_training_and_after_it_failed():
    state = archive.empty(4, 6, 1)
    assert archive.longest(state.values, np.zeros(4)).all()
    rows, level = SPACE.all()[:4], np.array([0, 0, 1, 2])
    told = archive.add(state, Candidates(rows), values_of(np.array([5.0, 7.0, 3.0, -np.inf])))
    assert archive.best(told, level).tolist() == rows[2].tolist()
    assert archive.longest(told.values, level).tolist() == [False, False, True, False]
