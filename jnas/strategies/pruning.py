"""TE-NAS: prune a supernet down to one cell by trainability and expressivity.

Chen, Gong and Wang, "Neural Architecture Search on ImageNet in Four GPU Hours: A Theoretically Inspired
Perspective", ICLR 2021, https://arxiv.org/abs/2102.11535. In each round every operation o that is still on an
edge with others is left out in turn. With kappa the condition number of the kernel and R the linear regions,

    dkappa_o = kappa(N) - kappa(N \\ o)   ranked descending: pruning o should lower kappa
    dR_o     = R(N) - R(N \\ o)           ranked ascending: pruning o should raise R

relative to the supernet's. With values whose sign is turned so that higher is better both are one rule, which holds
for any objectives: rank the improvement (candidate - supernet) / |supernet|, the largest first. One ranking runs over
all edges and cells, equal values share a rank. On each edge the operations with the lowest sum of ranks go, until one
is left on every edge. `none` is left out from the start. Several operations on an edge enter with equal gates that sum
to one.

Where nodes have fewer edges than the supernet (`Space.incoming`, 2 for DARTS), a last round leaves out each
edge into a node with more of them; the rankings run over the edges into one node, and the lowest sums go.

Departures from the authors' code: within a repeat the supernet and all candidates share weights and images
(theirs draws a new pair for each candidate), so the supernet is scored once; values are compared by what they
are, where theirs sorts rounded values and finds ties among unrounded ones; a supernet or candidate without a
finite score loses or wins by rule (`improvements`), where theirs stops.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jnas.spaces import Space
from jnas.strategies.settings import Pruning
from jnas.types import Candidates, Info, Strategy, Values

REMOVED_FIRST = "none"


class State(NamedTuple):
    """active: bool[cells, E, K], the operations that are left; round: how many rounds are done; space: of what."""

    active: np.ndarray
    round: int
    space: Space


class Decision(NamedTuple):
    """Verdict on one candidate.

    cell, edge, operation: left out; the last operation of its edge where the edge as a whole was a candidate.
    changes: P improvements by leaving it out; ranks: P, 0 for the largest.
    pruned: whether it went.
    """

    cell: int
    edge: int
    operation: int
    changes: tuple[float, ...]
    ranks: tuple[int, ...]
    pruned: bool


def init(space: Space) -> State:
    """Every operation but `none` on every edge."""
    active = space.allowed.copy()
    if REMOVED_FIRST in space.operations:
        # An edge that may carry nothing else keeps it.
        active[active.sum(-1) > 1, space.operations.index(REMOVED_FIRST)] = False
    return State(active, 0, space)


def finished(state: State) -> bool:
    """True where one operation is left on every edge, and no node has more edges than it keeps."""
    return not len(removable(state))


def of_edges(state: State) -> bool:
    """True where whole edges may go next."""
    return bool((state.active.sum(-1) == 1).all())


def removable(state: State) -> np.ndarray:
    """The (cell, edge, operation) that may go: int64[M, 3], in the end all but those of a finished search.

    All that are not alone on their edge; when all are, those of edges into a node that keeps fewer.
    """
    active = state.active
    if not of_edges(state):
        return np.argwhere(active & (active.sum(-1, keepdims=True) > 1))
    crowded = _present(state) & _crowded(state)
    return np.argwhere(active & crowded[..., None])


def _present(state: State) -> np.ndarray:
    """Edges that carry an operation other than `none`: bool[cells, E]."""
    names = state.space.operations
    carried = [place for place, name in enumerate(names) if name != REMOVED_FIRST]
    return np.logical_or.reduce(state.active[..., carried], axis=-1)


def _crowded(state: State) -> np.ndarray:
    """Edges into a node with more edges than it keeps: bool[cells, E]."""
    if state.space.incoming is None:
        return np.zeros(state.active.shape[:2], bool)
    targets = np.array([target for _, target in state.space.edges])
    present = _present(state)
    arriving = np.stack([present[:, targets == target].sum(-1) for target in targets], axis=-1)
    return np.greater(arriving, state.space.incoming)


def gates_of(active: np.ndarray) -> np.ndarray:
    """Equal gates over the active operations of each edge: bool[..., E, K] to float32[..., E, K]."""
    return (active / active.sum(-1, keepdims=True)).astype(np.float32)


def _without(state: State, active: np.ndarray, index: Sequence[int]) -> np.ndarray:
    """`active` without one (cell, edge, operation); an edge without any carries `none`."""
    cell, edge, operation = index
    active = active.copy()
    active[cell, edge, operation] = False
    if not active[cell, edge].any():
        active[cell, edge, state.space.operations.index(REMOVED_FIRST)] = True
    return active


def ask(state: State) -> np.ndarray:
    """Gates to score: float32[1 + M, cells, E, K], the supernet and then it without each removable one."""
    candidates = [_without(state, state.active, index) for index in removable(state)]
    return gates_of(np.stack([state.active, *candidates]))


def largest_ask(space: Space) -> int:
    """The most gates that `ask` ever returns."""
    return len(ask(init(space)))


def improvements(values: np.ndarray, objectives: Sequence[str], decimals: int | None = None) -> np.ndarray:
    """Relative gain of each candidate over the supernet: float64[P, M] from values [1 + M, R].

    (candidate - supernet) / |supernet| of oriented values, the mean over the repeats of each of the P objectives. The R
    columns are `objectives`: `ntk/0`, `ntk/1`, ... are repeats of `ntk`. A failure, -inf, counts as infinitely bad:
    -inf where only the candidate failed, 1 (the limit of a condition number) where only the supernet did, 0 where both.

    decimals: round the change of each repeat to so many before averaging (the authors' code: 3).
    """
    base, candidates = values[:1], values[1:]
    with np.errstate(invalid="ignore", divide="ignore"):
        change = (candidates - base) / np.abs(base)
    failed, failed_base = ~np.isfinite(candidates), ~np.isfinite(base)
    change = np.where(failed_base, np.where(failed, 0.0, 1.0), np.where(failed, -np.inf, change))
    # The mean of values rounded in binary need not tie where their decimals do: round it too.
    change = change if decimals is None else np.round(change, decimals)
    names = [name.partition("/")[0] for name in objectives]
    means = np.stack([change[:, np.array(names) == name].mean(axis=1) for name in dict.fromkeys(names)])
    return means if decimals is None else np.round(means, decimals + 2)


def dense_rank(values: np.ndarray) -> np.ndarray:
    """Rank from 0, ascending; equal values share one and the next value takes the next: int64[M]."""
    return np.unique(values, return_inverse=True)[1].reshape(values.shape)


def prune(state: State, changes: np.ndarray, operations_per_round: int = 1) -> tuple[State, list[Decision]]:
    """Prune by the improvements float64[P, M] of leaving out each of `removable(state)`.

    The lowest sums of ranks go, rank 0 for the largest improvement. A tie goes to the lower rank of the first
    objective, then to the earlier operation. At least one operation stays on an edge.
    """
    indices = removable(state)
    cells, edges, _ = indices.T
    whole_edges = of_edges(state)
    # Candidates compete for a place with those on one edge, or with the edges into one node.
    places = np.array([target for _, target in state.space.edges])[edges] if whole_edges else edges
    groups = [
        np.flatnonzero((cells == cell) & (places == place))
        for cell, place in sorted({*zip(cells, places, strict=True)})
    ]
    ranks = np.zeros(changes.shape, int)
    for ranked in groups if whole_edges else [np.arange(len(indices))]:
        for rank, change in zip(ranks, changes, strict=True):
            rank[ranked] = dense_rank(-change[ranked])
    active = state.active
    pruned = np.zeros(len(indices), bool)
    for group in groups:
        order = sorted(group, key=lambda m: (ranks[:, m].sum(), ranks[0, m], m))
        incoming = state.space.incoming if whole_edges else None
        count = min(operations_per_round, len(order) - 1) if incoming is None else len(order) - incoming
        for m in order[:count]:
            pruned[m] = True
            active = _without(state, active, indices[m])
    decisions = [
        Decision(int(cell), int(edge), int(operation), tuple(change), tuple(rank), bool(gone))
        for (cell, edge, operation), change, rank, gone in zip(
            indices, changes.T.tolist(), ranks.T.tolist(), pruned, strict=True
        )
    ]
    return state._replace(active=active, round=state.round + 1), decisions


def result(state: State) -> np.ndarray:
    """The architecture that is left, int32[D]; of an unfinished state with the first operations and edges."""
    while not finished(state):
        state, _ = prune(state, np.zeros((1, len(removable(state)))), len(state.space.operations))
    return state.space.from_gates(state.active)


def planned(space: Space, operations_per_round: int = 1) -> list[int]:
    """Number of supernets that each round of a pruning asks for."""
    state, counts = init(space), []
    while not finished(state):
        counts.append(1 + len(removable(state)))
        state, _ = prune(state, np.zeros((1, counts[-1] - 1)), operations_per_round)
    return counts


def pruning(space: Space, settings: Pruning, objectives: Sequence[str]) -> Strategy:
    """TE-NAS's pruning as a strategy that asks for gates.

    objectives: the names of the estimator's, in their order; repeats apart, as `improvements` says.
    """
    operations_per_round, decimals = settings.operations_per_round, settings.decimals or None

    def tell(state: State, candidates: Candidates, values: Values) -> tuple[State, Info]:
        told = np.asarray(values.value, np.float64)
        after, decisions = prune(state, improvements(told, objectives, decimals), operations_per_round)
        names = list(dict.fromkeys(name.partition("/")[0] for name in objectives))
        rows = [
            {
                "cell": decision.cell,
                "edge": decision.edge,
                "source": space.edges[decision.edge][0],
                "target": space.edges[decision.edge][1],
                "operation": space.operations[decision.operation],
                **{f"{name}_change": change for name, change in zip(names, decision.changes, strict=True)},
                **{f"{name}_rank": rank for name, rank in zip(names, decision.ranks, strict=True)},
                "pruned": decision.pruned,
            }
            for decision in decisions
        ]
        supernet = {name: told[0, place] for place, name in enumerate(objectives)}
        return after, {"candidates": rows, "supernet": supernet}

    return Strategy(
        name="pruning",
        init=lambda key: init(space),
        ask=lambda key, state: (Candidates(gates=ask(state)), state),
        tell=tell,
        done=finished,
        best=result,
        asks="gates",
        total=sum(planned(space, operations_per_round)),
    )
