"""The Parzen estimator against its formulas written out in NumPy, and against optuna's own estimators."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jnas import spaces
from jnas.strategies import archive, tpe
from jnas.strategies.settings.bayesian import Tpe

SPACE = spaces.get("nasbench201")
CHOICES = (2, 3, 5)
EVERY = np.indices(CHOICES).reshape(3, -1).T
CAPACITY = 60


def weights(count):
    """The kernels' weights, oldest first, as a loop says them."""
    values = []
    for age in range(count):
        older = count - 25
        if age >= older:
            values.append(1.0)
        else:
            values.append(1 / count if older == 1 else 1 / count + (1 - 1 / count) * age / (older - 1))
    return values


def density(rows, choices, x):
    """The mixture at x, kernel by kernel and decision by decision."""
    m, total = len(rows), 0.0
    for row, weight in zip(rows, weights(m), strict=True):
        kernel = 1.0
        for value, own, count in zip(x, row, choices, strict=True):
            kernel *= ((value == own) + 1 / (m + 1)) / (1 + count / (m + 1))
        total += weight * kernel
    return (total + 1 / np.prod(choices)) / (sum(weights(m)) + 1)


def padded(rows, members):
    """Rows in an archive's arrays, some of which are members."""
    full = np.zeros((CAPACITY, rows.shape[1]), np.int32)
    full[: len(rows)] = rows
    mask = np.zeros(CAPACITY, bool)
    mask[: len(rows)] = members
    return jnp.asarray(full), jnp.asarray(mask)


log_density = jax.jit(tpe.log_density)


@given(st.integers(0, 50), st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_the_density_is_the_mixture_written_out(count, seed):
    rng = np.random.default_rng(seed)
    rows, members = rng.integers(0, CHOICES, (count, 3)), rng.random(count) < 0.8
    ours = np.asarray(log_density(jnp.asarray(EVERY), *padded(rows, members), jnp.array(CHOICES)))
    np.testing.assert_allclose(np.exp(ours), [density(rows[members], CHOICES, x) for x in EVERY], rtol=2e-5)
    assert np.exp(ours).sum() == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("count", [3, 25, 26, 27, 40])
def test_the_density_is_that_of_optuna(count):
    pytest.importorskip("optuna", reason="optuna is not installed: pip install 'jnas[optuna]'")
    from optuna.distributions import CategoricalDistribution
    from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator, _ParzenEstimatorParameters
    from optuna.samplers._tpe.sampler import default_weights

    rows = np.random.default_rng(count).integers(0, CHOICES, (count, 3))
    domain = {f"{d}": CategoricalDistribution(tuple(range(k))) for d, k in enumerate(CHOICES)}
    parameters = _ParzenEstimatorParameters(1.0, True, False, default_weights, True)
    theirs = _ParzenEstimator({name: rows[:, int(name)] for name in domain}, domain, parameters)
    expected = theirs.log_pdf({name: EVERY[:, int(name)] for name in domain})
    full = padded(rows, np.ones(count, bool))
    np.testing.assert_allclose(
        log_density(jnp.asarray(EVERY), *full, jnp.array(CHOICES)), expected, atol=2e-5
    )


def test_draws_are_those_of_the_density():
    rows = np.array([[0, 1, 4], [1, 1, 4], [1, 2, 0], [0, 0, 0]])
    full = padded(rows, np.array([True, True, True, False]))
    drawn = np.asarray(tpe.draw(jax.random.key(0), *full, jnp.array(CHOICES), 20_000))
    shares = np.bincount(np.ravel_multi_index(tuple(drawn.T), CHOICES), minlength=len(EVERY)) / len(drawn)
    expected = np.array([density(rows[:3], CHOICES, x) for x in EVERY])
    error = np.sqrt(expected * (1 - expected) / len(drawn))
    assert np.abs((shares - expected) / error).max() < 4.5


@pytest.mark.parametrize("told", [1, 9, 10, 11, 20, 21, 260, 400])
def test_the_best_tenth_but_at_most_25_are_good_and_no_failure(told):
    rng = np.random.default_rng(told)
    values = rng.random(400)
    values[rng.random(400) < 0.3] = -np.inf
    values[told:] = -np.inf
    state = archive.Archive(jnp.zeros((400, 6), jnp.int32), jnp.asarray(values[:, None]), jnp.int32(told))
    leaders, good, others = map(np.asarray, tpe.split(state, 0.1))
    best = np.zeros(400, bool)
    best[leaders[good]] = True
    most = min(-(-told // 10), 25, int(np.isfinite(values).sum()))
    order = np.argsort(-values, kind="stable")
    assert set(np.flatnonzero(best)) == set(order[:most])
    assert (best ^ others).sum() == told and not (best & others).any() and (best | others)[:told].all()


@pytest.mark.parametrize("multivariate", [True, False])
def test_the_first_proposal_is_better_than_a_blind_draw(multivariate):
    goal = np.array([3, 1, 3, 3, 2, 3])
    budget = 64
    strategy = tpe.tpe(SPACE, Tpe(batch=8, multivariate=multivariate), 1, budget)
    told = np.asarray(SPACE.sample(jax.random.key(1), budget - 8))
    values = np.full((budget, 1), -np.inf)
    values[: len(told), 0] = (told == goal).sum(1)
    rows = np.zeros((budget, 6), np.int32)
    rows[: len(told)] = told
    state = archive.Archive(jnp.asarray(rows), jnp.asarray(values, jnp.float32), jnp.int32(len(told)))
    ask = jax.jit(strategy.ask)
    asked = np.array([ask(jax.random.key(seed), state)[0].architectures[0] for seed in range(8)])
    # A blind draw agrees on 1.2 edges.
    assert (asked == goal).sum(1).mean() > 3
