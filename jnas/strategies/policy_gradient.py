"""An LSTM that decides one after another, each time given the choice before, trained by policy gradients.

    pi(a) = prod_d pi(a_d | a_1 .. a_{d-1}),    each factor a softmax of the LSTM's output, for decision d
    A     = (r - b) / (high - low),    by the moving mean b and the range of rewards (`jnas.strategies.rewards`)
    reinforce    -A sum_d log pi(a_d | .)                                                      one step a batch
    ppo          -sum_d min(rho_d A, clip(rho_d, 1 - e, 1 + e) A),  rho_d = pi(a_d | .) / pi_old(a_d | .)
                                                                                         `updates` steps a batch
    both         - entropy * sum_d H(pi(. | a_1 .. a_{d-1})),    mean over the batch, Adam

Zoph and Le, "Neural Architecture Search with Reinforcement Learning", ICLR 2017, https://arxiv.org/abs/1611.01578: two
layers of 35 units, Adam with 6e-4, the cube of the accuracy as the reward. Zoph, Vasudevan, Shlens and Le, "Learning
Transferable Architectures for Scalable Image Recognition" (NASNet), CVPR 2018, https://arxiv.org/abs/1707.07012: PPO
(Schulman et al., 2017, https://arxiv.org/abs/1707.06347), the settings here.

Departures: rewards are not cubed. The baseline holds the rewards before the batch alone. Each decision has embeddings
and a softmax of its own. Where an evaluation failed, its architecture moves nothing.

Letters: B architectures, D decisions, K choices of the decision with most, H units.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from jnas.spaces import Space
from jnas.spaces.subset import member
from jnas.strategies import archive, lstm
from jnas.strategies.archive import Archive
from jnas.strategies.rewards import NO_BASELINE, NO_RANGE, Baseline, Range, moved, rewards, widened, width
from jnas.strategies.settings.learning import PolicyGradient
from jnas.types import Candidates, Info, Key, Params, Strategy, Values


class State(NamedTuple):
    """archive: all evaluations; params: of the policy; optimiser: of Adam; baseline, seen: of rewards."""

    archive: Archive
    params: Params
    optimiser: optax.OptState
    baseline: Baseline
    seen: Range


def initial(key: Key, offered: np.ndarray, layers: int, units: int) -> Params:
    """Parameters of a policy. offered: bool[D, K].

    lstm: of each layer, float32[2 H, 4 H], of its input and its hidden state, and float32[4 H].
    embedding: float32[D, K, H], of the choice before the decision; at the first decision, of no choice.
    head: float32[D, H, K] and float32[D, K].
    """
    decisions, choices = offered.shape
    shapes = {
        "lstm": [lstm.shapes(units, units)] * layers,
        "embedding": (decisions, choices, units),
        "head": [(decisions, units, choices), (decisions, choices)],
    }
    return lstm.drawn(key, shapes)


def unroll(
    params: Params, offered: np.ndarray, choose: Callable[[Array, Any], Array], given: Any
) -> tuple[Array, Array]:
    """Decide from the first to the last: (int32[D], log-probabilities of all choices float32[D, K], -inf for none).

    choose: (log-probabilities float32[K], the part of `given` [D, ...] for the decision) -> the choice int32[].
    """

    def decide(carry: Any, step: Any) -> tuple[Any, tuple[Array, Array]]:
        before, memories = carry
        embedding, head, possible, own = step
        signal, updated = embedding[before], []
        for weights, memory in zip(params["lstm"], memories, strict=True):
            updated.append(lstm.step(weights, signal, memory))
            signal = updated[-1][1]
        logits = signal @ head[0] + head[1]
        log_pi = jax.nn.log_softmax(jnp.where(possible, logits, -jnp.inf))
        choice = choose(log_pi, own).astype(jnp.int32)
        return (choice, updated), (choice, log_pi)

    nothing = jnp.zeros(params["embedding"].shape[-1])
    start = (jnp.int32(0), [(nothing, nothing)] * len(params["lstm"]))
    steps = (params["embedding"], params["head"], jnp.asarray(offered), given)
    return jax.lax.scan(decide, start, steps)[1]


def log_probabilities(params: Params, offered: np.ndarray, architectures: Array) -> tuple[Array, Array]:
    """Log-probabilities of the choices of architectures int32[B, D], and entropies: float32[B, D] each."""

    def of_one(architecture: Array) -> tuple[Array, Array]:
        _, log_pi = unroll(params, offered, lambda log_pi, choice: choice, architecture)
        finite = jnp.where(offered, log_pi, 0.0)
        return finite[jnp.arange(len(finite)), architecture], -(jnp.exp(log_pi) * finite).sum(axis=1)

    return jax.vmap(of_one)(architectures)


def clipped(log_pi: Array, old: Array, advantages: Array, clip: float) -> Array:
    """PPO's surrogate of each architecture, to be maximised: float32[B]. log_pi, old: float32[B, D]; float32[B]."""
    ratio, worth = jnp.exp(log_pi - old), advantages[:, None]
    return jnp.minimum(ratio * worth, jnp.clip(ratio, 1 - clip, 1 + clip) * worth).sum(axis=1)


