"""Settings of the strategies, each of which makes its own."""

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


class Random(Member, frozen=True, kw_only=True, tag="random"):
    """Architectures drawn uniformly, with replacement."""

    asks: ClassVar[Kind] = "architectures"
    batch: Annotated[int, Meta(ge=1, description="architectures asked for at a time")] = 16
    uniform: Annotated[
        Literal["decisions", "canonical"],
        Meta(description="every list of decisions alike, or every class of equal architectures alike"),
    ] = "decisions"

    def make(self, space: "Space", objectives: tuple[str, ...], budget: int) -> "Strategy":
        from jnas.strategies.random import random

        return random(space, self, len(objectives), budget)


class Exhaustive(Member, frozen=True, kw_only=True, tag="exhaustive"):
    """Every architecture of the space once, in random order."""

    asks: ClassVar[Kind] = "architectures"
    batch: Annotated[int, Meta(ge=1, description="architectures asked for at a time")] = 16

    def make(self, space: "Space", objectives: tuple[str, ...], budget: int) -> "Strategy":
        from jnas.strategies.exhaustive import exhaustive

        return exhaustive(space, self, len(objectives))


class Aging(Member, frozen=True, kw_only=True, tag="aging"):
    """Evolution by a population whose oldest member, or worst, makes room for a child."""

    asks: ClassVar[Kind] = "architectures"
    # 30 and 10 find better cells of NAS-Bench-201 than the published 100 and 25 do within 500 evaluations.
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
    batch: Annotated[int, Meta(ge=1, description="children asked for at a time")] = 1

    def make(self, space: "Space", objectives: tuple[str, ...], budget: int) -> "Strategy":
        from jnas.strategies.aging import aging

        return aging(space, self, len(objectives), budget)


class Nsga2(Member, frozen=True, kw_only=True, tag="nsga2"):
    """NSGA-II: rank by dominance, then the least crowded, of parents and children."""

    asks: ClassVar[Kind] = "architectures"
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


class Tpe(Member, frozen=True, kw_only=True, tag="tpe"):
    """Tree-structured Parzen estimator: likely among the best, unlikely among the others."""

    asks: ClassVar[Kind] = "architectures"
    batch: Annotated[int, Meta(ge=1, description="architectures asked for at a time")] = 1
    # The defaults of optuna.
    initial: Annotated[int, Meta(ge=1, description="random architectures before the first proposal")] = 10
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
    batch: Annotated[int, Meta(ge=1, description="architectures asked for at a time")] = 1
    initial: Annotated[int, Meta(ge=1, description="random architectures before the first proposal")] = 10
    kernel: Annotated[
        Literal["hamming", "path", "weisfeiler_lehman"],
        Meta(description="equal decisions, equal paths, or equal subtrees of cells"),
    ] = "hamming"
    acquisition: Annotated[
        Literal["ei", "ucb", "thompson", "its"],
        Meta(
            description="expected improvement, upper confidence bound, or a draw: joint, or of each by itself"
        ),
    ] = "ei"
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
    # The authors' settings; two operations are their truncation of NAS-Bench-201's paths.
    batch: Annotated[int, Meta(ge=1, description="architectures asked for at a time")] = 10
    initial: Annotated[int, Meta(ge=1, description="random architectures before the first proposal")] = 10
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
    batch: Annotated[int, Meta(ge=1, description="architectures asked for at a time")] = 1
    initial: Annotated[int, Meta(ge=1, description="random architectures before the first proposal")] = 10
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
    batch: Annotated[int, Meta(ge=1, description="architectures asked for at a time")] = 1
    sampler: Annotated[str, Meta(description="class in optuna.samplers, made from a seed")] = "TPESampler"

    def make(self, space: "Space", objectives: tuple[str, ...], budget: int) -> "Strategy":
        from jnas.strategies.optuna import optuna

        return optuna(space, self, len(objectives))


class Draw(Member, frozen=True, kw_only=True, tag="draw"):
    """Different architectures drawn from the space, or from what a supernet learned, each evaluated once."""

    asks: ClassVar[Kind] = "architectures"
    candidates: Annotated[int, Meta(ge=1, description="architectures drawn")] = 50

    def make(self, space: "Space", objectives: tuple[str, ...], budget: int) -> "Strategy":
        from jnas.strategies.listed import distinct, listed

        return listed(lambda key: distinct(space.sample, key, self.candidates), self.candidates, "draw")


