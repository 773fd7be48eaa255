"""LaNAS: a tree of linear regressions splits the space into good and bad regions; UCB chooses one of them.

    node       f(a) = w . (x(a) - m) + v, fitted to its evaluations by ridge regression; x(a) one-hot decisions, m and v
               means over the node
    split      an architecture with f(a) > v, the mean prediction, belongs to the first child, any other to the second
    walk       from the root to the child with the largest mean + c sqrt(2 log N / n), down to a leaf;
               N evaluations in the region of the node, n in that of the child, means scaled to 0..1
    draw       any architecture of the leaf's region that was not evaluated
    retrain    all regressions, every `retrain` evaluations

Wang, Xie, Li, Fonseca and Tian, "Sample-Efficient Neural Architecture Search by Learning Actions for Monte Carlo Tree
Search", PAMI 2021, https://arxiv.org/abs/1906.06832.

Departures: c = 2 C_p is on values scaled by their range, where the authors' C_p is on accuracies. Penalised weights,
as one-hot columns add to one. A node with fewer than `LEAST` evaluations, or whose regression puts all on one side, is
a leaf. A space of at most 20,000 is listed; in a larger one a region is met by `candidates` draws, half of them mutants
of the best, and a child in which none of them lies is not entered. A batch counts as visits while it is chosen. A
failure has the worst finite value.

Letters: B candidates asked for, N to choose from, T evaluations that fit, F features, S nodes that may split.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jnas.spaces import Space
from jnas.strategies import archive
from jnas.strategies.archive import Archive
from jnas.strategies.gaussian_process import targets
from jnas.strategies.settings.learning import Lanas
from jnas.strategies.unseen import mutants, shuffled, unseen
from jnas.types import Candidates, Info, Key, Strategy, Values

# Evaluations of a node that is split, and the penalty of squared weights.
LEAST = 10
PENALTY = 1.0
# The best evaluations, whose mutants are candidates of a space that is not listed.
PARENTS = 10


class Tree(NamedTuple):
    """Regressions in the order of a heap: the children of node s are 2 s + 1, the good one, and 2 s + 2.

    weights: float32[S, F]; threshold: float32[S], w . m; split: bool[S], False for a leaf.
    """

    weights: Array
    threshold: Array
    split: Array


class State(NamedTuple):
    """archive: all evaluations; tree: of the last training; inside: bool[N, 2 S + 1], regions of a list; else N = 0."""

    archive: Archive
    tree: Tree
    inside: Array


def members(tree: Tree, bits: Array) -> Array:
    """Regions in which architectures float32[N, F] lie: bool[N, 2 S + 1], one leaf each and all nodes above it."""
    good = bits @ tree.weights.T > tree.threshold
    levels, first = [jnp.ones((len(bits), 1), bool)], 0
    while first < len(tree.split):
        width = levels[-1].shape[1]
        above, own = levels[-1] & tree.split[first : first + width], good[:, first : first + width]
        levels.append(jnp.stack([above & own, above & ~own], axis=-1).reshape(len(bits), 2 * width))
        first += width
    return jnp.concatenate(levels, axis=1)


def trained(bits: Array, values: Array, observed: Array, height: int) -> Tree:
    """The tree of float32[T, F] and float32[T], of which bool[T] count: at most `height` splits one below another."""

    def node(inside: Array) -> Tree:
        share = inside / jnp.maximum(inside.sum(), 1)
        centred = jnp.where(inside[:, None], bits - share @ bits, 0.0)
        product = centred.T @ centred + PENALTY * jnp.eye(bits.shape[1])
        weights = jnp.linalg.solve(product, centred.T @ (values - share @ values))
        threshold = weights @ (share @ bits)
        good = bits @ weights > threshold
        both = (inside & good).any() & (inside & ~good).any()
        return Tree(weights, threshold, both & (inside.sum() >= LEAST))

    inside, levels = observed[None], []
    for _ in range(height):
        level = jax.vmap(node)(inside)
        good = level.weights @ bits.T > level.threshold[:, None]
        below = inside & level.split[:, None]
        inside = jnp.stack([below & good, below & ~good], axis=1).reshape(-1, len(bits))
        levels.append(level)
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *levels)


def walked(tree: Tree, mean: Array, visits: Array, able: Array, exploration: float) -> Array:
    """The leaf int32[] where a walk from the root ends.

    mean, visits: float32[2 S + 1]; able: bool[2 S + 1], the nodes that may be entered.
    """
    bound = jnp.log(jnp.maximum(visits, 1.0))

    def down(_: int, node: Array) -> Array:
        children = 2 * node + jnp.array([1, 2])
        worth = mean[children] + exploration * jnp.sqrt(2 * bound[node] / jnp.maximum(visits[children], 1.0))
        worth = jnp.where(able[children], worth, -jnp.inf)
        inner = (node < len(tree.split)) & tree.split[jnp.minimum(node, len(tree.split) - 1)]
        return jnp.where(inner & able[children].any(), children[jnp.argmax(worth)], node)

    height = (len(tree.split) + 1).bit_length() - 1
    return jax.lax.fori_loop(0, height, down, jnp.int32(0))


def lanas(space: Space, settings: Lanas, objectives: int, budget: int) -> Strategy:
    """The first `initial` at random, then draws from regions, `batch` at a time."""
    pool = unseen(space)
    listed = space.one_hot(space.sample(jax.random.key(0), 1)[:0] if pool.listed is None else pool.listed)

    def init(key: Key) -> State:
        nothing, nodes = archive.empty(budget, len(space.decisions), objectives), 2**settings.height - 1
        leaf = Tree(jnp.zeros((nodes, listed.shape[1])), jnp.zeros(nodes), jnp.zeros(nodes, bool))
        return State(nothing, leaf, members(leaf, listed))

    def tell(state: State, candidates: Candidates, values: Values) -> tuple[State, Info]:
        after = archive.add(state.archive, candidates, values)

        def anew() -> tuple[Tree, Array]:
            worth, observed = targets(after)
            fresh = (after.told - settings.initial) % settings.retrain
            known = observed & (jnp.arange(budget) < after.told - fresh)
            tree = trained(space.one_hot(after.architectures), worth, known, settings.height)
            return tree, members(tree, listed)

        # How often it was trained when so many were told.
        before, now = (
            (told - settings.initial) // settings.retrain + 1 for told in (state.archive.told, after.told)
        )
        due = (now > before) & (now > 0)
        return State(after, *jax.lax.cond(due, anew, lambda: (state.tree, state.inside))), {}

    def ask(key: Key, state: State) -> tuple[Candidates, State]:
        mutant_key, random_key, walk_key, choice_key = jax.random.split(key, 4)
        known, tree = state.archive, state.tree
        if pool.listed is not None:
            rows, inside = pool.listed, state.inside
        else:
            half = settings.candidates // 2
            close = mutants(mutant_key, space, known, half, PARENTS)
            rows = jnp.concatenate([close, space.sample(random_key, settings.candidates - half)])
            inside = members(tree, space.one_hot(rows))
        # Regions by the evaluations that were there when the tree was last trained, visits by all.
        values, observed = targets(known)
        low, high = jnp.min(values, where=observed, initial=0.0), jnp.max(values, where=observed, initial=0.0)
        scaled = jnp.where(observed, values - low, 0.0) / jnp.where(high > low, high - low, 1.0)
        regions = members(tree, space.one_hot(known.architectures)) & observed[:, None]
        visits = regions.sum(axis=0).astype(jnp.float32)
        mean = scaled @ regions / jnp.maximum(visits, 1.0)

        def draw(carry: tuple[Array, Array, Array], step: Array) -> tuple[tuple[Array, Array, Array], None]:
            scores, left, visits = carry
            able = (inside & left[:, None]).any(axis=0)
            leaf = walked(tree, mean, visits, able, settings.exploration)
            noise = shuffled(jax.random.fold_in(walk_key, step), len(rows))
            chosen = jnp.argmax(jnp.where(inside[:, leaf] & left, noise, -1.0))
            scores = scores.at[chosen].set(-step.astype(jnp.float32))
            return (scores, left.at[chosen].set(False), visits + inside[chosen]), None

        start = (jnp.full(len(rows), -jnp.inf), pool.new(known, rows), visits)
        steps = jnp.arange(min(settings.batch, len(rows)))
        scores = jax.lax.scan(draw, start, steps)[0][0]
        ready = (known.told >= settings.initial) & observed.any()
        scores = jnp.where(ready, scores, -jnp.inf)
        return Candidates(pool.choose(choice_key, known, rows, scores, settings.batch)), state

    return Strategy(
        name="lanas",
        init=init,
        ask=ask,
        tell=tell,
        done=lambda state: pool.used_up(state.archive),
        best=lambda state: archive.best(state.archive),
        jittable=True,
    )
