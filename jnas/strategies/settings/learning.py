"""Settings of reinforcement learning, bandits and tree search."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from msgspec import Meta

from jnas.settings import Kind, Member
from jnas.strategies.settings import Batch

if TYPE_CHECKING:
    # Help of commands goes without JAX.
    from jnas.spaces import Space
    from jnas.types import Strategy


class Reinforce(Member, frozen=True, kw_only=True, tag="reinforce"):
    """REINFORCE: a distribution for each decision, moved towards what was rewarded above a baseline."""

    asks: ClassVar[Kind] = "architectures"
    title: ClassVar[str] = "REINFORCE"
    # Better on the digits than NATS-Bench's 0.01, by benchmarks/tuned.py; 0.5, of NAS-Bench-201's command, collapses.
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
    title: ClassVar[str] = "Q-learning"
    rate: Annotated[float, Meta(gt=0, le=1, description="share by which an update replaces a value")] = 0.01
    replay: Annotated[int, Meta(ge=1, description="earlier evaluations replayed after each one")] = 128
    batch: Batch = 1

    def make(self, space: "Space", objectives: tuple[str, ...], budget: int) -> "Strategy":
        from jnas.strategies.q_learning import q_learning

        return q_learning(space, self, len(objectives), budget)


class Bandit(Member, frozen=True, kw_only=True, tag="bandit"):
    """An independent bandit for each decision: UCB1 or epsilon-greedy."""

    asks: ClassVar[Kind] = "architectures"
    title: ClassVar[str] = "bandits"
    rule: Annotated[
        Literal["ucb1", "epsilon_greedy"], Meta(description="how a bandit chooses among its arms")
    ] = "ucb1"
    exploration: Annotated[float, Meta(ge=0, description="c of UCB1, for values scaled to 0..1")] = 1.0
    epsilon: Annotated[float, Meta(ge=0, le=1, description="share of random choices of epsilon-greedy")] = 0.1
    initial: Annotated[int, Meta(ge=0, description="random architectures at first")] = 20
    batch: Batch = 1

    def make(self, space: "Space", objectives: tuple[str, ...], budget: int) -> "Strategy":
        from jnas.strategies.bandit import bandit

        return bandit(space, self, len(objectives), budget)


class TreeSearch(Member, frozen=True, kw_only=True, tag="tree_search"):
    """UCT: a tree of decisions that grows where values are high."""

    asks: ClassVar[Kind] = "architectures"
    # 1 explores for ever: most values lie in a small part of their range.
    exploration: Annotated[float, Meta(ge=0, description="c of UCT, for values scaled to 0..1")] = 0.1
    batch: Batch = 1

    def make(self, space: "Space", objectives: tuple[str, ...], budget: int) -> "Strategy":
        from jnas.strategies.tree_search import tree_search

        return tree_search(space, self, len(objectives), budget)


class Lanas(Member, frozen=True, kw_only=True, tag="lanas"):
    """LaNAS: a tree of linear regressions splits the space; draws from the region that UCB chooses."""

    asks: ClassVar[Kind] = "architectures"
    initial: Annotated[int, Meta(ge=1, description="random architectures before the first tree")] = 20
    height: Annotated[int, Meta(ge=1, le=10, description="splits one below another")] = 5
    retrain: Annotated[int, Meta(ge=1, description="evaluations after which the tree is trained anew")] = 20
    exploration: Annotated[float, Meta(ge=0, description="c of UCB, for values scaled to 0..1")] = 0.1
    candidates: Annotated[
        int, Meta(ge=2, description="draws that meet regions of a space above 20,000, half of them mutants")
    ] = 1000
    batch: Batch = 1

    def make(self, space: "Space", objectives: tuple[str, ...], budget: int) -> "Strategy":
        from jnas.strategies.lanas import lanas

        return lanas(space, self, len(objectives), budget)


class Editing(Member, frozen=True, kw_only=True, tag="editing"):
    """EAS: a bidirectional LSTM reads an architecture and learns which decision to change, and to what."""

    asks: ClassVar[Kind] = "architectures"
    # The authors' embedding of 16, 50 units, 2e-3 and 1e-5, and their nine edits of large networks.
    edits: Annotated[int, Meta(ge=1, description="changes of one episode")] = 2
    embedding: Annotated[int, Meta(ge=1, description="width of an embedded choice")] = 16
    units: Annotated[int, Meta(ge=1, description="units of each direction of the LSTM")] = 50
    learning_rate: Annotated[float, Meta(gt=0, description="step of Adam")] = 2e-3
    entropy: Annotated[float, Meta(ge=0, description="weight of the policy's entropy")] = 1e-5
    decay: Annotated[float, Meta(ge=0, lt=1, description="weight of the past in the baseline")] = 0.95
    batch: Annotated[int, Meta(ge=1, description="episodes that begin from one architecture")] = 10

    def make(self, space: "Space", objectives: tuple[str, ...], budget: int) -> "Strategy":
        from jnas.strategies.editing import editing

        return editing(space, self, len(objectives), budget)
