"""The protocols: any strategy x any estimator x any space.

    space      data on its decisions          `jnas.spaces`
    strategy   asks for candidates            `jnas.strategies`
    estimator  says what candidates are worth `jnas.estimators`
    one-shot   trains one supernet            `jnas.oneshot`, whose weights the estimator `inherited` evaluates

Constructors close over settings and return one of these tuples of pure functions (as in optax). Randomness comes from
explicit keys, state is explicit, `info` is what a report needs and the algorithm does not (as in blackjax).

Letters: B candidates, D decisions, E edges, K operations, P objectives, M masks.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, Protocol, TypeAlias

import jax
import numpy as np
from jax import Array

from jnas.settings import Kind as Kind
from jnas.settings import Member as Member

Key: TypeAlias = Array
# State of an algorithm: a pytree that its own functions alone look into.
State: TypeAlias = Any
# Parameters of a network, nested by module.
Params: TypeAlias = Mapping[str, Any]
# Plain values and arrays by name, for records and reports.
Info: TypeAlias = Mapping[str, Any]

# A status is stored as its place here. `missing`: a table does not hold the architecture.
STATUSES = ("ok", "not_finite", "singular", "out_of_memory", "one_class", "missing", "failed")


class Candidates(NamedTuple):
    """Candidates that a strategy asks for, as architectures or as gates.

    architectures: int32[B, D], or None.
    gates: float32[B, cells, E, K], or None: a pruned, relaxed or drawn supernet each.
    parent: int32[B], the place among all evaluations of the one whose weights are inherited; -1 for none.
    fidelity: float32[B] in (0, 1], the share of the full training; None: the whole.
    ancestors: int32[B, G, D], from the oldest to the parent, filled up with -1 in front. An `Evaluator` adds them to
      candidates with parents, so that estimators know whose weights these are; strategies leave them out.
    """

    architectures: Array | np.ndarray | None = None
    gates: Array | np.ndarray | None = None
    parent: Array | np.ndarray | None = None
    fidelity: Array | np.ndarray | None = None
    ancestors: Array | np.ndarray | None = None


def fidelities(candidates: Candidates) -> Array | np.ndarray:
    """The share of the full training of each architecture, 1 where the candidates say none: float32[B]."""
    if candidates.fidelity is not None:
        return candidates.fidelity
    assert candidates.architectures is not None
    return np.ones(len(candidates.architectures), np.float32)


class Values(NamedTuple):
    """Values of candidates: higher is better.

    value: float64[B, P] (float32 under jit); -inf where the status is not `ok`.
    status: int8[B, P], places in `STATUSES`.
    cost: float[B], seconds.
    """

    value: Array | np.ndarray
    status: Array | np.ndarray
    cost: Array | np.ndarray


def with_status(value: np.ndarray, cost: np.ndarray) -> Values:
    """Measured values float64[B, P] as they are told: -inf with the status `not_finite` where they are not finite."""
    finite = np.isfinite(value)
    status = np.where(finite, STATUSES.index("ok"), STATUSES.index("not_finite")).astype(np.int8)
    return Values(np.where(finite, value, -np.inf), status, cost)


class Strategy(NamedTuple):
    """A search strategy.

    name: its key in `jnas.strategies.STRATEGIES`.
    init: key -> state.
    ask: (key, state) -> (candidates, state). No candidates (B = 0) when the space is used up.
    tell: (state, candidates, values) -> (state, info).
    done: state -> whether it has ended by itself, whatever is left of the budget.
    best: state -> int32[D], the architecture that it would return now.
    asks: what it asks for: architectures, gates, or trainings, which are architectures with a fidelity. An estimator
      must take it.
    total: how many candidates it asks for in all; 0 where it goes on for ever.
    jittable: whether `init`, `ask`, `tell` and `best` run under jit, scan and vmap.
    """

    name: str
    init: Callable[[Key], State]
    ask: Callable[[Key, State], tuple[Candidates, State]]
    tell: Callable[[State, Candidates, Values], tuple[State, Info]]
    done: Callable[[State], bool]
    best: Callable[[State], Any]
    asks: Kind = "architectures"
    total: int = 0
    jittable: bool = False


def compiled(strategy: Strategy) -> Strategy:
    """The strategy whose asks and tells are compiled, where they run under jit: a host calls them as they are."""
    if not strategy.jittable:
        return strategy
    return strategy._replace(ask=jax.jit(strategy.ask), tell=jax.jit(strategy.tell))


class Estimator(NamedTuple):
    """A performance estimator.

    objectives: P names, such as `("ntk", "regions")`. Where repeats are kept apart, each is an objective of its own:
      `("ntk/0", "ntk/1", "regions/0")`; `jnas.estimators.mean` averages them.
    evaluate: (key, candidates) -> values. One key and one candidate give one value, whatever else is in the batch, in
      whichever order, on whichever devices.
    takes: the kinds of candidates that it evaluates.
    batch: candidates in one call after which results are stored; a call with more is split.
    members: () -> bool[size], the architectures of the space that it has values for; None: all.
    jittable: whether `evaluate` runs under jit.
    """

    objectives: tuple[str, ...]
    evaluate: Callable[[Key, Candidates], Values]
    takes: tuple[Kind, ...] = ("architectures",)
    batch: int = 1
    members: Callable[[], np.ndarray] | None = None
    jittable: bool = False


class StrategySettings(Protocol):
    """Settings in `jnas.strategies.STRATEGIES`."""

    asks: ClassVar[Kind]

    def __init__(self, **settings: Any): ...

    @classmethod
    def spelled(cls) -> str:
        """Its name in sentences and figures."""

    def make(self, space: Any, objectives: tuple[str, ...], budget: int) -> Strategy:
        """The strategy on a space, for the objectives of an estimator. budget: evaluations, 0 for no limit."""


class EstimatorSettings(Protocol):
    """Settings in `jnas.estimators.ESTIMATORS`."""

    takes: ClassVar[tuple[str, ...]]

    def make(self, space: Any, dataset: Any, *, apart: bool = False) -> Estimator:
        """The estimator on a space and data. apart: repeats are objectives of their own."""


class OneShot(NamedTuple):
    """A method that trains one supernet.

    init: key -> state.
    step: (state, key, training batch, held-out batch) -> (state, info); a batch is (images, labels).
    gates: (state, key, n) -> float32[n, cells, E, K], what the supernet is evaluated with in training.
    sample: (state, key, n) -> int32[n, D], architectures that the method would return.
    params: state -> variables of the supernet.
    """

    init: Callable[[Key], State]
    step: Callable[[State, Key, Any, Any], tuple[State, Info]]
    gates: Callable[[State, Key, int], Any]
    sample: Callable[[State, Key, int], Any]
    params: Callable[[State], Any]


class Result(NamedTuple):
    """Outcome of `jnas.run.loop.run`. rounds: how many were asked; evaluations: how many candidates were told."""

    best: np.ndarray
    state: State
    rounds: int
    evaluations: int
