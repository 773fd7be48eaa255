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
from scipy.stats import rankdata

from jnas.spaces import Space
from jnas.strategies.settings.evolution import Pruning
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


def removable(state: State) -> np.ndarray:
    """The (cell, edge, operation) that may go: int64[M, 3], in the end all but those of a finished search.

    All that are not alone on their edge; when all are, those of edges into a node that keeps fewer.
    """
    active, space = state.active, state.space
    alone = active.sum(-1, keepdims=True) == 1
    if not alone.all():
        return np.argwhere(active & ~alone)
    if space.incoming is None:
        return np.zeros((0, 3), int)
    # Edges that carry an operation other than `none`, and how many of them arrive at the same node: [cells, E].
    present = np.any(
        active[..., [name != REMOVED_FIRST for name in space.operations]], axis=-1, keepdims=True
    )[..., 0]
    targets = np.array([target for _, target in space.edges])
    arriving = np.stack([present[:, targets == target].sum(-1) for target in targets], axis=-1)
    return np.argwhere(active & (present & (arriving > space.incoming))[..., None])


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
    active = np.stack([state.active, *candidates])
    return (active / active.sum(-1, keepdims=True)).astype(np.float32)


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


def prune(state: State, changes: np.ndarray, operations_per_round: int = 1) -> tuple[State, list[Decision]]:
    """Prune by the improvements float64[P, M] of leaving out each of `removable(state)`.

    The lowest sums of ranks go, rank 0 for the largest improvement. A tie goes to the lower rank of the first
    objective, then to the earlier operation. At least one operation stays on an edge.
    """
    indices = removable(state)
    cells, edges, _ = indices.T
    whole_edges = bool((state.active.sum(-1) == 1).all())
    # Candidates compete for a place with those on one edge, or with the edges into one node.
    places = np.array([target for _, target in state.space.edges])[edges] if whole_edges else edges
    groups = [
        np.flatnonzero((cells == cell) & (places == place))
        for cell, place in sorted({*zip(cells, places, strict=True)})
    ]
    ranks = np.zeros(changes.shape, int)
    for ranked in groups if whole_edges else [np.arange(len(indices))]:
        for rank, change in zip(ranks, changes, strict=True):
            rank[ranked] = rankdata(-change[ranked], method="dense") - 1
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


def pruning(space: Space, settings: Pruning, objectives: Sequence[str]) -> Strategy:
    """TE-NAS's pruning as a strategy that asks for gates.

    objectives: the names of the estimator's, in their order; repeats apart, as `improvements` says.
    """
    names = list(dict.fromkeys(name.partition("/")[0] for name in objectives))

    def tell(state: State, candidates: Candidates, values: Values) -> tuple[State, Info]:
        told = np.asarray(values.value, np.float64)
        changes = improvements(told, objectives, settings.decimals or None)
        after, decisions = prune(state, changes, settings.operations_per_round)
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

    # Supernets that a whole pruning asks for: each round all of them with equal changes.
    state, total = init(space), 0
    while not finished(state):
        candidates = len(removable(state))
        total += 1 + candidates
        state, _ = prune(state, np.zeros((1, candidates)), settings.operations_per_round)
    return Strategy(
        name="pruning",
        init=lambda key: init(space),
        ask=lambda key, state: (Candidates(gates=ask(state)), state),
        tell=tell,
        done=finished,
        best=result,
        asks="gates",
        total=total,
    )
