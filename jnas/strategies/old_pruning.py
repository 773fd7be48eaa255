"""TE-NAS: prune a supernet down to one cell by trainability and expressivity.

Chen, Gong and Wang, "Neural Architecture Search on ImageNet in Four GPU Hours: A Theoretically Inspired
Perspective", ICLR 2021, https://arxiv.org/abs/2102.11535. In each round every operation o that is still on an
edge with others is left out in turn:

    dkappa_o = kappa(N) - kappa(N \\ o)   ranked descending: pruning o should lower kappa
    dR_o     = R(N) - R(N \\ o)           ranked ascending: pruning o should raise R

One ranking runs over all edges and cells, equal values share a rank; on each edge the operations with the
lowest sum of the two ranks go, until one is left on every edge. `none` is left out from the start. Several
operations on an edge enter with equal gates that sum to one.

Where nodes keep fewer edges than the supernet has (`Space.incoming`, 2 for DARTS), a last round leaves out each
edge into a node with more of them; the rankings run over the edges into one node, and the lowest sums go.

`init`, `ask` and `tell` are pure functions on `State`, an ask/tell strategy whose candidates are gates.

Departures from the authors' code: within a repeat the supernet and all candidates share weights and images
(theirs draws a new pair for each candidate), so the supernet is scored once; values are compared by what they
are, where theirs sorts rounded values and finds ties among unrounded ones; a supernet or candidate without a
finite score loses or wins by rule (`relative_change`), where theirs stops.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jnas.spaces import Space

REMOVED_FIRST = "none"


class State(NamedTuple):
    """active: bool[cells, E, K], the operations that are left; round: how many rounds are done; space: of what."""

    active: np.ndarray
    round: int
    space: Space


@dataclass(frozen=True)
class Decision:
    """What became of one candidate: the scores' changes when it is left out, their ranks, the verdict.

    `operation` is the last of its edge where the edge as a whole was a candidate.
    """

    cell: int
    edge: int
    operation: int
    ntk_change: float
    regions_change: float
    ntk_rank: int
    regions_rank: int
    pruned: bool


def init(space: Space) -> State:
    """Every operation but `none` on every edge."""
    active = space.allowed.copy()
    if REMOVED_FIRST in space.operations:
        # An edge that may carry nothing else keeps it.
        active[active.sum(-1) > 1, space.operations.index(REMOVED_FIRST)] = False
    return State(active, 0, space)


def finished(state: State) -> bool:
    """Whether one operation is left on every edge, and no node has more edges than it keeps."""
    return not len(removable(state))


def of_edges(state: State) -> bool:
    """Whether whole edges are what may go next."""
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


def relative_change(supernet: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """(supernet - candidate) / supernet for positive scores [repeats] and [repeats, M]; never nan.

    A score that is not finite counts as infinitely large: the change is -inf where only the candidate's is,
    1 (its limit) where only the supernet's is, 0 where both are.
    """
    base = np.where(np.isfinite(supernet), supernet, np.inf)[:, None]
    values = np.where(np.isfinite(candidates), candidates, np.inf)
    with np.errstate(invalid="ignore"):
        change = (base - values) / base
    change = np.where(np.isinf(base), np.where(np.isinf(values), 0.0, 1.0), change)
    return change


def dense_rank(values: np.ndarray) -> np.ndarray:
    """Rank from 0, ascending; equal values share one and the next value takes the next: int64[M]."""
    return np.unique(values, return_inverse=True)[1].reshape(values.shape)


def tell(
    state: State,
    ntk: np.ndarray,
    regions: np.ndarray,
    operations_per_round: int = 1,
    decimals: int | None = None,
) -> tuple[State, list[Decision]]:
    """Prune by the scores of `ask(state)`: ntk and regions float64[repeats, 1 + M].

    decimals: round the changes of each repeat to so many before averaging (the authors' code: 3).
    A tie of rank sums on an edge goes to the lower rank of the condition number, then to the earlier
    operation. At least one operation stays on an edge.
    """
    indices = removable(state)
    changes = []
    for scores in (ntk, regions):
        change = relative_change(scores[:, 0], scores[:, 1:])
        # The mean of values rounded in binary need not tie where their decimals do: round it too.
        change = change if decimals is None else np.round(change, decimals)
        mean = change.mean(0)
        changes.append(mean if decimals is None else np.round(mean, decimals + 2))
    cells, edges, _ = indices.T
    whole_edges = of_edges(state)
    # Which candidates compete for a place: those on one edge, or edges into one node.
    places = np.array([target for _, target in state.space.edges])[edges] if whole_edges else edges
    groups = [
        np.flatnonzero((cells == cell) & (places == place))
        for cell, place in sorted({*zip(cells, places, strict=True)})
    ]
    ntk_rank, regions_rank = np.zeros(len(indices), int), np.zeros(len(indices), int)
    for ranked in groups if whole_edges else [np.arange(len(indices))]:
        ntk_rank[ranked] = dense_rank(-changes[0][ranked])
        regions_rank[ranked] = dense_rank(changes[1][ranked])
    active = state.active
    pruned = np.zeros(len(indices), bool)
    for group in groups:
        order = sorted(group, key=lambda m: (ntk_rank[m] + regions_rank[m], ntk_rank[m], m))
        kept = state.space.incoming if whole_edges else None
        go = min(operations_per_round, len(order) - 1) if kept is None else len(order) - kept
        for m in order[:go]:
            pruned[m] = True
            active = _without(state, active, indices[m])
    decisions = [
        Decision(
            cell=int(cell),
            edge=int(edge),
            operation=int(operation),
            ntk_change=float(changes[0][m]),
            regions_change=float(changes[1][m]),
            ntk_rank=int(ntk_rank[m]),
            regions_rank=int(regions_rank[m]),
            pruned=bool(pruned[m]),
        )
        for m, (cell, edge, operation) in enumerate(indices)
    ]
    return state._replace(active=active, round=state.round + 1), decisions


def result(state: State) -> np.ndarray:
    """The architecture that is left, int32[D]; for a finished state."""
    return state.space.from_gates(state.active)
