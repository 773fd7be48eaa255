"""TE-NAS: prune a supernet down to one cell by trainability and expressivity.

Chen, Gong and Wang, "Neural Architecture Search on ImageNet in Four GPU Hours: A Theoretically Inspired
Perspective", ICLR 2021, https://arxiv.org/abs/2102.11535. In each round every operation o that is still on an
edge with others is left out in turn:

    dkappa_o = kappa(N) - kappa(N \\ o)   ranked descending: pruning o should lower kappa
    dR_o     = R(N) - R(N \\ o)           ranked ascending: pruning o should raise R

One ranking runs over all edges and cells, equal values share a rank; on each edge the operations with the
lowest sum of the two ranks go, until one is left on every edge. `none` is left out from the start. Several
operations on an edge enter with equal gates that sum to one.

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
    """active: bool[cells, E, K], the operations that are left; round: how many rounds are done."""

    active: np.ndarray
    round: int


@dataclass(frozen=True)
class Decision:
    """What became of one candidate: the scores' changes when it is left out, their ranks, the verdict."""

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
    active = np.ones((space.cells, len(space.edges), len(space.operations)), bool)
    if REMOVED_FIRST in space.operations:
        active[:, :, space.operations.index(REMOVED_FIRST)] = False
    return State(active, 0)


def finished(state: State) -> bool:
    """Whether one operation is left on every edge."""
    return bool((state.active.sum(-1) == 1).all())


def removable(state: State) -> np.ndarray:
    """The (cell, edge, operation) that may go: int64[M, 3], all that are not alone on their edge."""
    return np.argwhere(state.active & (state.active.sum(-1, keepdims=True) > 1))


def gates_of(active: np.ndarray) -> np.ndarray:
    """Equal gates over the active operations of each edge: bool[..., E, K] to float32[..., E, K]."""
    return (active / active.sum(-1, keepdims=True)).astype(np.float32)


def ask(state: State) -> np.ndarray:
    """Gates to score: float32[1 + M, cells, E, K], the supernet and then it without each removable one."""
    candidates = [state.active]
    for index in removable(state):
        without = state.active.copy()
        without[tuple(index)] = False
        candidates.append(without)
    return gates_of(np.stack(candidates))


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
    ntk_rank, regions_rank = dense_rank(-changes[0]), dense_rank(changes[1])
    active = state.active.copy()
    pruned = np.zeros(len(indices), bool)
    for cell, edge in {(int(cell), int(edge)) for cell, edge, _ in indices}:
        (on_edge,) = np.nonzero((indices[:, 0] == cell) & (indices[:, 1] == edge))
        order = sorted(on_edge, key=lambda m: (ntk_rank[m] + regions_rank[m], ntk_rank[m], m))
        go = order[: min(operations_per_round, len(order) - 1)]
        pruned[go] = True
        active[cell, edge, indices[go, 2]] = False
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
    return State(active, state.round + 1), decisions


def result(state: State) -> Sequence[Sequence[int]]:
    """The operation left on each edge of each cell; for a finished state."""
    return state.active.argmax(-1).tolist()
