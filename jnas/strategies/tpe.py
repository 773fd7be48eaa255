"""Tree-structured Parzen estimator: propose what is likely among the best and unlikely among the others.

The best n_l = min(ceil(share * n), 25) of n evaluations make the density l, all others the density g; failures are
never among the best. Each is a mixture of one kernel an observation o and a uniform one, with a = 1 / (m + 1) for m
observations:

    k_o(x) = prod_d (1[x_d = o_d] + a) / (1 + K_d a)
    l(x), g(x) = sum_o w_o k_o(x) + w_0 prod_d 1 / K_d,     w_o = 1 = w_0, normalised

From 25 observations on the weights w_o of all but the last 25 rise from 1/m to 1, the oldest first. `samples` draws
from l compete by log l(x) - log g(x). With `multivariate` the mixture is over whole architectures; without it each
decision has a mixture, draws and a winner of its own.

Bergstra, Bardenet, Bengio and Kegl, "Algorithms for Hyper-Parameter Optimization", NeurIPS 2011,
https://papers.nips.cc/paper/4443; the formulas for categorical decisions are those of optuna 5
(Watanabe, "Tree-Structured Parzen Estimator", 2023, https://arxiv.org/abs/2304.11127).

Departures: an architecture is asked for once (`unseen`), where optuna repeats itself. A batch of B takes the best B of
B times as many draws.

Letters: B candidates, D decisions, K choices of a decision, T evaluations that fit, L leaders, at most 25.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import logsumexp

from jnas.proxies.combination import fitness
from jnas.spaces import Space
from jnas.strategies import archive
from jnas.strategies.archive import Archive
from jnas.strategies.settings.bayesian import Tpe
from jnas.strategies.unseen import unseen
from jnas.types import Candidates, Key, Strategy

# Observations that keep their full weight, and the most that are good.
RECENT = 25
# Winners of independent decisions that are drawn, of which the first that was not evaluated is taken.
REDRAWS = 20


def tpe(space: Space, settings: Tpe, objectives: int, budget: int) -> Strategy:
    """The first `initial` at random, then `batch` proposals at a time."""
    pool = unseen(space)
    choices = jnp.asarray(space.decisions, jnp.int32)
    values = jnp.arange(max(space.decisions))[:, None]

    def propose(key: Key, state: Archive) -> tuple[Array, Array]:
        """Proposals int32[N, D] and scores float32[N]."""
        leaders, best, others = split(state, settings.share)
        rows, good_rows = state.architectures, state.architectures[leaders]
        if settings.multivariate:
            drawn = draw(key, good_rows, best, choices, settings.batch * settings.samples)
            good = log_density(drawn, good_rows, best, choices)
            return drawn, good - log_density(drawn, rows, others, choices)

        def winners(own: Key, column: Array, good_column: Array, count: Array) -> Array:
            column, good_column, count = column[:, None], good_column[:, None], count[None]
            good = jnp.where(values[:, 0] < count, log_density(values, good_column, best, count), -jnp.inf)
            gain = good - log_density(values, column, others, count)
            drawn = jax.random.categorical(own, good, shape=(settings.batch * REDRAWS, settings.samples))
            return jnp.take_along_axis(drawn, jnp.argmax(gain[drawn], axis=1)[:, None], axis=1)[:, 0]

        keys = jax.random.split(key, len(choices))
        drawn = jax.vmap(winners, (0, 1, 1, 0), 1)(keys, rows, good_rows, choices)
        drawn = drawn.astype(jnp.int32)
        return drawn, -jnp.arange(len(drawn), dtype=jnp.float32)

    def ask(key: Key, state: Archive) -> tuple[Candidates, Archive]:
        proposal_key, choice_key = jax.random.split(key)
        proposals, scores = propose(proposal_key, state)
        scores = jnp.where(state.told < settings.initial, -jnp.inf, scores)
        return Candidates(pool.choose(choice_key, state, proposals, scores, settings.batch)), state

    return archive.strategy("tpe", space, objectives, budget, ask, pool.used_up)


def split(state: Archive, share: float) -> tuple[Array, Array, Array]:
    """The best evaluations and all others: places int32[L] of leaders, the good among them bool[L], others bool[T]."""
    worth = fitness(state.values)
    told = jnp.arange(len(worth)) < state.told
    # The highest few, of equals the one told first: ranks of all take a sort.
    leaders = jax.lax.top_k(worth, min(RECENT, len(worth)))[1]
    # In float32 a tenth of ten would be more than one.
    most = jnp.minimum(jnp.ceil(share * state.told - 1e-4), RECENT)
    good = (jnp.arange(len(leaders)) < most) & told[leaders] & jnp.isfinite(worth[leaders])
    # The oldest first, as in the archive.
    order = jnp.argsort(leaders)
    leaders, good = leaders[order], good[order]
    return leaders, good, told & ~jnp.zeros(len(worth), bool).at[leaders].set(good)


def log_weights(members: Array) -> Array:
    """Logarithms of the kernels' weights, the uniform one last: bool[T] -> float32[T + 1]."""
    count = members.sum()
    age = jnp.cumsum(members) - 1
    ramp = count - RECENT
    # From 1/m to 1 in as many even steps as there are older ones; a single one has 1/m.
    step = age / jnp.maximum(ramp - 1, 1)
    weights = jnp.where(age < ramp, (1 - step) / jnp.maximum(count, 1) + step, 1.0)
    weights = jnp.append(jnp.where(members, weights, 0.0), 1.0)
    return jnp.log(weights) - jnp.log(weights.sum())


def log_density(architectures: Array, rows: Array, members: Array, choices: Array) -> Array:
    """Logarithm of the mixture of the observations rows[members], int32[T, D], at int32[B, D]: float32[B]."""
    extra = 1 / (members.sum() + 1)
    # A decision at a time: comparisons of [B, T] that run as vectors.
    equal = jnp.zeros((len(architectures), len(rows)), jnp.int32)
    for own, theirs in zip(architectures.T, rows.T, strict=True):
        equal += own[:, None] == theirs
    width = len(choices)
    kernels = equal * jnp.log1p(extra) + (width - equal) * jnp.log(extra) - jnp.log1p(choices * extra).sum()
    uniform = jnp.full((len(architectures), 1), -jnp.log(choices).sum())
    return logsumexp(jnp.concatenate([kernels, uniform], axis=1) + log_weights(members), axis=1)


def draw(key: Key, rows: Array, members: Array, choices: Array, count: int) -> Array:
    """`count` draws from that mixture: int32[count, D]."""
    kernel_key, keep_key, value_key = jax.random.split(key, 3)
    # By the sums of weights: noise for each of T observations and each draw would take most of an ask's time.
    weights = jnp.exp(log_weights(members))
    kernels = jax.random.choice(kernel_key, len(weights), (count,), p=weights)
    shape = (count, len(choices))
    copies = jax.random.uniform(keep_key, shape) < 1 / (1 + choices / (members.sum() + 1))
    copies &= (kernels < len(rows))[:, None]
    uniform = jax.random.randint(value_key, shape, 0, choices, jnp.int32)
    return jnp.where(copies, rows[jnp.minimum(kernels, len(rows) - 1)], uniform)
