"""Independent bandits: each decision has one of its own, whose arms are its choices.

    ucb1            the arm with the largest mean + c sqrt(2 log N / n), one that was never drawn first
    epsilon_greedy  a random arm with chance epsilon, else the one with the largest mean

N counts what the bandit drew, n what it drew of the arm. All bandits are told the reward of the architecture, so an arm
is worth the mean over what the others drew. It is the baseline of what is learned without interaction of decisions.

UCB1: Auer, Cesa-Bianchi and Fischer, "Finite-time Analysis of the Multiarmed Bandit Problem", Machine Learning 2002,
https://doi.org/10.1023/A:1013689704352. Epsilon-greedy: Sutton and Barto, "Reinforcement Learning", 2018, chapter 2.

Departures: means are scaled to 0..1 by the range of rewards seen. A draw counts when it is asked for, so that a batch
spreads over arms. The first `initial` architectures are random: UCB1 is deterministic, and bandits that draw every arm
once, side by side, have the same K rewards and repeat the same K architectures for ever. Where a table lacks what UCB1
chooses, a neighbour is asked for.

Letters: D decisions, K choices of the decision with most.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jnas.spaces import Space
from jnas.spaces.subset import member
from jnas.strategies import archive
from jnas.strategies.archive import Archive
from jnas.strategies.rewards import NO_RANGE, Range, Sums, counted, means, rewards, widened
from jnas.strategies.settings.learning import Bandit
from jnas.types import Candidates, Info, Key, Strategy, Values


class State(NamedTuple):
    """archive: all evaluations; drawn: int32[D, K]; sums: [D, K], of the rewards told; seen: the range of rewards."""

    archive: Archive
    drawn: Array
    sums: Sums
    seen: Range


def bandit(space: Space, settings: Bandit, objectives: int, budget: int) -> Strategy:
    """One arm of each bandit makes an architecture. With several objectives rewards are ranks (`rewards`)."""
    offered = jnp.asarray(space.offered)
    rows = jnp.arange(len(offered))

    def init(key: Key) -> State:
        none = jnp.zeros(offered.shape, jnp.int32)
        nothing = archive.empty(budget, len(space.decisions), objectives)
        return State(nothing, none, Sums(none, none, jnp.zeros(offered.shape)), NO_RANGE)

    def scores(drawn: Array, worth: Array) -> Array:
        if settings.rule == "epsilon_greedy":
            return worth
        total = jnp.maximum(drawn.sum(axis=1, keepdims=True), 1)
        bound = worth + settings.exploration * jnp.sqrt(2 * jnp.log(total) / jnp.maximum(drawn, 1))
        return jnp.where(drawn > 0, bound, jnp.inf)

    def choose(key: Key, drawn: Array, worth: Array) -> Array:
        tie_key, random_key = jax.random.split(key)
        anyhow = (drawn[0].sum() < settings.initial) & offered
        if settings.rule == "epsilon_greedy":
            anyhow |= offered & (jax.random.uniform(random_key, (len(offered), 1)) < settings.epsilon)
        score = jnp.where(anyhow, jnp.inf, jnp.where(offered, scores(drawn, worth), -jnp.inf))
        # Of the best, one at random.
        noise = jax.random.uniform(tie_key, offered.shape)
        return jnp.argmax(jnp.where(score == score.max(axis=1, keepdims=True), noise, -1), axis=1)

    def ask(key: Key, state: State) -> tuple[Candidates, State]:
        worth = means(state.sums, state.seen)

        def one(drawn: Array, key: Key) -> tuple[Array, Array]:
            chosen = member(space, key, lambda draw: choose(draw, drawn, worth).astype(jnp.int32))
            return drawn.at[rows, chosen].add(1), chosen

        drawn, architectures = jax.lax.scan(one, state.drawn, jax.random.split(key, settings.batch))
        return Candidates(architectures), state._replace(drawn=drawn)

    def tell(state: State, candidates: Candidates, values: Values) -> tuple[State, Info]:
        after = archive.add(state.archive, candidates, values)
        given = rewards(after, len(values.value))

        def add(sums: Sums, row: tuple[Array, Array]) -> tuple[Sums, None]:
            architecture, reward = row
            return counted(sums, (rows, architecture), reward), None

        architectures = jnp.asarray(candidates.architectures, jnp.int32)
        sums, _ = jax.lax.scan(add, state.sums, (architectures, given))
        return State(after, state.drawn, sums, widened(state.seen, given)), {}

    return Strategy(
        name="bandit",
        init=init,
        ask=ask,
        tell=tell,
        done=lambda state: False,
        best=lambda state: archive.best(state.archive),
        jittable=True,
    )
