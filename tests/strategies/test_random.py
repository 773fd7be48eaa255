"""Random and exhaustive search: each class alike, each architecture once."""

import jax
import numpy as np
from toy_space import told, toy

from jnas import spaces
from jnas.run.loop import run
from jnas.spaces.subset import subset
from jnas.strategies.exhaustive import exhaustive
from jnas.strategies.random import random
from jnas.strategies.settings.sampling import Exhaustive, Random


def test_canonical_draws_are_representatives_each_as_often_as_any_other():
    space = spaces.get("nasbench201")
    own = random(space, Random(uniform="canonical", batch=20_000), 1, 20_000)
    rows = np.asarray(own.ask(jax.random.key(0), own.init(jax.random.key(0)))[0].architectures)
    np.testing.assert_array_equal(space.canonical(rows), rows)
    # Of 6,466 classes, those that draws with equal chances hit; the standard deviation is 16.
    assert abs(len(np.unique(rows, axis=0)) - 6466 * (1 - (1 - 1 / 6466) ** 20_000)) < 80


def test_exhaustive_search_covers_a_space_once_and_is_done():
    whole = toy(4, 3, 2)
    members = np.arange(whole.size) % 3 != 1
    for space, expected in ((whole, np.arange(24)), (subset(whole, members), np.flatnonzero(members))):
        orders = []
        for seed in (0, 1):
            asked = []

            def evaluate(number, candidates, asked=asked, whole=whole):
                numbers = np.asarray(whole.index(candidates.architectures))
                asked.extend(numbers.tolist())
                return told(*numbers)

            own = exhaustive(space, Exhaustive(batch=5), 1)
            result = run(own, evaluate, jax.random.key(seed))
            assert sorted(asked) == expected.tolist() and own.total == result.evaluations == len(expected)
            assert own.done(result.state) and int(whole.index(result.best)) == expected[-1]
            orders.append(asked)
        assert orders[0] != orders[1]
