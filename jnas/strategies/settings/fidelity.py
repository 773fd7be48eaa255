"""Settings of strategies that train many architectures a little and few of them in full."""

from typing import TYPE_CHECKING, Annotated, ClassVar, TypeAlias

from msgspec import Meta

from jnas.settings import Kind, Member

if TYPE_CHECKING:
    # Help of commands goes without JAX.
    from jnas.spaces import Space
    from jnas.types import Strategy

# HpBandSter's and NAS-Bench-201's: a ninth, a third and the whole of 12 epochs.
Eta: TypeAlias = Annotated[
    int, Meta(ge=2, description="one of so many is promoted, to so many times the training")
]
Rungs: TypeAlias = Annotated[
    int, Meta(ge=1, description="lengths of trainings; the shortest is eta^(1 - rungs) of the full one")
]
Batch: TypeAlias = Annotated[int, Meta(ge=1, description="trainings asked for at a time")]


class SuccessiveHalving(Member, frozen=True, kw_only=True, tag="successive_halving"):
    """Successive halving: the best of many short trainings are trained longer, again and again."""

    asks: ClassVar[Kind] = "trainings"
    eta: Eta = 3
    rungs: Rungs = 3
    configurations: Annotated[
        int, Meta(ge=0, description="architectures of the first rung; 0: as many as leave one")
    ] = 0
    batch: Batch = 1

    def make(self, space: "Space", objectives: tuple[str, ...], budget: int) -> "Strategy":
        from jnas.strategies.hyperband import successive_halving

        return successive_halving(space, self, len(objectives), budget)


class Hyperband(Member, frozen=True, kw_only=True, tag="hyperband"):
    """Hyperband: successive halving from every rung in turn, with fewer architectures the longer the first training."""

    asks: ClassVar[Kind] = "trainings"
    eta: Eta = 3
    rungs: Rungs = 3
    batch: Batch = 1

    def make(self, space: "Space", objectives: tuple[str, ...], budget: int) -> "Strategy":
        from jnas.strategies.hyperband import hyperband

        return hyperband(space, self, len(objectives), budget)


class Asha(Member, frozen=True, kw_only=True, tag="asha"):
    """ASHA: whatever is among the best of its rung so far is promoted at once."""

    asks: ClassVar[Kind] = "trainings"
    eta: Eta = 3
    rungs: Rungs = 3
    batch: Batch = 1

    def make(self, space: "Space", objectives: tuple[str, ...], budget: int) -> "Strategy":
        from jnas.strategies.asha import asha

        return asha(space, self, len(objectives), budget)


class Bohb(Member, frozen=True, kw_only=True, tag="bohb"):
    """BOHB: Hyperband whose new architectures come from densities of the good and the others."""

    asks: ClassVar[Kind] = "trainings"
    eta: Eta = 3
    rungs: Rungs = 3
    batch: Batch = 1
    # HpBandSter's.
    samples: Annotated[int, Meta(ge=1, description="draws that compete for a proposal")] = 64
    random: Annotated[float, Meta(ge=0, le=1, description="chance of a random architecture")] = 1 / 3
    share: Annotated[float, Meta(gt=0, lt=1, description="share of trainings that are good")] = 0.15
    bandwidth: Annotated[
        float, Meta(gt=0, lt=1, description="least chance of a drawn decision to be another; NATS-Bench: 0.3")
    ] = 1e-3

    def make(self, space: "Space", objectives: tuple[str, ...], budget: int) -> "Strategy":
        from jnas.strategies.bohb import bohb

        return bohb(space, self, len(objectives), budget)
