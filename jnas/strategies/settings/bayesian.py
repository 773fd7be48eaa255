"""Settings of Bayesian optimisation."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from msgspec import Meta

from jnas.settings import Kind, Member
from jnas.strategies.settings import Batch, Initial

if TYPE_CHECKING:
    # Help of commands goes without JAX.
    from jnas.spaces import Space
    from jnas.types import Strategy


class Tpe(Member, frozen=True, kw_only=True, tag="tpe"):
    """Tree-structured Parzen estimator: likely among the best, unlikely among the others."""

    asks: ClassVar[Kind] = "architectures"
    title: ClassVar[str] = "TPE"
    batch: Batch = 1
    # The defaults of optuna.
    initial: Initial = 10
    samples: Annotated[int, Meta(ge=1, description="draws that compete for a proposal")] = 24
    share: Annotated[
        float, Meta(gt=0, lt=1, description="share of evaluations that are good, at most 25")
    ] = 0.1
    multivariate: Annotated[
        bool, Meta(description="one mixture over whole architectures, rather than one for each decision")
    ] = True

    def make(self, space: "Space", objectives: tuple[str, ...], budget: int) -> "Strategy":
        from jnas.strategies.tpe import tpe

        return tpe(space, self, len(objectives), budget)


class GaussianProcess(Member, frozen=True, kw_only=True, tag="gaussian_process"):
    """Bayesian optimisation: a Gaussian process over architectures, by expected improvement."""

    asks: ClassVar[Kind] = "architectures"
    title: ClassVar[str] = "Gaussian process"
    batch: Batch = 1
    initial: Initial = 10
    kernel: Annotated[
        Literal["hamming", "ard", "path", "graph", "weisfeiler_lehman"],
        Meta(
            description="equal decisions, each with a weight (ard), equal paths, near graph features, equal subtrees"
        ),
    ] = "hamming"
    acquisition: Annotated[
        Literal["ei", "ucb", "thompson", "its"],
        Meta(
            description="expected improvement, upper confidence bound, or a draw: joint, or of each by itself"
        ),
    ] = "ei"
    refit: Annotated[
        float,
        Meta(gt=0, description="share by which evaluations grow until kernel and noise are fitted anew"),
    ] = 0.1
    weight: Annotated[float, Meta(ge=0, description="deviations that ucb adds to the mean")] = 0.5
    candidates: Annotated[
        int,
        Meta(ge=2, description="mutants and random architectures to choose from, of a space above 20,000"),
    ] = 1000

    def make(self, space: "Space", objectives: tuple[str, ...], budget: int) -> "Strategy":
        from jnas.strategies.gaussian_process import gaussian_process

        return gaussian_process(space, self, len(objectives), budget)


class Bananas(Member, frozen=True, kw_only=True, tag="bananas"):
    """BANANAS: an ensemble of networks on path encodings draws the best of mutants."""

    asks: ClassVar[Kind] = "architectures"
    title: ClassVar[str] = "BANANAS"
    # The authors' settings; two operations are their truncation of NAS-Bench-201's paths.
    batch: Batch = 10
    initial: Initial = 10
    networks: Annotated[int, Meta(ge=2, description="networks of the ensemble")] = 5
    layers: Annotated[int, Meta(ge=1, description="hidden layers of a network")] = 10
    width: Annotated[int, Meta(ge=1, description="units of a layer")] = 20
    learning_rate: Annotated[float, Meta(gt=0, description="learning rate of Adam")] = 0.01
    longest: Annotated[int, Meta(ge=1, description="operations on the longest path that is encoded")] = 2
    candidates: Annotated[int, Meta(ge=1, description="mutants that the ensemble chooses from")] = 100
    parents: Annotated[int, Meta(ge=1, description="best architectures that are mutated")] = 1

    def make(self, space: "Space", objectives: tuple[str, ...], budget: int) -> "Strategy":
        from jnas.strategies.bananas import bananas

        return bananas(space, self, len(objectives), budget)


class Forest(Member, frozen=True, kw_only=True, tag="forest"):
    """Bayesian optimisation by a random forest and local search, as SMAC."""

    asks: ClassVar[Kind] = "architectures"
    title: ClassVar[str] = "random forest"
    batch: Batch = 1
    initial: Initial = 10
    trees: Annotated[int, Meta(ge=2, description="trees of the forest")] = 10
    candidates: Annotated[int, Meta(ge=1, description="random architectures that are predicted")] = 1000
    starts: Annotated[
        int, Meta(ge=1, description="starts of local search, of the random ones and the best")
    ] = 10
    random: Annotated[float, Meta(ge=0, le=1, description="chance of a random architecture")] = 0.2

    def make(self, space: "Space", objectives: tuple[str, ...], budget: int) -> "Strategy":
        from jnas.strategies.forest import forest

        return forest(space, self, len(objectives))


class Optuna(Member, frozen=True, kw_only=True, tag="optuna"):
    """Any sampler of optuna (pip install 'jnas[optuna]')."""

    asks: ClassVar[Kind] = "architectures"
    short: ClassVar[str] = "sampler"
    batch: Batch = 1
    sampler: Annotated[str, Meta(description="class in optuna.samplers, made from a seed")] = "TPESampler"

    def make(self, space: "Space", objectives: tuple[str, ...], budget: int) -> "Strategy":
        from jnas.strategies.optuna import optuna

        return optuna(space, self, len(objectives))
