"""Rewards: what learning strategies make of values, which have any scale and any number of objectives.

    r    the value; with several objectives exp(fitness) among all told so far, that is prod_p r_p of the ranks r_p in
         (0, 1] (`jnas.proxies.combination`): the share of the evaluations so far that are not better, over objectives
    b    a moving mean of rewards, without the bias of its start (as Adam's means):
             w <- decay w + 1 - decay,    b <- b + (1 - decay) / w * mean(r - b)
    0..1 (r - low) / (high - low), by the range of all rewards so far

A failed evaluation has the reward -inf: it moves neither the mean nor the range, and is 0 in 0..1.

Letters: B evaluations, T evaluations that fit, P objectives.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jnas.strategies.archive import Archive


def rewards(archive: Archive, count: int) -> Array:
    """Rewards of the last `count` evaluations told: float32[count], -inf where one failed.

    With several objectives a rank is the one among all told so far, equal values sharing their mean rank. It is not
    taken anew when more are told.
    """
    places = jnp.minimum(archive.told - count + jnp.arange(count), len(archive.values) - 1)
    own = archive.values[places]
    if own.shape[1] == 1:
        return own[:, 0]
    told = (jnp.arange(len(archive.values)) < archive.told)[:, None, None]
    less = (told & (archive.values[:, None] < own)).sum(axis=0)
    equal = (told & (archive.values[:, None] == own)).sum(axis=0)
    shares = (less + (equal + 1) / 2) / jnp.minimum(archive.told, len(archive.values))
    return jnp.where(jnp.isfinite(own).all(axis=1), shares.prod(axis=1), -jnp.inf)


class Baseline(NamedTuple):
    """A moving mean of rewards. mean: float32[]; weight: float32[], 0 before the first reward."""

    mean: Array
    weight: Array


NO_BASELINE = Baseline(jnp.float32(0), jnp.float32(0))


def moved(baseline: Baseline, given: Array, decay: float) -> tuple[Baseline, Array]:
    """(the baseline after rewards float32[B], r - b with the baseline before them, 0 where one failed).

    The first rewards have the first good one for their baseline. Equal rewards leave it as it is, to the last bit.
    """
    good = jnp.isfinite(given)
    before = jnp.where(baseline.weight > 0, baseline.mean, given[jnp.argmax(good)])
    advantages = jnp.where(good, given - before, 0.0)
    weight = decay * baseline.weight + 1 - decay
    step = (1 - decay) / weight * advantages.sum() / jnp.maximum(good.sum(), 1)
    after = Baseline(before + step, weight)
    return Baseline(*(jnp.where(good.any(), *pair) for pair in zip(after, baseline, strict=True))), advantages


class Range(NamedTuple):
    """The rewards seen so far lie in low..high: float32[] each; inf and -inf before the first."""

    low: Array
    high: Array


NO_RANGE = Range(jnp.float32(jnp.inf), jnp.float32(-jnp.inf))


def widened(seen: Range, given: Array) -> Range:
    """The range with rewards float32[B]; failed ones leave it as it is."""
    low = jnp.where(jnp.isfinite(given), given, jnp.inf).min()
    return Range(jnp.minimum(seen.low, low), jnp.maximum(seen.high, given.max()))


def width(seen: Range) -> Array:
    """high - low, 1 where that is 0 or nothing was seen: float32[]."""
    between = seen.high - seen.low
    return jnp.where(between > 0, between, 1.0)


class Sums(NamedTuple):
    """Rewards of arms or nodes, in arrays of one shape.

    told: int32, evaluations. good: int32, those that did not fail. total: float32, the sum of their rewards.
    """

    told: Array
    good: Array
    total: Array


def counted(sums: Sums, places: tuple[Array, ...], reward: Array) -> Sums:
    """The sums with one reward float32[] at `places`; a place outside is passed over."""
    good = jnp.isfinite(reward)
    return Sums(
        sums.told.at[places].add(1, mode="drop"),
        sums.good.at[places].add(good.astype(jnp.int32), mode="drop"),
        sums.total.at[places].add(jnp.where(good, reward, 0.0), mode="drop"),
    )


def means(sums: Sums, seen: Range) -> Array:
    """Mean rewards in 0..1 by the range seen: float32 of the sums' shape. A failure counts as the lowest.

    0 where nothing was told.
    """
    above = sums.total - sums.good * jnp.where(jnp.isfinite(seen.low), seen.low, 0.0)
    return above / (width(seen) * jnp.maximum(sums.told, 1))
