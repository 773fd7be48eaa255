"""BOHB: Hyperband whose new architectures are likely among the good trainings and unlikely among the others.

The model is of the longest trainings of which there are at least D + 1. The best N_l = max(D + 1, floor(share N)) of
their N make the density l, the worst N_g = max(D + 1, N - N_l) the density g; the two overlap as long as N is small.
Each is the mean of Aitchison and Aitken's kernels around its members o,

    k_o(x) = prod_d (1 - h_d if x_d = o_d else h_d / (K_d - 1)),      h_d = 1.06 s_d n^(-1 / (4 + D))

for n members and s_d the deviation of the numbers of their choices, h_d at least `bandwidth` and at most
(K_d - 1) / K_d, where the kernel is uniform. A draw is a member of l whose decisions stay with chance 1 - h_d and are
uniform otherwise. Of `samples` draws the one with the largest l(x) / g(x) is asked for. With chance `random`, and as
long as there is no model, an architecture is drawn uniformly.

Falkner, Klein and Hutter, "BOHB: Robust and Efficient Hyperparameter Optimization at Scale", ICML 2018,
https://arxiv.org/abs/1807.01774; kernels, bandwidths and draws are those of their code, HpBandSter.

Departures: HpBandSter waits until both parts have D + 1 members of their own, as an overlap is not in its code; it lets
h_d grow beyond (K_d - 1) / K_d, where densities are negative; a failure is among its worst, and in no model here. Draws
that were trained before, or lie outside a restricted space, do not compete.

Letters: B candidates, D decisions, K choices of a decision, N, n trainings, S draws, T trainings that fit.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import logsumexp

from jnas.proxies.combination import fitness
from jnas.spaces import Space
from jnas.strategies import archive
from jnas.strategies.archive import Archive
from jnas.strategies.hyperband import brackets, halving
from jnas.strategies.settings.fidelity import Bohb
from jnas.types import Key, Strategy


def bohb(space: Space, settings: Bohb, objectives: int, budget: int) -> Strategy:
    """Hyperband's brackets with proposals of the model."""
    choices = jnp.asarray(space.decisions, jnp.int32)

    def propose(key: Key, state: Archive, level: Array) -> Array:
        """int32[B, D]."""
        draw_key, random_key, uniform_key = jax.random.split(key, 3)
        best, others = split(state, level, settings.rungs, settings.share)
        rows = state.architectures
        width = bandwidths(rows, best, choices, settings.bandwidth)
        other_width = bandwidths(rows, others, choices, settings.bandwidth)

        # The draws of one proposal lie side by side.
        drawn = draw(draw_key, rows, best, width, choices, settings.batch * settings.samples)
        gain = log_density(drawn, rows, best, width, choices)
        gain -= log_density(drawn, rows, others, other_width, choices)
        allowed = space.contains(drawn) & (archive.places(state, drawn) < 0)
        # Draws that differ where kernels are uniform are equal: the first wins, not the rounding of their sums.
        gain = jnp.where(allowed, gain.round(4), -jnp.inf).reshape(settings.batch, settings.samples)
        winners = jnp.argmax(gain, axis=1)
        proposed = drawn.reshape(settings.batch, settings.samples, -1)[jnp.arange(settings.batch), winners]

        blind = jax.random.uniform(random_key, (settings.batch,)) < settings.random
        modelled = best.any() & ~blind & jnp.isfinite(gain.max(axis=1))
        return jnp.where(modelled[:, None], proposed, space.sample(uniform_key, settings.batch))

    repeated = brackets(settings.eta, settings.rungs)
    return halving("bohb", space, repeated, settings, objectives, budget, propose)


def split(state: Archive, level: Array, rungs: int, share: float) -> tuple[Array, Array]:
    """The good and the others of the trainings that are modelled: bool[T], twice; none where there are too few.

    level: int32[T], the length of each training.
    """
    least = state.architectures.shape[1] + 1
    good = jnp.isfinite(fitness(state.values))
    counts = (good & (level == jnp.arange(rungs)[:, None])).sum(axis=1)
    longest = jnp.max(jnp.where(counts >= least, jnp.arange(rungs), -1))
    members = good & (level == longest)
    rank = archive.ranks(state, members)
    count = members.sum()
    best = jnp.maximum(least, (share * count).astype(int))
    return members & (rank < best), members & (rank >= count - jnp.maximum(least, count - best))


def bandwidths(rows: Array, members: Array, choices: Array, least: float) -> Array:
    """h of each decision, from the members of int32[T, D]: float32[D]."""
    count = jnp.maximum(members.sum(), 1)
    mean = (rows * members[:, None]).sum(axis=0) / count
    deviation = jnp.sqrt((jnp.square(rows - mean) * members[:, None]).sum(axis=0) / count)
    width = 1.06 * deviation * count ** (-1 / (4 + len(choices)))
    return jnp.minimum(jnp.maximum(width, least), (choices - 1) / choices)


def log_density(architectures: Array, rows: Array, members: Array, width: Array, choices: Array) -> Array:
    """Logarithm of the density of the members of int32[T, D] at architectures int32[S, D]: float32[S]."""
    same, other = jnp.log1p(-width), jnp.log(width / jnp.maximum(choices - 1, 1))
    kernels = jnp.where(architectures[:, None] == rows, same, other).sum(axis=-1)
    return logsumexp(jnp.where(members, kernels, -jnp.inf), axis=1) - jnp.log(members.sum())


def draw(key: Key, rows: Array, members: Array, width: Array, choices: Array, count: int) -> Array:
    """`count` draws around the members of int32[T, D]: int32[count, D]."""
    member_key, keep_key, choice_key = jax.random.split(key, 3)
    # The members by their number: noise for each training would be most of the work.
    numbers = jax.random.randint(member_key, (count,), 0, jnp.maximum(members.sum(), 1))
    chosen = jnp.searchsorted(jnp.cumsum(members), numbers, side="right")
    shape = count, len(choices)
    kept = jax.random.uniform(keep_key, shape) < 1 - width
    return jnp.where(kept, rows[chosen], jax.random.randint(choice_key, shape, 0, choices, jnp.int32))
