"""Bayesian optimisation with a Gaussian process over architectures.

With values y of n evaluations, standardised, a kernel k (`jnas.strategies.kernels`) and noise r^2,

    m(a) = k(a, X) (K + r^2 I)^-1 y,     s^2(a) = 1 - k(a, X) (K + r^2 I)^-1 k(X, a)
    log p(y) = -1/2 y^T (K + r^2 I)^-1 y - 1/2 log det(K + r^2 I) - n/2 log 2 pi

The kernel's parameter and r^2 maximise log p(y) on a grid. The next architecture maximises the acquisition: expected
improvement on the best y, m + `weight` s, a joint draw of the posterior (`thompson`), or a draw for each architecture
by itself (`its`). Candidates are all architectures of a space of at most 20,000; of a larger one, mutants of the best
and random ones, half each. A joint draw needs a root of the covariance of its candidates: that of the Hamming kernel
over a space is a Kronecker product, and a draw of the prior is corrected to one of the posterior, f + k(a, X) (K + r^2
I)^-1 (y - f(X) - r e) with e standard normal (Wilson et al., ICML 2020, https://arxiv.org/abs/2002.09309); otherwise
the draw is over some candidates at random.

Batches: the posterior is conditioned on each choice as if it had its mean for value (Desautels, Krause and Burdick,
JMLR 2014, http://jmlr.org/papers/v15/desautels14a.html), which leaves means as they are; draws are drawn anew for
each.

Mockus, Tiesis and Zilinskas, 1978; Snoek, Larochelle and Adams, "Practical Bayesian Optimization of Machine Learning
Algorithms", NeurIPS 2012, https://arxiv.org/abs/1206.2944; Rasmussen and Williams, "Gaussian Processes for Machine
Learning", 2006, algorithm 2.1. A failure has the worst finite value, and is in neither mean nor deviation of y.
Several objectives are one by `jnas.proxies.combination.fitness`.

Letters: B candidates asked for, N to choose from, T evaluations that fit, D decisions.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.linalg import solve_triangular

from jnas.proxies.combination import fitness
from jnas.spaces import Space
from jnas.strategies import archive
from jnas.strategies.acquisition import expected_improvement, independent_thompson, upper_confidence_bound
from jnas.strategies.archive import Archive
from jnas.strategies.kernels import KERNELS, Kernel
from jnas.strategies.settings.bayesian import GaussianProcess
from jnas.strategies.unseen import mutants, unseen
from jnas.types import Candidates, Key, Strategy

# Variances of the noise to choose from, of standardised values. Float32 needs some.
NOISES = (1e-2, 1e-1)
# Candidates of a joint draw, whose covariance is factored.
JOINT = 512
JITTER = 1e-4
# The best evaluations, whose mutants are candidates.
PARENTS = 10


# Scores, those left, deviations and whitened covariances while a batch is chosen.
Picked: TypeAlias = tuple[Array, Array, Array, Array]


class Posterior(NamedTuple):
    """A process with the observations of an archive.

    features: [T, ...], of the kernel.
    inverse: float32[T, T], of the lower Cholesky factor of K + r^2 I; rows without an observation are those of I.
    weights: float32[T], inverse y; 0 without an observation.
    observed: bool[T].
    parameter, noise: float32[], of the highest likelihood; likelihood: float32[], its logarithm.
    """

    features: Array
    inverse: Array
    weights: Array
    observed: Array
    parameter: Array
    noise: Array
    likelihood: Array


def gaussian_process(space: Space, settings: GaussianProcess, objectives: int, budget: int) -> Strategy:
    """The first `initial` at random, then the maxima of the acquisition, `batch` at a time."""
    pool, kernel = unseen(space), KERNELS[settings.kernel](space)
    listed = None if pool.listed is None else kernel.features(pool.listed)

    def candidates(key: Key, state: Archive) -> tuple[Array, Array]:
        """Architectures int32[N, D] to choose from, and their features."""
        if pool.listed is not None and listed is not None:
            rows, features = pool.listed, listed
        else:
            mutant_key, random_key = jax.random.split(key)
            half = settings.candidates // 2
            close = mutants(mutant_key, space, state, half, PARENTS)
            rows = jnp.concatenate([close, space.sample(random_key, settings.candidates - half)])
            features = kernel.features(rows)
        if settings.acquisition == "thompson" and not kernel.sample and len(rows) > JOINT:
            some = jax.lax.top_k(pool.new(state, rows) + jax.random.uniform(key, (len(rows),)), JOINT)[1]
            rows, features = rows[some], features[some]
        return rows, features

    def ask(key: Key, state: Archive) -> tuple[Candidates, Archive]:
        candidate_key, acquisition_key, choice_key = jax.random.split(key, 3)
        rows, features = candidates(candidate_key, state)
        # The model of all that was told.
        values, observed = targets(state)
        posterior = fit(kernel, kernel.features(state.architectures), values, observed)
        mean, deviation, whitened = predict(kernel, posterior, features)
        best = jnp.max(jnp.where(observed, values, -jnp.inf))
        joint = None
        if settings.acquisition == "thompson":
            joint = joint_draws(kernel, space, state.architectures, posterior, rows, whitened)

        def acquire(key: Key, deviation: Array) -> Array:
            if settings.acquisition == "ei":
                return expected_improvement(mean, deviation, best)
            if settings.acquisition == "ucb":
                return upper_confidence_bound(mean, deviation, settings.weight)
            return joint(key) if joint else independent_thompson(key, mean, deviation)

        # Choices one by one, each of which lowers the deviation around it.
        def pick(carry: Picked, step: Array) -> tuple[Picked, None]:
            scores, left, deviation, whitened = carry
            worth = acquire(jax.random.fold_in(acquisition_key, step), deviation)
            chosen = jnp.argmax(jnp.where(left, worth, -jnp.inf))
            scores = scores.at[chosen].set(-step.astype(jnp.float32))
            cross = kernel.gram(features, features[chosen][None], posterior.parameter)[:, 0]
            column = (cross - whitened @ whitened[chosen]) / jnp.sqrt(
                deviation[chosen] ** 2 + posterior.noise
            )
            deviation = jnp.sqrt(jnp.maximum(deviation**2 - column**2, 0.0))
            whitened = whitened.at[:, len(observed) + step].set(column)
            return (scores, left.at[chosen].set(False), deviation, whitened), None

        if settings.batch == 1:
            worth = acquire(acquisition_key, deviation)
        else:
            room = jnp.zeros((len(rows), settings.batch))
            start = (
                jnp.full(len(rows), -jnp.inf),
                pool.new(state, rows),
                deviation,
                jnp.hstack([whitened, room]),
            )
            picked, _ = jax.lax.scan(pick, start, jnp.arange(min(settings.batch, len(rows))))
            worth = picked[0]
        ready = (state.told >= settings.initial) & jnp.isfinite(best)
        scores = jnp.where(ready, worth, -jnp.inf)
        return Candidates(pool.choose(choice_key, state, rows, scores, settings.batch)), state

    return archive.strategy("gaussian_process", space, objectives, budget, ask, pool.used_up)


def targets(state: Archive) -> tuple[Array, Array]:
    """Standardised values float32[T], 0 where nothing was told, and which were told, bool[T].

    A failure has the worst finite value. Nothing counts as told where all failed.
    """
    worth = fitness(state.values)
    good = jnp.isfinite(worth)
    count = jnp.maximum(good.sum(), 1)
    mean = jnp.where(good, worth, 0.0).sum() / count
    deviation = jnp.sqrt((jnp.where(good, worth - mean, 0.0) ** 2).sum() / count)
    standard = (worth - mean) / jnp.where(deviation > 0, deviation, 1.0)
    worst = jnp.min(jnp.where(good, standard, jnp.inf))
    told = (jnp.arange(len(worth)) < state.told) & good.any()
    return jnp.where(told, jnp.where(good, standard, worst), 0.0), told


def fit(kernel: Kernel, features: Array, values: Array, observed: Array) -> Posterior:
    """The process with the highest likelihood on the grid, given standardised values float32[T]."""
    pairs = observed[:, None] & observed
    identity = jnp.eye(len(values))

    def factored(parameter: Array, noise: Array) -> tuple[Array, Array]:
        gram = jnp.where(pairs, kernel.gram(features, features, parameter), 0.0)
        lower = jnp.linalg.cholesky(gram + jnp.diag(jnp.where(observed, noise, 1.0)))
        return lower, solve_triangular(lower, values, lower=True)

    def likelihood(setting: Array) -> Array:
        lower, weights = factored(*setting)
        missing = observed.sum() * jnp.log(2 * jnp.pi)
        return -0.5 * (weights @ weights + missing) - jnp.log(jnp.diag(lower)).sum()

    grid = jnp.array([(parameter, noise) for parameter in kernel.parameters for noise in NOISES])
    likelihoods = jax.lax.map(likelihood, grid)
    best = jnp.nanargmax(likelihoods)
    lower, weights = factored(*grid[best])
    inverse = solve_triangular(lower, identity, lower=True)
    return Posterior(features, inverse, weights, observed, grid[best, 0], grid[best, 1], likelihoods[best])


def predict(kernel: Kernel, posterior: Posterior, features: Array) -> tuple[Array, Array, Array]:
    """Mean and deviation float32[N] of noise-free values, and k(a, X) L^-T float32[N, T], whose products lower k."""
    cross = kernel.gram(features, posterior.features, posterior.parameter)
    whitened = jnp.where(posterior.observed, cross, 0.0) @ posterior.inverse.T
    variance = jnp.maximum(1 - (whitened**2).sum(axis=1), 0.0)
    return whitened @ posterior.weights, jnp.sqrt(variance), whitened


def joint_draws(
    kernel: Kernel, space: Space, observed: Array, posterior: Posterior, rows: Array, whitened: Array
) -> Callable[[Key], Array]:
    """key -> one draw of the noise-free posterior at rows int32[N, D]: float32[N].

    observed: int32[T, D], the architectures of the archive; whitened: of `predict` at rows.
    """
    mean, sample = whitened @ posterior.weights, kernel.sample
    if sample:

        def corrected(key: Key) -> Array:
            prior_key, noise_key = jax.random.split(key)
            prior = sample(prior_key, posterior.parameter)
            noise = jnp.sqrt(posterior.noise) * jax.random.normal(noise_key, posterior.weights.shape)
            shown = jnp.where(posterior.observed, prior[space.index(observed)] + noise, 0.0)
            return prior[space.index(rows)] + mean - whitened @ (posterior.inverse @ shown)

        return corrected
    features = kernel.features(rows)
    covariance = kernel.gram(features, features, posterior.parameter) - whitened @ whitened.T
    factor = jnp.linalg.cholesky(covariance + JITTER * jnp.eye(len(rows)))
    return lambda key: mean + factor @ jax.random.normal(key, mean.shape)
