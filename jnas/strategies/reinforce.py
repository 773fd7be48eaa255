"""REINFORCE: a distribution over the choices of each decision follows the rewards of what it drew.

    pi(a) = prod_d softmax(theta_d)[a_d],    gradient of the mean of -(r - b) log pi(a) over the batch,    by Adam

Williams, "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning", Machine Learning
1992, https://doi.org/10.1007/BF00992696; as a baseline of architecture search: Dong and Yang, "NAS-Bench-201", ICLR
2020, https://arxiv.org/abs/2001.00326. b is the moving mean of `jnas.strategies.rewards`. With one logit an arm it is
the gradient bandit. The scale of rewards does not matter: Adam divides by the size of gradients.

Departure: the baseline is the mean of the rewards before this one, which leaves the gradient unbiased. In the authors'
code it contains the reward itself; then the first step has the advantage 0 and later ones are smaller (`after`).

Letters: B architectures, D decisions, K choices of the decision with most.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jnas.spaces import Space
from jnas.spaces.subset import member
from jnas.strategies import archive
from jnas.strategies.archive import Archive
from jnas.strategies.rewards import NO_BASELINE, Baseline, moved, rewards
from jnas.strategies.settings.learning import Reinforce
from jnas.types import Candidates, Info, Key, Strategy, Values

# Standard deviation of the first logits.
INITIAL = 1e-3


class State(NamedTuple):
    """archive: all evaluations; logits: float32[D, K], -inf for no choice; optimiser: of Adam; baseline: of rewards."""

    archive: Archive
    logits: Array
    optimiser: optax.OptState
    baseline: Baseline


def surrogate(logits: Array, architectures: Array, advantages: Array) -> Array:
    """Mean of -advantage log pi(a): float32[]. logits: float32[D, K]; int32[B, D]; float32[B]."""
    log_pi = jax.nn.log_softmax(logits)[jnp.arange(len(logits)), architectures].sum(axis=-1)
    return -(advantages * log_pi).mean()


def reinforce(space: Space, settings: Reinforce, objectives: int, budget: int) -> Strategy:
    """Draw `batch` architectures, then take one step. With several objectives rewards are ranks (`rewards`)."""
    adam = optax.adam(settings.learning_rate)

    def init(key: Key) -> State:
        drawn = INITIAL * jax.random.normal(key, space.offered.shape)
        logits = jnp.where(space.offered, drawn, -jnp.inf)
        nothing = archive.empty(budget, len(space.decisions), objectives)
        return State(nothing, logits, adam.init(jnp.zeros_like(logits)), NO_BASELINE)

    def ask(key: Key, state: State) -> tuple[Candidates, State]:
        def draw(one: Key) -> Array:
            return jax.random.categorical(one, state.logits)

        keys = jax.random.split(key, settings.batch)
        return Candidates(jax.vmap(lambda one: member(space, one, draw))(keys)), state

    def tell(state: State, candidates: Candidates, values: Values) -> tuple[State, Info]:
        after = archive.add(state.archive, candidates, values)
        given = rewards(after, len(values.value))
        baseline, advantages = moved(state.baseline, given, settings.decay)
        if settings.baseline == "after":
            advantages = jnp.where(jnp.isfinite(given), given - baseline.mean, 0.0)
        gradient = jax.grad(surrogate)(state.logits, jnp.asarray(candidates.architectures), advantages)
        change, optimiser = adam.update(gradient, state.optimiser)
        # A batch in which all failed moves nothing, the means of Adam included.
        learned = (optax.apply_updates(state.logits, change), optimiser)
        logits, optimiser = jax.tree.map(
            lambda new, old: jnp.where(jnp.isfinite(given).any(), new, old),
            learned,
            (state.logits, state.optimiser),
        )
        return State(after, logits, optimiser, baseline), {}

    return Strategy(
        name="reinforce",
        init=init,
        ask=ask,
        tell=tell,
        done=lambda state: False,
        best=lambda state: archive.best(state.archive),
        jittable=True,
    )
