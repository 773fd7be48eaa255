"""EAS: edits of an architecture by a bidirectional LSTM that reads its decisions, trained by REINFORCE.

    h_d        the LSTM's states at decision d, forwards and backwards, of embedded choices
    position   pi(d) = softmax_d(u . tanh(h_d)),    which decision is changed
    value      pi(k | d) = softmax_k(V_d h_d) over the choices that d does not have now
    episode    `edits` changes from the start; its last architecture is evaluated and has the reward r
    loss       -(r - b) / (high - low) sum over the edits of log pi(d) pi(k | d), minus `entropy` times their entropies;
               mean over the batch, Adam; b, high and low as for `jnas.strategies.policy_gradient`
    start      of the first batch a random architecture, then the best that was evaluated

Cai, Chen, Zhang, Yu and Wang, "Efficient Architecture Search by Network Transformation", AAAI 2018,
https://arxiv.org/abs/1707.04873. `Candidates.parent` says that episodes inherit the weights of their start.

Departures: their actors widen a layer or insert one, as morphisms of networks do; on decisions one actor chooses the
position, another the value, and no function is preserved. They start again from the best after some hundred networks;
here every batch does. Rewards are scaled by their range, where they take tan(accuracy pi / 2). Where an evaluation
failed, its episode moves nothing. An episode that leaves a restricted space is drawn again, `TRIES` times.

Letters: B episodes, N edits, D decisions, K choices of the decision with most, H units.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from jnas.proxies.combination import fitness
from jnas.spaces import Space
from jnas.spaces.subset import TRIES
from jnas.strategies import archive, lstm
from jnas.strategies.archive import Archive
from jnas.strategies.rewards import NO_BASELINE, NO_RANGE, Baseline, Range, moved, rewards, widened, width
from jnas.strategies.settings.learning import Editing
from jnas.types import Candidates, Info, Key, Params, Strategy, Values


class State(NamedTuple):
    """State of the policy, and what the last batch was drawn from.

    archive: all evaluations; params: of the policy; optimiser: of Adam; baseline, seen: of rewards.
    start: int32[D]; actions: int32[B, N, 2], the decision and its new choice of each edit; own: bool[B], False where
      they lead to no member of the space and a random member was asked for.
    """

    archive: Archive
    params: Params
    optimiser: optax.OptState
    baseline: Baseline
    seen: Range
    start: Array
    actions: Array
    own: Array


def initial(key: Key, offered: np.ndarray, embedding: int, units: int) -> Params:
    """Parameters of a policy. offered: bool[D, K].

    embedding: float32[D, K, E], of choices. forwards, backwards: of the LSTM. position: float32[2 H]. value:
    float32[D, 2 H, K] and float32[D, K].
    """
    decisions, choices = offered.shape
    shapes = {
        "embedding": (decisions, choices, embedding),
        "forwards": lstm.shapes(embedding, units),
        "backwards": lstm.shapes(embedding, units),
        "position": (2 * units,),
        "value": [(decisions, 2 * units, choices), (decisions, choices)],
    }
    return lstm.drawn(key, shapes)


def policy(params: Params, offered: np.ndarray, architecture: Array) -> Array:
    """Log-probabilities of all edits of an architecture int32[D]: float32[D, K], -inf for none."""
    decisions = jnp.arange(len(offered))
    signals = params["embedding"][decisions, architecture]
    nothing = jnp.zeros(params["position"].shape[0] // 2)

    def read(weights: list[Array], reverse: bool) -> Array:
        def step(memory: lstm.Memory, signal: Array) -> tuple[lstm.Memory, Array]:
            after = lstm.step(weights, signal, memory)
            return after, after[1]

        return jax.lax.scan(step, (nothing, nothing), signals, reverse=reverse)[1]

    states = jnp.concatenate([read(params["forwards"], False), read(params["backwards"], True)], axis=1)
    position = jax.nn.log_softmax(jnp.tanh(states) @ params["position"])
    logits = jnp.einsum("dh,dhk->dk", states, params["value"][0]) + params["value"][1]
    possible = jnp.asarray(offered).at[decisions, architecture].set(False)
    return position[:, None] + jax.nn.log_softmax(jnp.where(possible, logits, -jnp.inf), axis=1)


def episode(
    params: Params, offered: np.ndarray, start: Array, choose: Callable[[Array, Any], Array], given: Any
) -> tuple[Array, Array, Array, Array]:
    """Edit int32[D] N times: (architecture int32[D], edits int32[N, 2], their log-probabilities, entropies float32[N]).

    choose: (log-probabilities float32[D, K], the part of `given` [N, ...] for the edit) -> (decision, choice) int32[2].
    """

    def edit(architecture: Array, own: Any) -> tuple[Array, tuple[Array, Array, Array]]:
        log_pi = policy(params, offered, architecture)
        decision, choice = chosen = choose(log_pi, own)
        finite = jnp.where(jnp.isfinite(log_pi), log_pi, 0.0)
        entropy = -(jnp.exp(log_pi) * finite).sum()
        return architecture.at[decision].set(choice), (chosen, finite[decision, choice], entropy)

    architecture, (edits, log_pi, entropies) = jax.lax.scan(edit, start, given)
    return architecture, edits, log_pi, entropies


def editing(space: Space, settings: Editing, objectives: int, budget: int) -> Strategy:
    """Episodes from one start, then a step. With several objectives rewards are ranks (`rewards`)."""
    adam, offered = optax.adam(settings.learning_rate), space.offered
    decisions, choices = offered.shape
    tries = 1 if space.moves is None else TRIES

    def init(key: Key) -> State:
        params = initial(key, offered, settings.embedding, settings.units)
        nothing = archive.empty(budget, decisions, objectives)
        actions = jnp.zeros((settings.batch, settings.edits, 2), jnp.int32)
        start, own = jnp.zeros(decisions, jnp.int32), jnp.zeros(settings.batch, bool)
        return State(nothing, params, adam.init(params), NO_BASELINE, NO_RANGE, start, actions, own)

    def drawn(log_pi: Array, key: Key) -> Array:
        place = jax.random.categorical(key, log_pi.reshape(-1))
        return jnp.stack([place // choices, place % choices]).astype(jnp.int32)

    def ask(key: Key, state: State) -> tuple[Candidates, State]:
        start_key, edit_key = jax.random.split(key)
        worth = fitness(state.archive.values)
        place = jnp.where(jnp.isfinite(worth).any(), jnp.argmax(worth), -1)
        fresh = space.sample(start_key, 1)[0]
        start = jnp.where(place >= 0, state.archive.architectures[place], fresh)

        def one(key: Key) -> tuple[Array, Array, Array]:
            """(architecture int32[D], edits int32[N, 2], whether they lead to it): the first member among draws."""
            keys = jax.random.split(key, (tries, settings.edits))
            tried, edits, *_ = jax.vmap(lambda own: episode(state.params, offered, start, drawn, own))(keys)
            good = space.contains(tried)
            first = jnp.argmax(good)
            return jnp.where(good.any(), tried[first], space.sample(key, 1)[0]), edits[first], good.any()

        rows, actions, own = jax.vmap(one)(jax.random.split(edit_key, settings.batch))
        parent = jnp.where(own, place, -1)
        return Candidates(rows, parent=parent), state._replace(start=start, actions=actions, own=own)

    def tell(state: State, candidates: Candidates, values: Values) -> tuple[State, Info]:
        count = len(values.value)
        after = archive.add(state.archive, candidates, values)
        given = rewards(after, count)
        seen = widened(state.seen, given)
        baseline, advantages = moved(state.baseline, given, settings.decay)
        advantages = advantages / width(seen)
        good = jnp.isfinite(given) & state.own[:count]

        def loss(params: Params) -> Array:
            def gain(actions: Array, advantage: Array) -> Array:
                _, _, log_pi, entropies = episode(
                    params, offered, state.start, lambda log_pi, action: action, actions
                )
                return advantage * log_pi.sum() + settings.entropy * entropies.sum()

            gains = jax.vmap(gain)(state.actions[:count], advantages)
            return -jnp.where(good, gains, 0.0).sum() / jnp.maximum(good.sum(), 1)

        before = (state.params, state.optimiser)
        change, optimiser = adam.update(jax.grad(loss)(state.params), state.optimiser)
        learned = (optax.apply_updates(state.params, change), optimiser)
        # A batch in which all failed moves nothing, the means of Adam included.
        params, optimiser = jax.tree.map(lambda new, old: jnp.where(good.any(), new, old), learned, before)
        return state._replace(
            archive=after, params=params, optimiser=optimiser, baseline=baseline, seen=seen
        ), {}

    return Strategy(
        name="editing",
        init=init,
        ask=ask,
        tell=tell,
        done=lambda state: False,
        best=lambda state: archive.best(state.archive),
        jittable=True,
    )
