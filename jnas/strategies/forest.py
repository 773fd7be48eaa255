"""Bayesian optimisation with a random forest, as SMAC does it.

    forest       `trees` trees on one-hot decisions, each on a bootstrap sample
    prediction   mean m of the trees, and the deviation s of their means with a floor
    acquisition  expected improvement on the best value
    maximised    by local search: from the `starts` best of random architectures and from the best evaluations, to the
                 best of all neighbours, while it is no worse and for at most ten steps on a plateau
    interleaved  each proposal is a random architecture instead with chance `random`

Hutter, Hoos and Leyton-Brown, "Sequential Model-Based Optimization for General Algorithm Configuration", LION 2011,
https://doi.org/10.1007/978-3-642-25566-3_40; Lindauer et al., "SMAC3", JMLR 2022, https://arxiv.org/abs/2109.09831,
whose defaults are those here.

Departures: values are standardised, not in logarithms, as scores may be negative; s is of the trees' means, without the
variance inside leaves; the forest is fitted anew at every ask; random architectures are 1,000 for 10,000.

Letters: N architectures, M neighbours of one, D decisions.
"""

from collections.abc import Callable

import jax
import numpy as np
from sklearn.ensemble import RandomForestRegressor

from jnas.proxies.combination import fitness
from jnas.spaces import Space
from jnas.strategies import observations
from jnas.strategies.acquisition import expected_improvement
from jnas.strategies.observations import Observations
from jnas.strategies.settings.bayesian import Forest
from jnas.types import Candidates, Key, Strategy

# Variance that the trees have where they agree.
FLOOR = 1e-6
# Steps to neighbours that are no better, and all steps.
PLATEAU = 10
MOST_STEPS = 100


def forest(space: Space, settings: Forest, objectives: int) -> Strategy:
    """The first `initial` at random, then `batch` proposals of the forest at a time."""
    neighbours, improvement = jax.jit(jax.vmap(space.neighbours)), jax.jit(expected_improvement)

    def propose(key: Key, state: Observations) -> np.ndarray:
        """Architectures int32[N, D], those with the highest acquisition first."""
        model_key, random_key = jax.random.split(key)
        values = observations.standardised(state)
        model = RandomForestRegressor(settings.trees, random_state=int(jax.random.bits(model_key)) % 2**31)
        model.fit(one_hot(space, state.architectures), values)

        def worth(rows: np.ndarray) -> np.ndarray:
            mean, deviation = predict(model, one_hot(space, rows))
            return np.asarray(improvement(mean, deviation, values.max()))

        rows = np.asarray(space.sample(random_key, settings.candidates))
        scores = worth(rows)
        order = np.argsort(-scores, kind="stable")[: settings.starts]
        leaders = np.argsort(-values, kind="stable")[: settings.starts]
        starts = np.concatenate([rows[order], state.architectures[leaders]])
        visited, gains = climb(starts, worth, lambda rows: np.asarray(neighbours(rows)))
        rows, scores = np.concatenate([rows, visited]), np.concatenate([scores, gains])
        return rows[np.argsort(-scores, kind="stable")]

    def ask(key: Key, state: Observations) -> tuple[Candidates, Observations]:
        proposal_key, random_key, choice_key, fill_key = jax.random.split(key, 4)
        proposals = np.zeros((0, len(space.decisions)), np.int32)
        interleaved = 0
        if len(state.values) >= settings.initial and np.isfinite(fitness(state.values)).any():
            proposals = propose(proposal_key, state)
            interleaved = int((jax.random.uniform(choice_key, (settings.batch,)) < settings.random).sum())
        drawn = np.asarray(space.sample(random_key, interleaved))
        chosen = np.concatenate([drawn.reshape(-1, len(space.decisions)), proposals])
        return Candidates(observations.distinct_new(space, state, chosen, settings.batch, fill_key)), state

    return Strategy(
        name="forest",
        init=lambda key: observations.nothing(space, objectives),
        ask=ask,
        tell=lambda state, candidates, values: (observations.add(state, candidates, values), {}),
        done=lambda state: False,
        best=observations.best,
    )


def one_hot(space: Space, architectures: np.ndarray) -> np.ndarray:
    """`Space.one_hot` in NumPy, which compiles nothing for another N: float32[N, sum of `decisions`]."""
    starts = np.cumsum((0, *space.decisions[:-1]))
    bits = np.zeros((len(architectures), sum(space.decisions)), np.float32)
    bits[np.arange(len(architectures))[:, None], starts + architectures] = 1
    return bits


def predict(model: RandomForestRegressor, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation over the trees: float64[N], twice."""
    # Without the checks of `predict`, which take longer than the trees do.
    means = np.stack([tree.tree_.predict(features).reshape(-1) for tree in model.estimators_])
    return means.mean(axis=0), np.sqrt(means.var(axis=0) + FLOOR)


def climb(
    starts: np.ndarray,
    worth: Callable[[np.ndarray], np.ndarray],
    neighbours: Callable[[np.ndarray], np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """All architectures int32[N, D] that searches from `starts` come to stand on, and their worth float64[N].

    worth: int32[N, D] -> float64[N]; neighbours: int32[N, D] -> int32[N, M, D].
    """
    current, level = starts, worth(starts)
    visited, gains = [current], [level]
    flat = np.zeros(len(starts), int)
    for _ in range(MOST_STEPS):
        around = neighbours(current)
        values = worth(around.reshape(-1, around.shape[-1])).reshape(around.shape[:2])
        place = values.argmax(axis=1)
        reached = values.max(axis=1)
        flat = np.where(reached > level, 0, flat + 1)
        moves = (reached >= level) & (flat <= PLATEAU)
        if not moves.any():
            break
        current = np.where(moves[:, None], around[np.arange(len(around)), place], current)
        level = np.where(moves, reached, level)
        visited.append(current[moves])
        gains.append(level[moves])
    return np.concatenate(visited), np.concatenate(gains)