def policy_gradient(space: Space, settings: PolicyGradient, objectives: int, budget: int) -> Strategy:
    """Draw a batch, then take its steps. With several objectives rewards are ranks (`rewards`)."""
    adam, offered = optax.adam(settings.learning_rate), space.offered

    def init(key: Key) -> State:
        params = initial(key, offered, settings.layers, settings.units)
        nothing = archive.empty(budget, len(offered), objectives)
        return State(nothing, params, adam.init(params), NO_BASELINE, NO_RANGE)

    def ask(key: Key, state: State) -> tuple[Candidates, State]:
        def draw(one: Key) -> Array:
            keys = jax.random.split(one, len(offered))
            return unroll(
                state.params, offered, lambda log_pi, own: jax.random.categorical(own, log_pi), keys
            )[0]

        keys = jax.random.split(key, settings.batch)
        return Candidates(jax.vmap(lambda one: member(space, one, draw))(keys)), state

    def tell(state: State, candidates: Candidates, values: Values) -> tuple[State, Info]:
        architectures = jnp.asarray(candidates.architectures, jnp.int32)
        after = archive.add(state.archive, candidates, values)
        given = rewards(after, len(architectures))
        good, seen = jnp.isfinite(given), widened(state.seen, given)
        baseline, advantages = moved(state.baseline, given, settings.decay)
        advantages = advantages / width(seen)
        old, _ = log_probabilities(state.params, offered, architectures)

        def loss(params: Params) -> Array:
            log_pi, entropy = log_probabilities(params, offered, architectures)
            if settings.loss == "ppo":
                gain = clipped(log_pi, old, advantages, settings.clip)
            else:
                gain = advantages * log_pi.sum(axis=1)
            gain = gain + settings.entropy * entropy.sum(axis=1)
            return -jnp.where(good, gain, 0.0).sum() / jnp.maximum(good.sum(), 1)

        def update(carry: Any, _: None) -> tuple[Any, None]:
            params, optimiser = carry
            change, optimiser = adam.update(jax.grad(loss)(params), optimiser)
            return (optax.apply_updates(params, change), optimiser), None

        before = (state.params, state.optimiser)
        steps = settings.updates if settings.loss == "ppo" else 1
        learned, _ = jax.lax.scan(update, before, length=steps)
        # A batch in which all failed moves nothing, the means of Adam included.
        params, optimiser = jax.tree.map(lambda new, old: jnp.where(good.any(), new, old), learned, before)
        return State(after, params, optimiser, baseline, seen), {}

    return Strategy(
        name="policy_gradient",
        init=init,
        ask=ask,
        tell=tell,
        done=lambda state: False,
        best=lambda state: archive.best(state.archive),
        jittable=True,
    )
