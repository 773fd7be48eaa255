"""Local search replayed by hand: where it may go next, and when it starts anew."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_space import told, toy

from jnas.run.loop import run, simulate
from jnas.strategies import archive
from jnas.strategies.local import local
from jnas.strategies.settings.evolution import Local
from jnas.types import Estimator, Values

SPACE = toy(4, 3, 3)
WORTH = np.random.default_rng(3).permutation(SPACE.size).reshape(SPACE.decisions)
BUDGET = 30


def neighbours(row):
    return {
        (*row[:place], choice, *row[place + 1 :])
        for place, choices in enumerate(SPACE.decisions)
        for choice in range(choices)
        if choice != row[place]
    }


def worth(row):
    return float(WORTH[row])


def replay(rows, initial, improvement, at_maximum):
    """Check each architecture asked for; returns the local maxima that were left."""
    known, current, starts, maxima = [], None, [], []
    for row in rows:
        if current is None:
            starts.append(row)
        else:
            assert row in neighbours(current) - set(known)
        known.append(row)
        if current is None and len(starts) == initial:
            current, starts = max(starts, key=worth), []
        moved = current is not None
        while moved:
            near = neighbours(current)
            allowed = set(known) - (set(maxima) if at_maximum == "next_best" else set())
            best = max(near & allowed, key=worth, default=None)
            complete = near <= set(known)
            better = best is not None and worth(best) > worth(current)
            moved = False
            if better and (complete or improvement == "first"):
                current, moved = best, True
            elif complete:
                maxima.append(current)
                rest = [other for other in known if other not in maxima]
                current = max(rest, key=worth) if at_maximum == "next_best" and rest else None
                moved = current is not None
    return maxima


@pytest.mark.parametrize("improvement", ["first", "best"])
@pytest.mark.parametrize("at_maximum", ["restart", "next_best"])
def test_neighbours_of_the_current_one_are_asked_for_until_none_is_left(improvement, at_maximum):
    initial = 3 if improvement == "first" else 1
    own = local(SPACE, Local(initial=initial, improvement=improvement, at_maximum=at_maximum), 1, BUDGET)
    # Compiled once for all seeds.
    own = own._replace(ask=jax.jit(own.ask), tell=jax.jit(own.tell), jittable=False)
    total = 0
    for seed in range(4):
        rows = []

        def evaluate(number, candidates, rows=rows):
            rows.append(tuple(np.asarray(candidates.architectures)[0].tolist()))
            return told(worth(rows[-1]))

        run(own, evaluate, jax.random.key(seed), budget=BUDGET)
        maxima = replay(rows, initial, improvement, at_maximum)
        if at_maximum == "restart":
            assert all(worth(row) > max(map(worth, neighbours(row))) for row in maxima)
        total += len(maxima)
    assert total >= 4


@pytest.mark.parametrize(
    "settings",
    [
        Local(initial=3),
        Local(improvement="best", at_maximum="next_best"),
        Local(batch=4, at_maximum="next_best"),
    ],
    ids=["first", "best", "batch"],
)
def test_a_table_of_places_asks_as_comparisons_do(settings, monkeypatch):
    worths = jnp.asarray(WORTH.reshape(-1), jnp.float32)

    def evaluate(key, candidates):
        value = worths[SPACE.index(candidates.architectures)][:, None]
        return Values(value, jnp.zeros(value.shape, jnp.int8), jnp.zeros(len(value)))

    estimator = Estimator(("worth",), evaluate, jittable=True)
    # To the last architecture of the space, and more evaluations than the archive holds.
    rounds, budget = -(-(SPACE.size + 8) // settings.batch), SPACE.size
    asked = []
    for largest in (archive.INDEXED, 0):
        monkeypatch.setattr(archive, "INDEXED", largest)
        strategy = local(SPACE, settings, 1, budget)
        assert (strategy.init(jax.random.key(0)).places is None) == (largest == 0)
        keys = jax.random.split(jax.random.key(1), 8)
        asked.append(simulate(keys, strategy=strategy, estimator=estimator, rounds=rounds)[0])
    np.testing.assert_array_equal(*asked)
