"""Settings of supernets, and of the methods that train them."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import Meta

from jnas.settings import Augment, LearningRate, Member, Settings

if TYPE_CHECKING:
    from jnas.types import OneShot


class SupernetConfig(Settings, frozen=True, kw_only=True):
    """A supernet and its training, by any method."""

    # Small ones tell already; jnas list supernets has the width and depth of the paper's networks.
    width: Annotated[
        int, Meta(ge=0, description="width (jnas list supernets); 0: the smallest that tells cells apart")
    ] = 0
    depth: Annotated[int, Meta(ge=1, description="cells, layers or blocks of each stage")] = 1
    epochs: Annotated[int, Meta(ge=1, description="epochs")] = 60
    batch: Annotated[int, Meta(ge=2, description="images in a step")] = 64
    augment: Augment = True
    validation: Annotated[
        float, Meta(gt=0, lt=1, description="share of the training images held out to choose candidates by")
    ] = 0.2
    prior: Annotated[
        Literal["none", "training_free"],
        Meta(description="training_free shifts drop and inclusion by ntk and regions (method posterior)"),
    ] = "none"
    prior_strength: Annotated[
        float,
        Meta(ge=0, le=10, description="how far, in logits, for the most and the least missed operation"),
    ] = 1.0


class Posterior(Member, frozen=True, kw_only=True, tag="posterior"):
    """Variational dropout: a probability of dropping for every group of weights, learned with the weights."""

    learning_rate: LearningRate = 0.05
    # The paper trains weights and logits alike for up to 1800 epochs; in a thirtieth of the steps logits that learn
    # alike hardly move.
    logits_rate: Annotated[
        float, Meta(gt=0, description="how many times faster logits of dropping learn than weights")
    ] = 10.0
    # A mask for each input channel, or one for a whole group. Operations have one anyway.
    gates: Annotated[Literal["channel", "group"], Meta(description="which masks are independent")] = "channel"
    temperature: Annotated[
        float, Meta(gt=0, description="of the relaxed masks in training; the paper's 1/5")
    ] = 0.2
    drop_probability: Annotated[
        float, Meta(gt=0, lt=1, description="drop probability that training starts from")
    ] = 0.1
    inclusion: Annotated[
        float, Meta(gt=0, lt=1, description="prior probability that a mask is kept; 0.5 is the paper's")
    ] = 0.5
    # 1 to 2 leaves a fifth to a half of the parameters where every image counts once; the paper's 0.1 to 2500 go with
    # networks a hundred times larger.
    weight_penalty: Annotated[float, Meta(ge=0, description="the paper's l^2, of the squared weights")] = 1.0
    penalty: Annotated[
        Literal["kept", "constant"],
        Meta(description="weigh it by the probability of being kept (the paper), or not (plain L2)"),
    ] = "kept"
    entropy: Annotated[
        float, Meta(ge=0, description="weight of the divergence of the masks; 1 in the loss as derived")
    ] = 1.0
    # The paper counts augmented images: 500,000 for the 50,000 of CIFAR, that is 10.
    examples: Annotated[float, Meta(gt=0, description="examples that an image counts for in the loss")] = 1.0

    def make(self, supernet: Any, **constants: Any) -> "OneShot":
        """The method that these settings describe: see `jnas.oneshot.posterior.posterior`."""
        from jnas.oneshot.posterior import posterior

        return posterior(supernet, self, **constants)


class Uniform(Member, frozen=True, kw_only=True, tag="uniform"):
    """Single paths: one uniform architecture a batch."""

    learning_rate: LearningRate = 0.1
    weight_penalty: Annotated[float, Meta(ge=0, description="l, of the squared weights")] = 0.02
    examples: Annotated[float, Meta(gt=0, description="examples that an image counts for in the loss")] = 1.0

    def make(self, supernet: Any, **constants: Any) -> "OneShot":
        """The method that these settings describe: see `jnas.oneshot.uniform.uniform`."""
        from jnas.oneshot.uniform import uniform

        return uniform(supernet, self, **constants)
