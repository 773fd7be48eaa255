"""Evolution against a population kept by hand."""

import jax
import numpy as np
import pytest
from toy_space import told, toy

from jnas import spaces
from jnas.run.loop import run
from jnas.strategies.aging import aging
from jnas.strategies.offspring import crossed, mutants
from jnas.strategies.settings.evolution import Aging

SPACE = toy(5, 4, 4, 3)
KEY = jax.random.key(5)
WORTH = np.random.default_rng(2).normal(size=SPACE.decisions).astype(np.float32)
SIZE, BUDGET = 5, 60


def search(evaluate=lambda row: WORTH[tuple(row)], **settings):
    """(architectures, values) in the order in which they were asked for."""
    rows, values = [], []

    def tell(number, candidates):
        rows.append(np.asarray(candidates.architectures)[0])
        values.append(evaluate(rows[-1]))
        return told(values[-1])

    run(aging(SPACE, Aging(population=SIZE, **settings), 1, BUDGET), tell, KEY, budget=BUDGET)
    return np.array(rows), np.array(values)


def populations(values, removal):
    """Members before each evaluation."""
    members = []
    for number, value in enumerate(values):
        yield list(members)
        members.append(number)
        if len(members) > SIZE and removal != "none":
            worst = min(reversed(members), key=lambda row: values[row])
            members.remove(members[0] if removal == "oldest" else worst)
        del value


def differences(row, others):
    return (np.asarray(others) != row).sum(axis=-1)


@pytest.mark.parametrize("removal", ["oldest", "worst", "none"])
def test_the_child_of_a_tournament_of_everybody_is_a_mutant_of_the_best_member(removal):
    # A member is missing from a tournament with a chance of (4/5)^300.
    rows, values = search(removal=removal, tournament=300)
    for number, members in enumerate(populations(values, removal)):
        if number >= SIZE:
            best = max(members, key=lambda row: values[row])
            assert differences(rows[number], rows[best]) == 1
    assert len(np.unique(rows, axis=0)) > 2 * SIZE


def test_truncation_breeds_from_any_of_the_best_members():
    rows, values = search(truncation=2, removal="worst")
    parents = set()
    for number, members in enumerate(populations(values, "worst")):
        if number >= SIZE:
            best = sorted(members, key=lambda row: -values[row])[:2]
            away = differences(rows[number], rows[best])
            assert away.min() == 1
            parents.add(int(np.argmin(away)))
    assert parents == {0, 1}


def test_a_child_of_two_parents_has_decisions_of_members_alone():
    rows, values = search(crossover=1.0)
    for number, members in enumerate(populations(values, "oldest")):
        if number >= SIZE:
            assert (rows[members] == rows[number]).any(axis=0).all()


def test_failures_are_no_parents():
    rows, _ = search(lambda row: -np.inf, tournament=1)
    # Random architectures: three decisions of four differ from the one before, on average.
    away = np.array([differences(*pair) for pair in zip(rows[SIZE:], rows[SIZE - 1 :], strict=False)])
    assert away.mean() > 2


def test_a_rate_is_the_chance_of_each_decision():
    space = spaces.get("nasbench201")
    parents = np.asarray(space.sample(KEY, 4000))
    children = np.asarray(jax.jit(lambda key, rows: mutants(space, key, rows, 0.25))(KEY, parents))
    changed = children != parents
    # A quarter, and 0.75^6 stay as they are; five standard deviations.
    assert abs(changed.mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / changed.size)
    assert abs((~changed.any(axis=1)).mean() - 0.75**6) < 5 * np.sqrt(0.178 * 0.822 / 4000)
    assert (children >= 0).all() and (children < 5).all()
    counts = np.bincount((children - parents)[changed] % 5, minlength=5)
    assert counts[0] == 0 and counts[1:].min() > 0.9 * counts[1:].mean()


def test_crossover_takes_half_of_each_parent():
    zeros, ones = np.zeros((2000, 4), np.int32), np.ones((2000, 4), np.int32)
    children = np.asarray(crossed(SPACE, KEY, zeros, ones))
    assert set(np.unique(children)) == {0, 1} and abs(children.mean() - 0.5) < 0.03