class Reinforce(Member, frozen=True, kw_only=True, tag="reinforce"):
    """REINFORCE: a distribution for each decision, moved towards what was rewarded above a baseline."""

    asks: ClassVar[Kind] = "architectures"
    # On NAS-Bench-201 0.1 is better than NATS-Bench's 0.01, and 0.5, of NAS-Bench-201's command, collapses.
    learning_rate: Annotated[float, Meta(gt=0, description="step of Adam")] = 0.1
    decay: Annotated[float, Meta(ge=0, lt=1, description="weight of the past in the baseline")] = 0.9
    baseline: Annotated[
        Literal["before", "after"],
        Meta(
            description="mean of the rewards before this one (unbiased), or after it (NAS-Bench-201's code)"
        ),
    ] = "before"
    batch: Annotated[int, Meta(ge=1, description="architectures of one step")] = 1

    def make(self, space: "Space", objectives: tuple[str, ...], budget: int) -> "Strategy":
        from jnas.strategies.reinforce import reinforce

        return reinforce(space, self, len(objectives), budget)


class PolicyGradient(Member, frozen=True, kw_only=True, tag="policy_gradient"):
    """An LSTM that decides one after another, trained by REINFORCE or PPO."""

    asks: ClassVar[Kind] = "architectures"
    loss: Annotated[
        Literal["ppo", "reinforce"], Meta(description="clipped ratios, several steps a batch; or one step")
    ] = "ppo"
    # The controller of NASNet: 100 units, 3.5e-4, 1e-5, 0.95 and 20.
    layers: Annotated[int, Meta(ge=1, description="layers of the LSTM")] = 1
    units: Annotated[int, Meta(ge=1, description="units of each layer")] = 100
    learning_rate: Annotated[float, Meta(gt=0, description="step of Adam")] = 3.5e-4
    entropy: Annotated[float, Meta(ge=0, description="weight of the policy's entropy")] = 1e-5
    decay: Annotated[float, Meta(ge=0, lt=1, description="weight of the past in the baseline")] = 0.95
    clip: Annotated[float, Meta(gt=0, lt=1, description="distance from 1 at which PPO clips ratios")] = 0.2
    updates: Annotated[int, Meta(ge=1, description="steps of PPO on each batch")] = 5
    batch: Annotated[int, Meta(ge=1, description="architectures of one batch")] = 20

    def make(self, space: "Space", objectives: tuple[str, ...], budget: int) -> "Strategy":
        from jnas.strategies.policy_gradient import policy_gradient

        return policy_gradient(space, self, len(objectives), budget)


class QLearning(Member, frozen=True, kw_only=True, tag="q_learning"):
    """MetaQNN: values of choices learned from replayed evaluations; ever fewer random choices."""

    asks: ClassVar[Kind] = "architectures"
    rate: Annotated[float, Meta(gt=0, le=1, description="share by which an update replaces a value")] = 0.01
    replay: Annotated[int, Meta(ge=1, description="earlier evaluations replayed after each one")] = 128
    batch: Annotated[int, Meta(ge=1, description="architectures asked for at a time")] = 1

    def make(self, space: "Space", objectives: tuple[str, ...], budget: int) -> "Strategy":
        from jnas.strategies.q_learning import q_learning

        return q_learning(space, self, len(objectives), budget)


class Bandit(Member, frozen=True, kw_only=True, tag="bandit"):
    """An independent bandit for each decision: UCB1 or epsilon-greedy."""

    asks: ClassVar[Kind] = "architectures"
    rule: Annotated[
        Literal["ucb1", "epsilon_greedy"], Meta(description="how a bandit chooses among its arms")
    ] = "ucb1"
    exploration: Annotated[float, Meta(ge=0, description="c of UCB1, for values scaled to 0..1")] = 1.0
    epsilon: Annotated[float, Meta(ge=0, le=1, description="share of random choices of epsilon-greedy")] = 0.1
    initial: Annotated[int, Meta(ge=0, description="random architectures at first")] = 20
    batch: Annotated[int, Meta(ge=1, description="architectures asked for at a time")] = 1

    def make(self, space: "Space", objectives: tuple[str, ...], budget: int) -> "Strategy":
        from jnas.strategies.bandit import bandit

        return bandit(space, self, len(objectives), budget)


class TreeSearch(Member, frozen=True, kw_only=True, tag="tree_search"):
    """UCT: a tree of decisions that grows where values are high."""

    asks: ClassVar[Kind] = "architectures"
    # 1 explores for ever: most values lie in a small part of their range.
    exploration: Annotated[float, Meta(ge=0, description="c of UCT, for values scaled to 0..1")] = 0.1
    batch: Annotated[int, Meta(ge=1, description="architectures asked for at a time")] = 1

    def make(self, space: "Space", objectives: tuple[str, ...], budget: int) -> "Strategy":
        from jnas.strategies.tree_search import tree_search

        return tree_search(space, self, len(objectives), budget)
