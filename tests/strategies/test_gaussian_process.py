"""The process against a dense computation in float64 and scikit-learn; asks maximise the acquisition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from jnas import spaces
from jnas.strategies import archive, gaussian_process, kernels
from jnas.strategies.settings.bayesian import GaussianProcess
from jnas.strategies.unseen import unseen
from jnas.types import Candidates, Values

SPACE = spaces.get("nasbench201")
CAPACITY, TOLD = 40, 25
GOAL = np.array([3, 1, 3, 3, 2, 3])
KERNEL = kernels.hamming(SPACE)


KEY = jax.random.key(0)


def measured(values):
    values = np.asarray(values, np.float64)[:, None]
    return Values(values, values > 0, values[:, 0])


def told(rows, values, capacity=CAPACITY):
    return archive.add(archive.empty(capacity, 6, 1), Candidates(rows), measured(values))


@jax.jit
def posterior(state, rows):
    values, observed = gaussian_process.targets(state)
    features = KERNEL.features(state.architectures)
    *setting, likelihood = gaussian_process.fit(KERNEL, features, values, observed)
    fitted = gaussian_process.condition(KERNEL, features, values, observed, *setting)
    whitened = gaussian_process.whiten(KERNEL, fitted, KERNEL.features(rows))
    return fitted, values, *gaussian_process.predict(fitted, whitened), likelihood


def dense(rows, others, length):
    return np.exp(-(rows[:, None] != others[None]).sum(-1) / length)


@pytest.fixture(scope="module")
def example():
    rows = np.asarray(SPACE.sample(jax.random.key(0), TOLD))
    values = (rows == GOAL).sum(1) + np.random.default_rng(0).normal(size=TOLD) / 3
    # Two failed.
    values[[3, 17]] = -np.inf
    return rows, values, np.asarray(SPACE.sample(jax.random.key(1), 60))


def test_mean_deviation_and_likelihood_are_those_of_the_dense_computation(example):
    rows, values, others = example
    fitted, standard, mean, deviation, highest = posterior(told(rows, values), others)
    good = values[np.isfinite(values)]
    y = (np.where(np.isfinite(values), values, good.min()) - good.mean()) / good.std()
    np.testing.assert_allclose(standard[:TOLD], y, atol=1e-5)
    np.testing.assert_array_equal(standard[TOLD:], 0)

    # The setting with the highest likelihood on the grid, by another library.
    def likelihood(length, noise):
        covariance = dense(rows, rows, length) + noise * np.eye(TOLD)
        return multivariate_normal(np.zeros(TOLD), covariance).logpdf(y)

    grid = {
        (length, noise): likelihood(length, noise)
        for length in KERNEL.parameters
        for noise in gaussian_process.NOISES
    }
    best = max(grid, key=grid.get)
    assert (float(fitted.parameter), float(fitted.noise)) == pytest.approx(best)
    assert float(highest) == pytest.approx(grid[best], rel=1e-4)

    length, noise = best
    inverse = np.linalg.inv(dense(rows, rows, length) + noise * np.eye(TOLD))
    cross = dense(others, rows, length)
    np.testing.assert_allclose(mean, cross @ inverse @ y, atol=2e-4)
    variance = 1 - np.einsum("ij,jk,ik->i", cross, inverse, cross)
    np.testing.assert_allclose(deviation**2, variance, atol=2e-4)


def test_it_is_the_process_of_scikit_learn(example):
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import PairwiseKernel

    rows, values, others = example
    fitted, standard, mean, deviation, _ = posterior(told(rows, values), others)
    # The L1 distance of one-hot vectors is twice Hamming's.
    kernel = PairwiseKernel(gamma=float(1 / fitted.parameter) / 2, metric="laplacian")
    theirs = GaussianProcessRegressor(kernel, alpha=float(fitted.noise), optimizer=None)
    theirs.fit(np.asarray(SPACE.one_hot(rows)), np.asarray(standard[:TOLD], np.float64))
    expected, spread = theirs.predict(np.asarray(SPACE.one_hot(others)), return_std=True)
    np.testing.assert_allclose(mean, expected, atol=3e-4)
    np.testing.assert_allclose(deviation, spread, atol=3e-4)


@pytest.mark.parametrize("known_root", [True, False])
def test_joint_draws_have_the_mean_and_covariance_of_the_posterior(example, known_root):
    rows, values, others = example
    kernel = KERNEL if known_root else KERNEL._replace(sample=None)
    state, some = told(rows, values), jnp.asarray(others[:4])
    fitted, _, mean, *_ = posterior(state, some)
    count = 4_000

    @jax.jit
    def drawn(keys):
        features = kernel.features(some)
        whitened = gaussian_process.whiten(kernel, fitted, features)
        draw = gaussian_process.joint_draws(kernel, SPACE, state.architectures, fitted, some, whitened)
        return jax.lax.map(draw, keys), kernel.gram(
            features, features, fitted.parameter
        ) - whitened @ whitened.T

    values, covariance = drawn(jax.random.split(jax.random.key(0), count))
    np.testing.assert_allclose(values.mean(0), mean, atol=5 / np.sqrt(count))
    np.testing.assert_allclose(np.cov(values.T), covariance, atol=5 * np.sqrt(2 / count))


def test_the_first_of_a_batch_has_the_highest_expected_improvement(example):
    rows, values, _ = example
    strategy = gaussian_process.gaussian_process(SPACE, GaussianProcess(batch=5), 1, CAPACITY)
    state = jax.jit(strategy.tell)(strategy.init(KEY), Candidates(rows), measured(values))[0]
    asked = np.asarray(jax.jit(strategy.ask)(KEY, state)[0].architectures)
    everything = SPACE.all()
    everything = everything[(np.asarray(SPACE.canonical(everything)) == everything).all(1)]
    fitted, *parts, _ = posterior(told(rows, values), everything)
    standard, mean, deviation = map(np.asarray, parts)
    gain = mean - standard[:TOLD].max()
    improvement = deviation * (gain / deviation * norm.cdf(gain / deviation) + norm.pdf(gain / deviation))
    seen = {tuple(row) for row in np.asarray(SPACE.canonical(rows)).tolist()}
    free = np.array([tuple(row) not in seen for row in everything.tolist()])
    place = np.flatnonzero((everything == asked[0]).all(1))[0]
    assert improvement[place] == pytest.approx(improvement[free].max(), rel=1e-3)
    # Conditioned on the first as if it had its mean, the second has the highest again.
    length, noise = float(fitted.parameter), float(fitted.noise)
    more = np.concatenate([rows, asked[:1]])
    inverse = np.linalg.inv(dense(more, more, length) + noise * np.eye(TOLD + 1))
    cross = dense(everything, more, length)
    lower = np.sqrt(1 - np.einsum("ij,jk,ik->i", cross, inverse, cross))
    improvement = lower * (gain / lower * norm.cdf(gain / lower) + norm.pdf(gain / lower))
    free[place] = False
    second = np.flatnonzero((everything == asked[1]).all(1))[0]
    assert improvement[second] == pytest.approx(improvement[free].max(), rel=1e-2)


@pytest.mark.parametrize(
    "given",
    [
        {"kernel": "path", "acquisition": "ucb"},
        {"kernel": "weisfeiler_lehman", "acquisition": "its"},
        {"kernel": "ard", "acquisition": "thompson"},
    ],
    ids=lambda given: given["acquisition"],
)
@pytest.mark.parametrize("name", ["nasbench201", "darts"])
def test_batches_are_new_and_different(given, name):
    space = spaces.get(name)
    rows = np.asarray(space.sample(jax.random.key(0), 12))
    made = GaussianProcess(batch=6, candidates=80, **given)
    strategy = gaussian_process.gaussian_process(space, made, 1, 20)
    state, _ = strategy.tell(strategy.init(KEY), Candidates(rows), measured((rows == 1).sum(1)))
    asked = jax.jit(strategy.ask)(jax.random.key(1), state)[0].architectures
    codes = {tuple(row) for row in np.asarray(space.canonical(np.concatenate([asked, rows]))).tolist()}
    assert len(codes) == 6 + len(rows)


@pytest.mark.parametrize("name", ["nasbench201", "darts"])
def test_between_fits_the_process_grows_as_if_it_were_computed_anew(name):
    """Batches of five and of one; the kernel's parameter and the noise stay those of the last fit."""
    space = spaces.get(name)
    rows = np.asarray(space.sample(KEY, TOLD))
    values = (rows == 1).sum(1) + np.random.default_rng(0).normal(size=TOLD) / 3
    values[[7, 18]] = -np.inf
    own = gaussian_process.gaussian_process(space, GaussianProcess(refit=9.0), 1, CAPACITY)
    state, tell = own.init(KEY), jax.jit(own.tell)
    for start, end in ((0, 10), (10, 15), (15, 20), *((row, row + 1) for row in range(20, TOLD))):
        state, _ = tell(state, Candidates(rows[start:end]), measured(values[start:end]))
        if end == 10:
            fitted = state.posterior
    kernel, grown = kernels.hamming(space), state.posterior
    assert (grown.parameter, grown.noise) == (fitted.parameter, fitted.noise)
    covariance = dense(rows, rows, float(grown.parameter)) + float(grown.noise) * np.eye(TOLD)
    np.testing.assert_allclose(grown.lower[:TOLD, :TOLD], np.linalg.cholesky(covariance), atol=1e-4)
    np.testing.assert_array_equal(grown.lower[TOLD:], np.eye(CAPACITY)[TOLD:])
    standard, _ = gaussian_process.targets(state.archive)
    np.testing.assert_allclose(grown.lower @ grown.weights, standard, atol=1e-4)
    if name == "nasbench201":
        listed = unseen(space).listed
        whitened = gaussian_process.whiten(kernel, grown, kernel.features(listed))
        np.testing.assert_allclose(state.whitened, whitened, atol=1e-4)


