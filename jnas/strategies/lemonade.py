"""LEMONADE: the population is the Pareto front; cheap objectives say twice where it is thin.

    cheap objectives   c(a), numbers that need no training: parameters, multiply-adds; lower is better
    density            f(x) of the front in them: Gaussian kernels around its members, each objective with the
                       bandwidth s n^(-1/(d + 4)), s its standard deviation on the front, n members, d objectives
    parents            members of the front with chances ~ 1 / f(c(parent))
    children           many mutants; the few with chances ~ 1 / f(c(child)), without replacement, are evaluated
    population         the front of all evaluations in the cheap objectives and the estimator's

Elsken, Metzen and Hutter, "Efficient Multi-Objective Neural Architecture Search via Lamarckian Evolution", ICLR 2019,
https://arxiv.org/abs/1804.09081. `Candidates.parent` says whose weights a child inherits.

Departures: children are mutants, not (approximate) network morphisms, so inheritance is up to the estimator. The first
`initial` are random, not simple networks. A child that was evaluated before is evaluated again only where there are no
others. The bandwidth is Scott's, of each objective by itself.

Letters: T evaluations that fit, B children, D decisions, P objectives, C cheap objectives.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jnas.errors import InputError, unknown_name
from jnas.nets import networks, own
from jnas.nets.sizes import Macro, Sizes
from jnas.spaces import Space
from jnas.strategies import archive, pareto
from jnas.strategies.archive import Archive
from jnas.strategies.settings.evolution import Lemonade
from jnas.types import Candidates, Info, Key, Strategy, Values

# Members of the front whose kernels are summed at a time.
AT_ONCE = 32


class State(NamedTuple):
    """archive: all evaluations; cheap: float32[T, C], their cheap objectives; front: bool[T]."""

    archive: Archive
    cheap: Array
    front: Array


def lemonade(
    space: Space,
    settings: Lemonade,
    objectives: tuple[str, ...],
    budget: int,
    cheap: Callable[[Array], Array] | None = None,
) -> Strategy:
    """The first `initial` at random, then the `batch` of `children` mutants that lie where the front is thin.

    cheap: int32[B, D] -> float32[B, C], lower is better; None: the sizes that `settings.cheap` names, which take the
    place of objectives of those names. Raises `InputError` where they are not counted.
    """
    names = settings.cheap.split(",")
    costs = cheap or sizes(space, names)
    others = [place for place, name in enumerate(objectives) if cheap or name not in names]
    initial, many = min(settings.initial, budget), max(settings.children, settings.batch)

    def init(key: Key) -> State:
        nothing = archive.empty(budget, len(space.decisions), len(objectives))
        width = costs(jnp.zeros((1, len(space.decisions)), jnp.int32)).shape[1]
        return State(nothing, jnp.zeros((budget, width)), jnp.zeros(budget, bool))

    def ask(key: Key, state: State) -> tuple[Candidates, State]:
        fresh_key, parent_key, mutation_key, choice_key = jax.random.split(key, 4)
        known = state.archive
        thin = jnp.where(state.front, -log_density(state.cheap, state.front, state.cheap), -jnp.inf)
        # By the sums of chances: noise for each of T evaluations and each draw would take most of an ask's time.
        chances = jnp.exp(thin - jnp.where(state.front.any(), thin.max(), 0.0))
        parents = jax.random.choice(parent_key, budget, (many,), p=chances)
        mutants = space.mutate(mutation_key, known.architectures[parents])
        # The largest of log chances with Gumbel noise are draws without replacement.
        score = -log_density(state.cheap, state.front, costs(mutants))
        score += jax.random.gumbel(choice_key, (many,))
        same = (mutants[:, None] == mutants).all(axis=-1)
        repeated = (archive.places(known, mutants) >= 0) | jnp.triu(same, 1).any(axis=0)
        chosen = jax.lax.top_k(jnp.where(repeated, -jnp.inf, score), settings.batch)[1]
        fresh = (known.told < initial) | ~state.front.any()
        rows = jnp.where(fresh, space.sample(fresh_key, settings.batch), mutants[chosen])
        return Candidates(rows, parent=jnp.where(fresh, -1, parents[chosen])), state

    def tell(state: State, candidates: Candidates, values: Values) -> tuple[State, Info]:
        after = archive.add(state.archive, candidates, values)
        new = state.archive.told + jnp.arange(len(values.value))
        cost = state.cheap.at[new].set(costs(jnp.asarray(candidates.architectures, jnp.int32)), mode="drop")
        compared = jnp.concatenate([after.values[:, others], -cost], axis=1)
        failed = ~jnp.isfinite(after.values).all(axis=1, keepdims=True)
        compared = jnp.where(failed, -jnp.inf, compared)
        return State(after, cost, pareto.joined(state.front, compared, new)), {}

    return Strategy(
        name="lemonade",
        init=init,
        ask=ask,
        tell=tell,
        done=lambda state: False,
        best=lambda state: archive.best(state.archive),
        jittable=not own.is_own(space) or cheap is not None,
    )


def log_density(points: Array, among: Array, at: Array) -> Array:
    """Log of a kernel density estimate, up to a constant: float32[n, C], bool[n] and float32[m, C] -> float32[m].

    The density of the points that `among` says, at others.
    """
    count = jnp.maximum(among.sum(), 1)
    weights = among[:, None].astype(points.dtype)
    centre = (points * weights).sum(axis=0) / count
    variance = ((points - centre) ** 2 * weights).sum(axis=0) / jnp.maximum(count - 1, 1)
    bandwidth = jnp.sqrt(variance) * count ** (-1 / (points.shape[1] + 4))
    # Equal points have no deviation: all places are then alike but for their own.
    bandwidth = jnp.where(bandwidth > 0, bandwidth, 1.0)
    # A few members at a time: a front is far smaller than the archive.
    members = points[jnp.append(jnp.argsort(~among, stable=True), jnp.zeros(AT_ONCE, int))]

    def more(state: tuple[Array, Array]) -> tuple[Array, Array]:
        first, total = state
        some = jax.lax.dynamic_slice_in_dim(members, first, AT_ONCE)
        squares = sum(
            ((at[:, None, axis] - some[:, axis]) / bandwidth[axis]) ** 2 for axis in range(at.shape[1])
        )
        inside = first + jnp.arange(AT_ONCE) < among.sum()
        own = jax.nn.logsumexp(jnp.where(inside, -squares / 2, -jnp.inf), axis=1)
        return first + AT_ONCE, jnp.logaddexp(total, own)

    start = jnp.int32(0), jnp.full(len(at), -jnp.inf)
    return jax.lax.while_loop(lambda state: state[0] < among.sum(), more, start)[1]


def sizes(space: Space, names: list[str]) -> Callable[[Array], Array]:
    """Sizes in millions, of NAS-Bench-201's network for CIFAR-10 or its like: int32[B, D] -> float32[B, C].

    Those of cells are sums over edges, so they run under jit. Raises `InputError` for an unknown size and for a space
    whose architectures are no networks by themselves.
    """
    for name in names:
        if name not in Sizes._fields:
            raise unknown_name("size", name, Sizes._fields)

    def counted(choices: np.ndarray) -> np.ndarray:
        every = networks.sizes_of(space, Macro(), choices)._asdict()
        return np.stack([every[name] for name in names], axis=-1) / 1e6

    if own.is_own(space):
        return lambda architectures: jnp.asarray(
            counted(np.asarray(space.choices(architectures))), jnp.float32
        )
    if space.network not in networks.NETWORKS:
        raise InputError(
            f"lemonade counts sizes of networks, and architectures of {space.name} are built with their supernet "
            "alone: choose another strategy, such as nsga2"
        )
    cells, edges, operations = space.allowed.shape
    base = np.zeros((cells, edges), np.int32)
    each = np.broadcast_to(base, (cells, edges, operations, cells, edges)).copy()
    cell, edge, operation = np.indices(space.allowed.shape)
    each[cell, edge, operation, cell, edge] = operation
    whole = counted(base)
    parts = jnp.asarray(counted(each) - whole, jnp.float32)
    total = jnp.asarray(whole, jnp.float32)
    return lambda architectures: total + jnp.einsum("bcek,ceko->bo", space.gates(architectures), parts)
