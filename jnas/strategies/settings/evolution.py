"""Settings of evolution, local search and pruning."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from msgspec import Meta

from jnas.settings import Kind, Member

if TYPE_CHECKING:
    # Help of commands goes without JAX.
    from jnas.spaces import Space
    from jnas.types import Strategy


class Pruning(Member, frozen=True, kw_only=True, tag="pruning"):
    """TE-NAS: prune a supernet, operation by operation, to one cell."""

    asks: ClassVar[Kind] = "gates"
    # 1 as released for NAS-Bench-201; the authors take 3 and 2 in the larger DARTS space.
    operations_per_round: Annotated[
        int,
        Meta(ge=1, description="operations pruned on each edge in each round; the protocol sets the default"),
    ] = 1
    # The authors' code rounds relative changes to three decimals; the paper does not say.
    decimals: Annotated[
        int, Meta(ge=0, description="decimals of relative changes; 0: all; the protocol sets the default")
    ] = 0

    def make(self, space: "Space", objectives: tuple[str, ...], budget: int) -> "Strategy":
        """Strategy of these settings, on a space, for the objectives of an estimator."""
        from jnas.strategies.pruning import pruning

        return pruning(space, self, objectives)


class Evolution(Member, frozen=True, kw_only=True, tag="evolution"):
    """Mutants of the best of all evaluations, by the combined rank of all objectives."""

    asks: ClassVar[Kind] = "architectures"
    children: Annotated[int, Meta(ge=1, description="architectures of one generation")] = 64
    parents: Annotated[int, Meta(ge=1, description="best architectures of all that are mutated")] = 64

    def make(self, space: "Space", objectives: tuple[str, ...], budget: int) -> "Strategy":
        from jnas.strategies.evolution import evolution

        return evolution(space, self, len(objectives))


class Aging(Member, frozen=True, kw_only=True, tag="aging"):
    """Evolution by a population whose oldest member, or worst, makes room for a child."""

    asks: ClassVar[Kind] = "architectures"
    title: ClassVar[str] = "aging evolution"
    # Better on the digits than the published 100 and 25 within 150 evaluations, by benchmarks/tuned.py.
    population: Annotated[int, Meta(ge=1, description="members of the population")] = 30
    tournament: Annotated[int, Meta(ge=1, description="members drawn for a tournament")] = 10
    removal: Annotated[
        Literal["oldest", "worst", "none"], Meta(description="member that makes room for a child")
    ] = "oldest"
    truncation: Annotated[
        int, Meta(ge=0, description="parents are any of so many best members; 0: winners of tournaments")
    ] = 0
    rate: Annotated[
        float, Meta(ge=0, le=1, description="chance of each decision to mutate; 0: exactly one mutates")
    ] = 0.0
    crossover: Annotated[
        float, Meta(ge=0, le=1, description="share of children of two parents, which are not mutated")
    ] = 0.0
    inherit: Annotated[bool, Meta(description="children begin with their parents' weights (train)")] = False
    batch: Annotated[int, Meta(ge=1, description="children asked for at a time")] = 1

    def make(self, space: "Space", objectives: tuple[str, ...], budget: int) -> "Strategy":
        from jnas.strategies.aging import aging

        return aging(space, self, len(objectives), budget)


class Nsga2(Member, frozen=True, kw_only=True, tag="nsga2"):
    """NSGA-II: rank by dominance, then the least crowded, of parents and children."""

    asks: ClassVar[Kind] = "architectures"
    title: ClassVar[str] = "NSGA-II"
    population: Annotated[int, Meta(ge=2, description="members of the population")] = 30
    crossover: Annotated[float, Meta(ge=0, le=1, description="share of children of two parents")] = 0.9
    rate: Annotated[
        float, Meta(ge=0, le=1, description="chance of each decision to mutate; 0: exactly one mutates")
    ] = 0.0
    batch: Annotated[int, Meta(ge=1, description="children of one generation")] = 10

    def make(self, space: "Space", objectives: tuple[str, ...], budget: int) -> "Strategy":
        from jnas.strategies.nsga2 import nsga2

        return nsga2(space, self, len(objectives), budget)


class Lemonade(Member, frozen=True, kw_only=True, tag="lemonade"):
    """LEMONADE: a Pareto front that grows where cheap objectives are thin."""

    asks: ClassVar[Kind] = "architectures"
    title: ClassVar[str] = "LEMONADE"
    cheap: Annotated[
        str, Meta(description="objectives that need no training, lower is better: params, flops, convs")
    ] = "params"
    initial: Annotated[int, Meta(ge=1, description="random architectures at first")] = 10
    children: Annotated[int, Meta(ge=1, description="mutants of which some are evaluated")] = 100
    batch: Annotated[int, Meta(ge=1, description="mutants evaluated at a time")] = 10

    def make(self, space: "Space", objectives: tuple[str, ...], budget: int) -> "Strategy":
        from jnas.strategies.lemonade import lemonade

        return lemonade(space, self, objectives, budget)


class Local(Member, frozen=True, kw_only=True, tag="local"):
    """Local search: a better neighbour takes the place of the current architecture."""

    asks: ClassVar[Kind] = "architectures"
    title: ClassVar[str] = "local search"
    initial: Annotated[int, Meta(ge=1, description="random architectures, the best of which climbs")] = 1
    improvement: Annotated[
        Literal["first", "best"],
        Meta(description="move to the first better neighbour, or to the best when all were evaluated"),
    ] = "first"
    at_maximum: Annotated[
        Literal["restart", "next_best"],
        Meta(description="start anew, or go on from the best that is not yet expanded"),
    ] = "restart"
    batch: Annotated[int, Meta(ge=1, description="neighbours asked for at a time")] = 1

    def make(self, space: "Space", objectives: tuple[str, ...], budget: int) -> "Strategy":
        from jnas.strategies.local import local

        return local(space, self, len(objectives), budget)


class HillClimbing(Member, frozen=True, kw_only=True, tag="hill_climbing"):
    """NASH: the best of an architecture and its children goes on; children inherit weights."""

    asks: ClassVar[Kind] = "architectures"
    initial: Annotated[
        int, Meta(ge=1, description="random architectures, of which the smallest is the start")
    ] = 10
    # The authors take five steps, on networks of many more decisions.
    steps: Annotated[int, Meta(ge=1, description="random changes that make a child")] = 1
    batch: Annotated[int, Meta(ge=1, description="children of the current architecture at a time")] = 8

    def make(self, space: "Space", objectives: tuple[str, ...], budget: int) -> "Strategy":
        from jnas.strategies.hill_climbing import hill_climbing

        return hill_climbing(space, self, len(objectives), budget)
