"""Q-learning over decisions, with replayed evaluations: MetaQNN.

    Q[d, p, a]  the value of the choice a at decision d after the choice p at decision d - 1; 0.5 at first
    ask:        at each decision a random choice with chance epsilon, else the one with the largest value
    tell:       `replay` earlier evaluations, drawn with replacement, update their choices from the last to the first,
                    Q[d, p, a] <- (1 - alpha) Q[d, p, a] + alpha target
                with the reward in 0..1 as the target of the last decision, of the others max_b Q[d + 1, a, b]

Baker, Gupta, Naik and Raskar, "Designing Neural Network Architectures using Reinforcement Learning", ICLR 2017,
https://arxiv.org/abs/1611.02167: alpha 0.01 and no discount. Epsilon is 1 for the first 1500 of their 2,700 networks,
0.9, 0.8 and 0.7 for 100 each, 0.6 down to 0.1 for 150 each.

Departures: the schedule is scaled to the budget, of which an architecture evaluated again takes its part (theirs counts
distinct networks). The state is the choice before, not a summary of all layers so far. Rewards are scaled by the range
of all evaluations so far, a failure being 0. Replayed evaluations update the last decision, then the one before, and so
on, where the authors go through one evaluation after another. Above the last decision a choice has one target, so that
its m updates are one power of 1 - alpha.

Letters: R replayed evaluations, T evaluations that fit, D decisions, K choices of the decision with most.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jnas.proxies.combination import fitness
from jnas.spaces import Space
from jnas.spaces.subset import member
from jnas.strategies import archive
from jnas.strategies.archive import Archive
from jnas.strategies.rewards import NO_RANGE, widened, width
from jnas.strategies.settings.learning import QLearning
from jnas.types import Candidates, Info, Key, Strategy, Values

INITIAL = 0.5
# Networks of MetaQNN at epsilon 1, 0.9, ..., 0.1.
NETWORKS = (1500, 100, 100, 100, 150, 150, 150, 150, 150, 150)


class State(NamedTuple):
    """archive: all evaluations; q: float32[D, K, K], -inf for no choice; asked: int32[]; key: of the replays."""

    archive: Archive
    q: Array
    asked: Array
    key: Key


def epsilon(number: Array, budget: int) -> Array:
    """The chance of a random choice in each evaluation of a search: float32[B]. number: int32[B], from 0."""
    ends = np.cumsum(NETWORKS)
    passed = (number * (ends[-1] / max(budget, 1)) >= ends[:, None]).sum(axis=0)
    return 1 - jnp.minimum(passed, len(NETWORKS) - 1) / len(NETWORKS)


def replayed(q: Array, architectures: Array, targets: Array, rate: float) -> Array:
    """Q after R evaluations, in their order: float32[D, K, K]. architectures: int32[R, D]; targets: float32[R]."""
    before = jnp.pad(architectures[:, :-1], ((0, 0), (1, 0)))
    kept = 1 - rate

    def share(cells: tuple[Array, Array]) -> Array:
        """The part of each value that the updates of its cell leave: float32[K, K]."""
        return kept ** jnp.zeros(q.shape[1:]).at[cells].add(1)

    # Of the last decision each evaluation has a target of its own: later updates of a cell shrink earlier ones.
    cells = before[:, -1], architectures[:, -1]
    flat = cells[0] * q.shape[1] + cells[1]
    later = jnp.triu(flat[:, None] == flat, 1).sum(axis=1)
    last = (share(cells) * q[-1]).at[cells].add(rate * kept**later * targets)

    def one(below: Array, step: tuple[Array, ...]) -> tuple[Array, Array]:
        values, *cells = step
        left = share((cells[0], cells[1]))
        updated = left * values + (1 - left) * below.max(axis=1)
        return updated, updated

    # Of the others the target is the largest value of the decision below, after its updates.
    steps = (q[:-1], before.T[:-1], architectures.T[:-1])
    return jnp.concatenate([jax.lax.scan(one, last, steps, reverse=True)[1], last[None]])


def q_learning(space: Space, settings: QLearning, objectives: int, budget: int) -> Strategy:
    """Epsilon-greedy choices by values. Rewards are `fitness` over all evaluations so far, in 0..1."""
    offered = jnp.asarray(space.offered)

    def init(key: Key) -> State:
        width = offered.shape[1]
        q = jnp.where(offered[:, None], jnp.full((len(offered), width, width), INITIAL), -jnp.inf)
        return State(archive.empty(budget, len(offered), objectives), q, jnp.int32(0), key)

    def walk(q: Array, chance: Array, key: Key) -> Array:
        def choose(before: Array, step: tuple[Array, ...]) -> tuple[Array, Array]:
            noise, coin, values, possible = step
            score = jnp.where(possible & (coin < chance), 0.0, values[before])
            # Of the best, one at random.
            choice = jnp.argmax(jnp.where(possible & (score == score.max()), noise, -1)).astype(jnp.int32)
            return choice, choice

        noise_key, coin_key = jax.random.split(key)
        noise = jax.random.uniform(noise_key, offered.shape)
        coins = jax.random.uniform(coin_key, (len(offered),))
        return jax.lax.scan(choose, jnp.int32(0), (noise, coins, q, offered))[1]

    def ask(key: Key, state: State) -> tuple[Candidates, State]:
        chances = epsilon(state.asked + jnp.arange(settings.batch), budget)

        def one(key: Key, chance: Array) -> Array:
            return member(space, key, lambda draw: walk(state.q, chance, draw))

        architectures = jax.vmap(one)(jax.random.split(key, settings.batch), chances)
        return Candidates(architectures), state._replace(asked=state.asked + settings.batch)

    def tell(state: State, candidates: Candidates, values: Values) -> tuple[State, Info]:
        after = archive.add(state.archive, candidates, values)
        worth = fitness(after.values)
        seen = widened(NO_RANGE, worth)
        targets = jnp.where(jnp.isfinite(worth), (worth - seen.low) / width(seen), 0.0)
        key, draw_key = jax.random.split(state.key)
        count = settings.replay * len(values.value)
        drawn = jax.random.randint(draw_key, (count,), 0, jnp.minimum(after.told, len(worth)))
        q = replayed(state.q, after.architectures[drawn], targets[drawn], settings.rate)
        return State(after, q, state.asked, key), {}

    return Strategy(
        name="q_learning",
        init=init,
        ask=ask,
        tell=tell,
        done=lambda state: False,
        best=lambda state: archive.best(state.archive),
        jittable=True,
    )
