"""UCT over decisions: a tree of prefixes grows by one node an evaluation, where upper confidence bounds are highest.

    at a node: a child that has no node yet, at random, or else the child with the largest
                   mean + c sqrt(2 log N / n),    N visits of the node, n of the child, mean in 0..1
    below the tree: choices at random
    told: the reward is added to every node on the architecture's path

Kocsis and Szepesvári, "Bandit Based Monte-Carlo Planning", ECML 2006, https://doi.org/10.1007/11871842_29; over the
decisions of an architecture: Negrinho and Gordon, "DeepArchitect", 2017, https://arxiv.org/abs/1704.08792.

Departures: means are scaled by the range of rewards seen, as accuracies lie close together and c = 1 would explore for
ever. A visit counts when it is asked for, before its value is told, so that a batch spreads over the tree (Liu et al.,
"Watch the Unobserved", ICLR 2020, https://arxiv.org/abs/1810.11755).

Letters: D decisions, K choices of the decision with most, T nodes.
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
from jnas.strategies.settings.learning import TreeSearch
from jnas.types import Candidates, Info, Key, Strategy, Values


class State(NamedTuple):
    """A tree in arrays; node 0 is the root, T stands for no node.

    archive: all evaluations.
    children: int32[T, K], the node of each choice.
    nodes: int32[], how many there are.
    visits: int32[T], how often an architecture below the node was asked for.
    sums: [T], of the rewards told of them.
    seen: the range of rewards.
    """

    archive: Archive
    children: Array
    nodes: Array
    visits: Array
    sums: Sums
    seen: Range


def path(children: Array, architecture: Array) -> Array:
    """The nodes on the way of an architecture int32[D], from the root down: int32[D + 1], T below the tree."""
    outside = len(children)

    def down(node: Array, choice: Array) -> tuple[Array, Array]:
        below = jnp.where(node < outside, children[jnp.minimum(node, outside - 1), choice], outside)
        return below, below

    root = jnp.int32(0)
    return jnp.concatenate([root[None], jax.lax.scan(down, root, architecture)[1]])


def tree_search(space: Space, settings: TreeSearch, objectives: int, budget: int) -> Strategy:
    """One node more for each evaluation. With several objectives rewards are ranks (`rewards`)."""
    offered = jnp.asarray(space.offered)
    room = budget + 1

    def init(key: Key) -> State:
        none = jnp.zeros(room, jnp.int32)
        return State(
            archive.empty(budget, len(space.decisions), objectives),
            jnp.full((room, offered.shape[1]), room, jnp.int32),
            jnp.int32(1),
            none,
            Sums(none, none, jnp.zeros(room)),
            NO_RANGE,
        )

    def walk(state: State, worth: Array, key: Key) -> Array:
        """An architecture int32[D]: by the tree as far as it goes, at random from there on."""

        def choose(node: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
            noise, possible = step
            here = jnp.minimum(node, room - 1)
            child = state.children[here]
            known = child < room
            at = jnp.minimum(child, room - 1)
            visits = jnp.maximum(jnp.stack([state.visits[here], *state.visits[at]]), 1).astype(jnp.float32)
            bound = worth[at] + settings.exploration * jnp.sqrt(2 * jnp.log(visits[0]) / visits[1:])
            score = jnp.where(known & (node < room), bound, jnp.inf)
            score = jnp.where(possible, score, -jnp.inf)
            # Of the best, one at random.
            choice = jnp.argmax(jnp.where(score == score.max(), noise, -1))
            return jnp.where(node < room, child[choice], room), choice.astype(jnp.int32)

        noise = jax.random.uniform(key, offered.shape)
        return jax.lax.scan(choose, jnp.int32(0), (noise, offered))[1]

    def ask(key: Key, state: State) -> tuple[Candidates, State]:
        worth = means(state.sums, state.seen)

        def one(state: State, key: Key) -> tuple[State, Array]:
            architecture = member(space, key, lambda draw: walk(state, worth, draw))
            nodes = path(state.children, architecture)
            # The first node that is not there yet, unless the path or the room is at its end.
            level = jnp.argmax(nodes == room)
            grows = (nodes == room).any() & (state.nodes < room)
            parent = jnp.where(grows, nodes[level - 1], room)
            children = state.children.at[parent, architecture[level - 1]].set(state.nodes, mode="drop")
            nodes = nodes.at[jnp.where(grows, level, len(nodes))].set(state.nodes, mode="drop")
            visits = state.visits.at[nodes].add(1, mode="drop")
            return state._replace(children=children, nodes=state.nodes + grows, visits=visits), architecture

        state, architectures = jax.lax.scan(one, state, jax.random.split(key, settings.batch))
        return Candidates(architectures), state

    def tell(state: State, candidates: Candidates, values: Values) -> tuple[State, Info]:
        after = archive.add(state.archive, candidates, values)
        given = rewards(after, len(values.value))

        def add(sums: Sums, row: tuple[Array, Array]) -> tuple[Sums, None]:
            architecture, reward = row
            return counted(sums, (path(state.children, architecture),), reward), None

        architectures = jnp.asarray(candidates.architectures, jnp.int32)
        sums, _ = jax.lax.scan(add, state.sums, (architectures, given))
        return state._replace(archive=after, sums=sums, seen=widened(state.seen, given)), {}

    return Strategy(
        name="tree_search",
        init=init,
        ask=ask,
        tell=tell,
        done=lambda state: False,
        best=lambda state: archive.best(state.archive),
        jittable=True,
    )
