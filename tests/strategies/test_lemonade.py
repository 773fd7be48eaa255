"""LEMONADE against SciPy's densities, counted sizes and fronts of all evaluations."""

import jax
import numpy as np
import pytest
from scipy.stats import gaussian_kde

from jnas import spaces
from jnas.errors import InputError
from jnas.nets import networks
from jnas.nets.sizes import Macro
from jnas.oneshot.supernets import SUPERNETS
from jnas.strategies import pareto
from jnas.strategies.lemonade import lemonade, log_density, sizes
from jnas.strategies.settings.evolution import Lemonade
from jnas.types import Candidates, Values

SPACE = spaces.get("nasbench201")
KEY = jax.random.key(3)


def test_a_density_is_scipys():
    generator = np.random.default_rng(0)
    points, at = generator.normal(3, 2, (20, 1)).astype(np.float32), np.linspace(-4, 9, 30)[:, None]
    among = generator.random(20) < 0.6
    own = np.asarray(log_density(points, among, at.astype(np.float32)))
    expected = np.log(gaussian_kde(points[among, 0])(at[:, 0]))
    np.testing.assert_allclose(own - own[0], expected - expected[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["nasbench201", "darts"])
def test_sizes_under_jit_are_those_counted(name):
    space = spaces.get(name)
    rows = np.asarray(space.sample(KEY, 20))
    counted = networks.sizes_of(space, Macro(), space.choices(rows))
    own = jax.jit(sizes(space, ["flops", "params"]))(rows)
    np.testing.assert_allclose(own * 1e6, np.stack([counted.flops, counted.params], -1), rtol=1e-5)


def test_parents_are_drawn_where_the_front_is_thin_and_the_population_is_the_front():
    """With as many children as are evaluated, nothing but the parents is drawn."""
    many = 800
    cost = np.random.default_rng(1).random(SPACE.size).astype(np.float32)
    cheap = jax.numpy.asarray(cost)[:, None]
    own = lemonade(
        SPACE, Lemonade(initial=12, children=many, batch=many), ("accuracy",), many + 12,
        lambda rows: cheap[SPACE.index(rows)],
    )  # fmt: skip
    rows = np.asarray(SPACE.sample(KEY, 12))
    costs = cost[np.asarray(SPACE.index(rows))]
    # The dearer the better, but for noise and a failure.
    accuracy = costs + np.random.default_rng(2).normal(0, 0.2, 12).astype(np.float32)
    accuracy[3] = -np.inf
    state, _ = own.tell(
        own.init(KEY), Candidates(rows), Values(accuracy[:, None], np.zeros((12, 1), np.int8), np.zeros(12))
    )
    both = np.stack([accuracy, np.where(np.isfinite(accuracy), -costs, -np.inf)], axis=1)
    on_front = np.asarray(pareto.front(both))
    assert np.array_equal(np.asarray(state.front)[:12], on_front) and 3 < on_front.sum() < 12
    asked, _ = own.ask(KEY, state)
    parent = np.asarray(asked.parent)
    assert ((np.asarray(asked.architectures) != rows[parent]).sum(axis=1) == 1).all()
    chances = np.where(on_front, 1 / gaussian_kde(costs[on_front])(costs), 0)
    shares = np.bincount(parent, minlength=12) / many
    np.testing.assert_allclose(shares, chances / chances.sum(), atol=0.06)


def test_children_that_are_evaluated_lie_where_the_front_is_thin():
    whole = sizes(SPACE, ["params"])
    settings = {"initial": 20, "children": 400, "batch": 40}
    own = lemonade(SPACE, Lemonade(**settings), ("accuracy",), 400)
    state = own.init(KEY)
    rows = np.asarray(SPACE.sample(KEY, 40))
    accuracy = np.log(np.asarray(whole(rows))) + np.random.default_rng(0).normal(0, 0.1, (40, 1))
    state, _ = own.tell(state, Candidates(rows), Values(accuracy, np.zeros((40, 1), np.int8), np.zeros(40)))
    asked = np.asarray(own.ask(KEY, state)[0].architectures)
    known = {tuple(row) for row in rows.tolist()}
    assert len({tuple(row) for row in asked.tolist()} - known) == 40
    parents = rows[np.asarray(state.front)[:40]]
    blind = np.concatenate([np.asarray(SPACE.neighbours(row)) for row in parents])
    density = [
        np.asarray(log_density(state.cheap, state.front, whole(children))).mean()
        for children in (asked, blind)
    ]
    assert density[0] < density[1]


def test_what_cannot_be_counted_is_refused_in_a_line():
    with pytest.raises(InputError, match=r"unknown size 'param'.*params"):
        lemonade(SPACE, Lemonade(cheap="param"), ("accuracy",), 10)
    masks = SUPERNETS["shake_shake"]((8, 8, 1), 10, 1, 1).space
    with pytest.raises(InputError, match="their supernet alone: choose another strategy"):
        lemonade(masks, Lemonade(), ("accuracy",), 10)
