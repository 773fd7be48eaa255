"""Bayesian optimisation with a Gaussian process over architectures.

With values y of n evaluations, standardised, a kernel k (`jnas.strategies.kernels`) and noise r^2,

    m(a) = k(a, X) (K + r^2 I)^-1 y,     s^2(a) = 1 - k(a, X) (K + r^2 I)^-1 k(X, a)
    log p(y) = -1/2 y^T (K + r^2 I)^-1 y - 1/2 log det(K + r^2 I) - n/2 log 2 pi

The kernel's parameter and r^2 maximise log p(y) on a grid, from whose best point the rates of `ard` climb. They are
fitted when the first `initial` were told, and whenever evaluations have grown by the share `refit`, to 256 of these at
most, evenly spaced in time. While they stay, L of K + r^2 I = L L^T grows by a row for each evaluation, in O(n^2), and
k(a, X) L^-T of all listed architectures by a column, in O(n) each.

The next architecture maximises the acquisition: expected improvement on the best y, m + `weight` s, a joint draw of the
posterior (`thompson`), or a draw for each architecture by itself (`its`). Candidates are all architectures of a space
of at most 20,000; of a larger one, mutants of the best and random ones, half each. A joint draw needs a root of the
covariance of its candidates: that of a product of one kernel a decision is a Kronecker product over the space, and a
draw of the prior is corrected to one of the posterior, f + k(a, X) (K + r^2 I)^-1 (y - f(X) - r e) with e standard
normal (Wilson et al., ICML 2020, https://arxiv.org/abs/2002.09309); otherwise the draw is over some candidates at
random.

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
import numpy as np
import optax
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
from jnas.types import Candidates, Info, Key, Strategy, Values

# Variances of the noise to choose from, of standardised values. Float32 needs some.
NOISES = (1e-2, 1e-1)
# Candidates of a joint draw, whose covariance is factored.
JOINT = 512
JITTER = 1e-4
# The best evaluations, whose mutants are candidates.
PARENTS = 10
# Observations to which a kernel's parameter and the noise are fitted, at most.
FITTED = 256
# Rows by which a factor grows one after another: more are computed anew together.
ROWS = 32
# Step of Adam, of the logarithms of a kernel's parameter.
STEP = 0.1


# Scores, those left, deviations and whitened covariances while a batch is chosen.
Picked: TypeAlias = tuple[Array, Array, Array, Array]
# Logarithms of a parameter, Adam's state, the best of these logarithms so far and its likelihood.
Climb: TypeAlias = tuple[Array, optax.OptState, Array, Array]


class Posterior(NamedTuple):
    """A process with the observations of an archive.

    features: [T, ...], of the kernel.
    lower: float32[T, T], Cholesky factor L of K + r^2 I; rows without an observation are those of I.
    weights: float32[T], L^-1 y; 0 without an observation.
    observed: bool[T].
    parameter, noise: float32[...] and float32[], of the highest likelihood.
    """

    features: Array
    lower: Array
    weights: Array
    observed: Array
    parameter: Array
    noise: Array


class State(NamedTuple):
    """archive: all evaluations. posterior: given them. whitened: float32[N, T], of a listed space; else N = 0."""

    archive: Archive
    posterior: Posterior
    whitened: Array


def gaussian_process(space: Space, settings: GaussianProcess, objectives: int, budget: int) -> Strategy:
    """The first `initial` at random, then the maxima of the acquisition, `batch` at a time."""
    pool, kernel = unseen(space), KERNELS[settings.kernel](space)
    listed = kernel.features(space.sample(jax.random.key(0), 1)[:0] if pool.listed is None else pool.listed)

    # How often the process was fitted when so many were told.
    grown = np.log(np.maximum(np.arange(budget + 1), 1) / settings.initial) / np.log1p(settings.refit)
    fits = jnp.asarray(np.maximum(np.floor(grown) + 1, 0), jnp.int32)

    def init(key: Key) -> State:
        nothing = archive.empty(budget, len(space.decisions), objectives)
        zeros = jnp.zeros(budget)
        start = Posterior(
            kernel.features(nothing.architectures), jnp.eye(budget), zeros, zeros > 0,
            jnp.asarray(kernel.parameters[0], jnp.float32), jnp.float32(NOISES[0]),
        )  # fmt: skip
        return State(nothing, start, jnp.zeros((len(listed), budget)))

    def candidates(key: Key, state: State) -> tuple[Array, Array, Array]:
        """Architectures int32[N, D] to choose from, their features, and k(a, X) L^-T float32[N, T]."""
        if pool.listed is not None:
            rows, features, whitened = pool.listed, listed, state.whitened
        else:
            mutant_key, random_key = jax.random.split(key)
            half = settings.candidates // 2
            close = mutants(mutant_key, space, state.archive, half, PARENTS)
            rows = jnp.concatenate([close, space.sample(random_key, settings.candidates - half)])
            features = kernel.features(rows)
            whitened = whiten(kernel, state.posterior, features)
        if settings.acquisition == "thompson" and not kernel.sample and len(rows) > JOINT:
            order = pool.new(state.archive, rows) + jax.random.uniform(key, (len(rows),))
            some = jax.lax.top_k(order, JOINT)[1]
            rows, features, whitened = rows[some], features[some], whitened[some]
        return rows, features, whitened

    def ask(key: Key, state: State) -> tuple[Candidates, State]:
        candidate_key, acquisition_key, choice_key = jax.random.split(key, 3)
        known, posterior = state.archive, state.posterior
        rows, features, whitened = candidates(candidate_key, state)
        mean, deviation = predict(posterior, whitened)
        values, observed = targets(known)
        best = jnp.max(jnp.where(observed, values, -jnp.inf))
        joint = None
        if settings.acquisition == "thompson":
            joint = joint_draws(kernel, space, known.architectures, posterior, rows, whitened)

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
            whitened = whitened.at[:, budget + step].set(column)
            return (scores, left.at[chosen].set(False), deviation, whitened), None

        if settings.batch == 1:
            worth = acquire(acquisition_key, deviation)
        else:
            room = jnp.zeros((len(rows), settings.batch))
            start = (
                jnp.full(len(rows), -jnp.inf),
                pool.new(known, rows),
                deviation,
                jnp.hstack([whitened, room]),
            )
            picked, _ = jax.lax.scan(pick, start, jnp.arange(min(settings.batch, len(rows))))
            worth = picked[0]
        ready = (known.told >= settings.initial) & jnp.isfinite(best)
        scores = jnp.where(ready, worth, -jnp.inf)
        return Candidates(pool.choose(choice_key, known, rows, scores, settings.batch)), state

    def tell(state: State, candidates: Candidates, values: Values) -> tuple[State, Info]:
        after = archive.add(state.archive, candidates, values)
        known, _ = targets(after)
        features, told = kernel.features(after.architectures), jnp.arange(budget) < after.told

        def extended() -> tuple[Posterior, Array]:
            grown = jax.lax.fori_loop(
                state.archive.told,
                after.told,
                lambda place, grown: extend(kernel, grown[0], grown[1], listed, place),
                (state.posterior._replace(features=features), state.whitened),
            )
            weights = solve_triangular(grown[0].lower, known, lower=True)
            return grown[0]._replace(weights=weights), grown[1]

        def fitted() -> tuple[Posterior, Array]:
            parameter, noise, _ = fit(kernel, features, known, told)

            def computed() -> tuple[Posterior, Array]:
                anew = condition(kernel, features, known, told, parameter, noise)
                return anew, whiten(kernel, anew, listed)

            stay = (parameter == state.posterior.parameter).all() & (noise == state.posterior.noise)
            return jax.lax.cond(stay & (len(values.value) <= ROWS), extended, computed)

        # Many searches at once are due together: this choice stays one where the one above does both.
        due = fits[jnp.minimum(after.told, budget)] > fits[state.archive.told]
        return State(after, *jax.lax.cond(due, fitted, extended)), {}

    return Strategy(
        name="gaussian_process",
        init=init,
        ask=ask,
        tell=tell,
        done=lambda state: pool.used_up(state.archive),
        best=lambda state: archive.best(state.archive),
        jittable=True,
    )


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


def factored(
    kernel: Kernel, features: Array, values: Array, observed: Array, parameter: Array, noise: Array
) -> tuple[Array, Array]:
    """L float32[T, T] of K + r^2 I = L L^T, with rows of I where bool[T] is false, and L^-1 y of values float32[T]."""
    gram = jnp.where(observed[:, None] & observed, kernel.gram(features, features, parameter), 0.0)
    lower = jnp.linalg.cholesky(gram + jnp.diag(jnp.where(observed, noise, 1.0)))
    return lower, solve_triangular(lower, values, lower=True)


def condition(
    kernel: Kernel, features: Array, values: Array, observed: Array, parameter: Array, noise: Array
) -> Posterior:
    """The process given standardised values float32[T]."""
    lower, weights = factored(kernel, features, values, observed, parameter, noise)
    return Posterior(features, lower, weights, observed, parameter, noise)


def fit(kernel: Kernel, features: Array, values: Array, observed: Array) -> tuple[Array, Array, Array]:
    """Parameter float32[...] and noise float32[] of the highest likelihood, and its logarithm float32[].

    Of the first bool[T] observed, all or `FITTED` that are evenly spaced.
    """
    count, places = observed.sum(), jnp.arange(min(FITTED, len(values)))
    places = jnp.where(count > FITTED, places * count // FITTED, places)
    features, values, observed = features[places], values[places], observed[places]

    def likelihood(setting: tuple[Array, Array]) -> Array:
        lower, weights = factored(kernel, features, values, observed, *setting)
        missing = observed.sum() * jnp.log(2 * jnp.pi)
        return -0.5 * (weights @ weights + missing) - jnp.log(jnp.diag(lower)).sum()

    # On the grid.
    parameters = jnp.repeat(jnp.asarray(kernel.parameters, jnp.float32), len(NOISES), axis=0)
    noises = jnp.tile(jnp.array(NOISES), len(kernel.parameters))
    likelihoods = jax.lax.map(likelihood, (parameters, noises))
    best = jnp.nanargmax(likelihoods)
    parameter, noise, highest = parameters[best], noises[best], likelihoods[best]
    if kernel.ascent:
        # From there, by the logarithms of the parameter; the highest point of the way is kept.
        adam = optax.adam(STEP)

        def climb(carry: Climb, _: None) -> tuple[Climb, None]:
            place, optimiser, top, reached = carry
            worth, slope = jax.value_and_grad(lambda place: likelihood((jnp.exp(place), noise)))(place)
            better = worth > reached
            change, optimiser = adam.update(-slope, optimiser)
            top, reached = jnp.where(better, place, top), jnp.where(better, worth, reached)
            return (optax.apply_updates(place, change), optimiser, top, reached), None

        start = jnp.log(parameter)
        (_, _, start, highest), _ = jax.lax.scan(
            climb, (start, adam.init(start), start, highest), length=kernel.ascent
        )
        parameter = jnp.exp(start)
    return parameter, noise, highest


def extend(
    kernel: Kernel, posterior: Posterior, whitened: Array, listed: Array, place: Array
) -> tuple[Posterior, Array]:
    """The factor and whitened covariances float32[N, T] of listed features with one observation more, at `place`.

    The weights stay those before it: standardisation changes all values.
    """
    features, observed = posterior.features, posterior.observed
    own = jax.lax.dynamic_slice_in_dim(features, place, 1)
    row = whiten(kernel, posterior, own)[0]
    diagonal = jnp.sqrt(1 + posterior.noise - row @ row)
    column = (kernel.gram(listed, own, posterior.parameter)[:, 0] - whitened @ row) / diagonal
    row = jnp.where(jnp.arange(len(row)) == place, diagonal, row)
    lower = posterior.lower.at[place].set(row, mode="drop")
    grown = posterior._replace(lower=lower, observed=observed.at[place].set(True, mode="drop"))
    return grown, whitened.at[:, place].set(column, mode="drop")


def whiten(kernel: Kernel, posterior: Posterior, features: Array) -> Array:
    """k(a, X) L^-T float32[N, T] of N architectures, whose products lower their covariance k."""
    cross = kernel.gram(features, posterior.features, posterior.parameter)
    cross = jnp.where(posterior.observed, cross, 0.0)
    if len(cross) == 1:
        return solve_triangular(posterior.lower, cross.T, lower=True).T
    # A product runs many times as fast as a solution for many right-hand sides.
    return cross @ solve_triangular(posterior.lower, jnp.eye(cross.shape[1]), lower=True).T


def predict(posterior: Posterior, whitened: Array) -> tuple[Array, Array]:
    """Mean and deviation float32[N] of noise-free values, from float32[N, T] of `whiten`."""
    variance = jnp.maximum(1 - (whitened**2).sum(axis=1), 0.0)
    return whitened @ posterior.weights, jnp.sqrt(variance)


def joint_draws(
    kernel: Kernel, space: Space, observed: Array, posterior: Posterior, rows: Array, whitened: Array
) -> Callable[[Key], Array]:
    """key -> one draw of the noise-free posterior at rows int32[N, D]: float32[N].

    observed: int32[T, D], the architectures of the archive; whitened: of `whiten` at rows.
    """
    mean, sample = whitened @ posterior.weights, kernel.sample
    if sample:

        def corrected(key: Key) -> Array:
            prior_key, noise_key = jax.random.split(key)
            prior = sample(prior_key, posterior.parameter)
            noise = jnp.sqrt(posterior.noise) * jax.random.normal(noise_key, posterior.weights.shape)
            shown = jnp.where(posterior.observed, prior[space.index(observed)] + noise, 0.0)
            return (
                prior[space.index(rows)]
                + mean
                - whitened @ solve_triangular(posterior.lower, shown, lower=True)
            )

        return corrected
    features = kernel.features(rows)
    covariance = kernel.gram(features, features, posterior.parameter) - whitened @ whitened.T
    factor = jnp.linalg.cholesky(covariance + JITTER * jnp.eye(len(rows)))
    return lambda key: mean + factor @ jax.random.normal(key, mean.shape)
