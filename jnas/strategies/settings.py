"""Settings of the strategies, each of which makes its own."""

from typing import TYPE_CHECKING, Annotated, ClassVar

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


class Random(Member, frozen=True, kw_only=True, tag="random"):
    """Architectures drawn uniformly, with replacement."""

    asks: ClassVar[Kind] = "architectures"
    batch: Annotated[int, Meta(ge=1, description="architectures asked for at a time")] = 16

    def make(self, space: "Space", objectives: tuple[str, ...], budget: int) -> "Strategy":
        from jnas.strategies.random import random

        return random(space, self, len(objectives), budget)


class Aging(Member, frozen=True, kw_only=True, tag="aging"):
    """Evolution: the best of a tournament is mutated, its child replaces the oldest member."""

    asks: ClassVar[Kind] = "architectures"
    # 30 and 10 find better cells of NAS-Bench-201 than the published 100 and 25 do within 500 evaluations.
    population: Annotated[int, Meta(ge=1, description="members of the population")] = 30
    tournament: Annotated[int, Meta(ge=1, description="members drawn for a tournament")] = 10
    batch: Annotated[int, Meta(ge=1, description="children asked for at a time")] = 1

    def make(self, space: "Space", objectives: tuple[str, ...], budget: int) -> "Strategy":
        from jnas.strategies.aging import aging

        return aging(space, self, len(objectives), budget)


class Local(Member, frozen=True, kw_only=True, tag="local"):
    """Local search: a better neighbour is taken at once, with restarts."""

    asks: ClassVar[Kind] = "architectures"
    batch: Annotated[int, Meta(ge=1, description="neighbours asked for at a time")] = 1

    def make(self, space: "Space", objectives: tuple[str, ...], budget: int) -> "Strategy":
        from jnas.strategies.local import local

        return local(space, self, len(objectives), budget)


class Draw(Member, frozen=True, kw_only=True, tag="draw"):
    """Different architectures drawn from the space, or from what a supernet learned, each evaluated once."""

    asks: ClassVar[Kind] = "architectures"
    candidates: Annotated[int, Meta(ge=1, description="architectures drawn")] = 50

    def make(self, space: "Space", objectives: tuple[str, ...], budget: int) -> "Strategy":
        from jnas.strategies.listed import distinct, listed

        return listed(lambda key: distinct(space.sample, key, self.candidates), self.candidates, "draw")
