"""Strategies made of other strategies: no repeats, a choice among asks by a proxy, a first population by a proxy.

    distinct     an ask whose class of equal architectures was evaluated is asked anew, at most `REDRAWS` times, and is
                 then a random architecture of a class that was not
    preselect    of `factor` asks, those that a proxy puts first are evaluated
    warm_up      of some random architectures, those that a proxy puts first are evaluated before the strategy's own

Each passes on what it does not change, and runs under jit where its strategy and its proxy do. They compose:
`distinct(preselect(aging, ...), ...)`. A wrapper that changes nothing asks what its strategy asks, bit for bit.

A proxy is any estimator that costs little: `jnas.estimators.proxies`, or `jnas.estimators.scores` of what was scored
before. Several objectives are one by `jnas.proxies.combination.fitness`, among the architectures compared.

Abdelfattah, Mehrotra, Dudziak and Lane, "Zero-Cost Proxies for Lightweight NAS", ICLR 2021,
https://arxiv.org/abs/2101.08134: warm-up, and the choice of the next evaluation among proposals.

Letters: B candidates, N architectures scored, D decisions, T evaluations that fit.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jnas.errors import InputError
from jnas.proxies.combination import fitness
from jnas.spaces import Space
from jnas.strategies import archive
from jnas.strategies.archive import Archive
from jnas.strategies.unseen import unseen
from jnas.types import Candidates, Estimator, Info, Key, State, Strategy, Values, compiled

# Asks for one batch, before random architectures fill it.
REDRAWS = 20


class Seen(NamedTuple):
    """inner: of the strategy. archive: the architectures told, with no values."""

    inner: State
    archive: Archive


class Warm(NamedTuple):
    """inner: of the strategy. first: int32[n, D], what is asked for first. asked: int32[], how many were."""

    inner: State
    first: Array
    asked: Array


class Keyed(NamedTuple):
    """inner: of the strategy. key: of the proxy, one for the search: an architecture has one score."""

    inner: State
    key: Key


def distinct(strategy: Strategy, space: Space, budget: int = 0) -> Strategy:
    """Ask for no architecture, nor for one equal to it, twice (`Space.canonical`), until the space is used up.

    budget: evaluations that it remembers; 0: as many as the strategy asks for in all. Done once a space of at most
    `jnas.strategies.unseen.LISTED` architectures is used up. The last round then has fewer rows; under jit, where it
    cannot, it repeats some. Raises `InputError` for a strategy of several fidelities.
    """
    _require_architectures(strategy, "distinct")
    strategy, pool = compiled(strategy), unseen(space)

    def repeated(known: Archive, rows: Any) -> Array:
        codes = space.canonical(rows)
        earlier = jnp.tril((codes[:, None] == codes).all(axis=-1), -1).any(axis=1)
        return earlier | ~pool.new(known, rows)

    def ask(key: Key, state: Seen) -> tuple[Candidates, Seen]:
        known = state.archive
        candidates, inner = strategy.ask(key, state.inner)
        if candidates.fidelity is not None:
            raise InputError(
                f"{strategy.name} asks again for what it trains longer, and distinct never would: leave distinct out"
            )
        if not _count(candidates):
            return candidates, state._replace(inner=inner)

        # Ask anew in the places of repeats.
        def again(carry: tuple[Candidates, State, Array]) -> tuple[Candidates, State, Array]:
            candidates, inner, attempt = carry
            others, inner = strategy.ask(jax.random.fold_in(key, attempt), inner)
            # A strategy of the host that runs out of architectures has fewer, or none.
            if _count(others) < _count(candidates):
                others = candidates
            replace = repeated(known, candidates.architectures)
            return jax.tree.map(partial(_merged, replace), others, candidates), inner, attempt + 1

        def unfinished(carry: tuple[Candidates, State, Array]) -> Array:
            return (carry[2] <= REDRAWS) & repeated(known, carry[0].architectures).any()

        carry = jax.tree.map(jnp.asarray, candidates), inner, jnp.int32(1)
        if strategy.jittable:
            candidates, inner, _ = jax.lax.while_loop(unfinished, again, carry)
        else:
            while unfinished(carry):
                carry = again(carry)
            candidates, inner, _ = carry

        # Random new ones in the places that are left, behind the others.
        old = repeated(known, candidates.architectures)
        candidates = jax.tree.map(lambda rows: rows[jnp.argsort(old, stable=True)], candidates)
        own = jnp.arange(len(old)) < (~old).sum()
        scores = jnp.where(own, -jnp.arange(len(old), dtype=jnp.float32), -jnp.inf)
        rows = pool.choose(jax.random.fold_in(key, 0), known, candidates.architectures, scores, len(old))
        parent = candidates.parent
        if parent is not None:
            parent = jnp.where(own, parent, -1)[: len(rows)]
        candidates = Candidates(rows, parent=parent)
        if not strategy.jittable:
            candidates = jax.tree.map(lambda each: each[~repeated(known, rows)], candidates)
        return candidates, Seen(inner, known)

    def tell(state: Seen, candidates: Candidates, values: Values) -> tuple[Seen, Info]:
        inner, info = strategy.tell(state.inner, candidates, values)
        known = archive.add(state.archive, candidates, values._replace(value=values.value[:, :0]))
        return Seen(inner, known), info

    def init(key: Key) -> Seen:
        return Seen(strategy.init(key), archive.empty(budget or strategy.total, len(space.decisions), 0))

    return strategy._replace(
        name=f"distinct:{strategy.name}",
        init=init,
        ask=ask,
        tell=tell,
        done=lambda state: strategy.done(state.inner) or pool.used_up(state.archive),
        best=lambda state: strategy.best(state.inner),
    )


def preselect(strategy: Strategy, proxy: Estimator, factor: int) -> Strategy:
    """Ask `factor` times and evaluate those B of all that the proxy puts first, in the order of the asks."""
    _require_architectures(strategy, "preselect")
    strategy = compiled(strategy)

    def asks_of(key: Key, inner: State) -> tuple[State, Candidates]:
        """All asks, one behind the other."""

        def once(inner: State, number: Array | int) -> tuple[State, Candidates]:
            # The first ask is the strategy's own.
            own = jnp.where(number > 0, jax.random.fold_in(key, number), key)
            candidates, inner = strategy.ask(own, inner)
            return inner, candidates

        if strategy.jittable:
            inner, asks = jax.lax.scan(once, inner, jnp.arange(factor))
            return inner, jax.tree.map(lambda rows: rows.reshape(-1, *rows.shape[2:]), asks)
        parts = []
        for number in range(factor):
            inner, candidates = once(inner, number)
            parts.append(candidates)
        return inner, jax.tree.map(lambda *rows: jnp.concatenate(rows), *parts)

    # A proxy of the host leaves the asks outside of any program: compiled once, not in every round.
    asked = jax.jit(asks_of) if strategy.jittable else asks_of

    def ask(key: Key, state: Keyed) -> tuple[Candidates, Keyed]:
        inner, asks = asked(key, state.inner)
        values: Any = proxy.evaluate(state.key, asks).value
        worth = fitness(values)
        chosen = jnp.sort(jnp.argsort(-worth, stable=True)[: _count(asks) // factor])
        return jax.tree.map(lambda rows: rows[chosen], asks), Keyed(inner, state.key)

    def tell(state: Keyed, candidates: Candidates, values: Values) -> tuple[Keyed, Info]:
        inner, info = strategy.tell(state.inner, candidates, values)
        return Keyed(inner, state.key), info

    return strategy._replace(
        name=f"preselect:{strategy.name}",
        init=lambda key: Keyed(strategy.init(key), key),
        ask=ask,
        tell=tell,
        done=lambda state: strategy.done(state.inner),
        best=lambda state: strategy.best(state.inner),
        jittable=strategy.jittable and proxy.jittable,
    )


def warm_up(strategy: Strategy, space: Space, proxy: Estimator, candidates: int, best: int) -> Strategy:
    """Evaluate first the `best` by the proxy of random `candidates`, different by class; then the strategy asks.

    It is told of them as of its own: a strategy that begins with a random population begins with these.
    """
    _require_architectures(strategy, "warm_up")
    strategy, pool = compiled(strategy), unseen(space)

    def init(key: Key) -> Warm:
        sample_key, choice_key, proxy_key = jax.random.split(jax.random.fold_in(key, 1), 3)
        rows = space.sample(sample_key, candidates)
        values: Any = proxy.evaluate(proxy_key, Candidates(rows)).value
        worth = jnp.asarray(fitness(values), jnp.float32)
        nothing = archive.empty(1, len(space.decisions), 0)
        first = pool.choose(choice_key, nothing, rows, worth, best)
        return Warm(strategy.init(key), first, jnp.int32(0))

    def ask(key: Key, state: Warm) -> tuple[Candidates, Warm]:
        asks, inner = strategy.ask(key, state.inner)
        asks = jax.tree.map(jnp.asarray, asks)
        places = state.asked + jnp.arange(_count(asks))
        warm = places < len(state.first)
        rows = _merged(warm, state.first[jnp.minimum(places, len(state.first) - 1)], asks.architectures)
        parent = None if asks.parent is None else jnp.where(warm, -1, asks.parent)
        # A strategy that counts its asks has not asked while none of its own was taken.
        if strategy.jittable:
            inner = jax.tree.map(partial(jnp.where, warm.all()), state.inner, inner)
        elif warm.all():
            inner = state.inner
        asked = jnp.minimum(state.asked + len(rows), len(state.first))
        return asks._replace(architectures=rows, parent=parent), Warm(inner, state.first, asked)

    def tell(state: Warm, candidates: Candidates, values: Values) -> tuple[Warm, Info]:
        inner, info = strategy.tell(state.inner, candidates, values)
        return state._replace(inner=inner), info

    return strategy._replace(
        name=f"warm_up:{strategy.name}",
        init=init,
        ask=ask,
        tell=tell,
        done=lambda state: strategy.done(state.inner),
        best=lambda state: strategy.best(state.inner),
        total=strategy.total and strategy.total + best,
        jittable=strategy.jittable and proxy.jittable,
    )


def _count(candidates: Candidates) -> int:
    """B."""
    rows: Any = candidates.architectures
    return len(rows)


def _merged(where: Array, taken: Array, otherwise: Array) -> Array:
    """Rows [B, ...] of one where bool[B] says, of the other elsewhere."""
    return jnp.where(where.reshape(-1, *[1] * (taken.ndim - 1)), taken, otherwise)


def _require_architectures(strategy: Strategy, wrapper: str) -> None:
    if strategy.asks != "architectures":
        raise InputError(
            f"{wrapper} compares architectures, and {strategy.name} asks for {strategy.asks}: choose another strategy"
        )