def test_rates_climb_to_a_maximum_of_the_likelihood_and_tell_what_matters():
    """Two decisions of six make the value: their rates are the highest, and the likelihood is above the grid's."""
    rows = np.asarray(SPACE.sample(KEY, CAPACITY))
    worth = np.random.default_rng(2).normal(size=(2, 5))
    state = told(rows, worth[0, rows[:, 1]] + worth[1, rows[:, 4]])
    values, observed = gaussian_process.targets(state)
    kernel = kernels.ard(SPACE)._replace(ascent=60)

    @jax.jit
    def fitted():
        return [
            gaussian_process.fit(one, one.features(state.architectures), values, observed)
            for one in (kernel, KERNEL)
        ]

    (rates, noise, highest), (*_, equal) = ([np.asarray(each) for each in parts] for parts in fitted())
    assert set(np.argsort(rates)[-2:]) == {1, 4} and rates[[1, 4]].min() > 3 * np.delete(rates, [1, 4]).max()
    differ = (rows[:, None] != rows[None]) @ rates
    covariance = np.exp(-differ) + float(noise) * np.eye(CAPACITY)
    exact = multivariate_normal(np.zeros(CAPACITY), covariance).logpdf(np.asarray(values))
    assert float(highest) == pytest.approx(exact, rel=1e-3) and highest > equal + 1


def test_of_many_observations_some_evenly_spaced_fit_the_parameter(monkeypatch):
    monkeypatch.setattr(gaussian_process, "FITTED", 10)
    rows = np.asarray(SPACE.sample(KEY, TOLD))
    state = told(rows, (rows == GOAL).sum(1))
    values, observed = gaussian_process.targets(state)
    features = KERNEL.features(state.architectures)
    places = np.arange(10) * TOLD // 10
    few = gaussian_process.fit(KERNEL, features[places], values[places], observed[places])
    many = gaussian_process.fit(KERNEL, features, values, observed)
    assert [float(each) for each in few] == [float(each) for each in many]


def test_nothing_counts_where_all_failed():
    rows = np.asarray(SPACE.sample(jax.random.key(0), 5))
    standard, observed = gaussian_process.targets(told(rows, np.full(5, -np.inf)))
    assert not np.asarray(observed).any() and not np.asarray(standard).any()
    # One value has no deviation.
    standard, observed = gaussian_process.targets(told(rows, [1.0, *[-np.inf] * 4]))
    assert np.asarray(observed).sum() == 5 and not jnp.isnan(standard).any()
