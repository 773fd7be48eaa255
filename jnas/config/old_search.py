"""Settings of a search by one of the four programs that `jnas.run.search` still holds."""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Literal

from msgspec import Meta

from jnas.config import read
from jnas.estimators.settings import NetworkConfig, NtkConfig, RegionsConfig
from jnas.settings import Data, Seed, Settings


class PruneConfig(Settings, frozen=True, kw_only=True):
    """The pruning of the supernet."""

    # 1 as released for NAS-Bench-201; the authors take 3 and 2 in the larger DARTS space.
    operations_per_round: Annotated[
        int,
        Meta(ge=1, description="operations pruned on each edge in each round"),
    ] = 1


class EvolutionConfig(Settings, frozen=True, kw_only=True):
    """Evolution on a combination of training-free scores (strategy evolution)."""

    # What a cell can express is seen in a shallow network already, and these three are cheap.
    proxies: Annotated[
        str, Meta(description="proxies whose ranks are combined, separated by commas (jnas list proxies)")
    ] = "synflow,zen,params"
    evaluations: Annotated[int, Meta(ge=1, description="architectures scored")] = 2048
    children: Annotated[int, Meta(ge=1, description="architectures of one generation")] = 64
    parents: Annotated[int, Meta(ge=1, description="best architectures of all so far that are mutated")] = 64
    finalists: Annotated[
        int, Meta(ge=1, description="best architectures that are scored again in the final")
    ] = 64
    # Whether gradients get through shows in the depth that is trained: the final adds trainability.
    final_proxies: Annotated[
        str, Meta(description="proxies whose ranks among the finalists are combined")
    ] = "synflow,zen,az_trainability"
    final_repeats: Annotated[
        int, Meta(ge=1, description="repeats of that, each with weights and images of its own")
    ] = 2


class TrainingConfig(Settings, frozen=True, kw_only=True):
    """The training of the found cell, and of random cells beside it."""

    # 12 epochs, the learning rate, the weight decay and 16 channels are the smallest budget of NAS-Bench-201;
    # one cell a stage, instead of its five, trains in minutes without a GPU.
    epochs: Annotated[int, Meta(ge=0, description="epochs of each training; 0 trains nothing")] = 12
    batch: Annotated[int, Meta(ge=1, description="images in a step")] = 64
    learning_rate: Annotated[float, Meta(gt=0, description="first learning rate of the cosine schedule")] = (
        0.1
    )
    weight_decay: Annotated[float, Meta(ge=0, description="L2 penalty of the weights")] = 5e-4
    channels: Annotated[int, Meta(ge=1, description="channels of the first stage")] = 16
    cells_per_stage: Annotated[int, Meta(ge=1, description="cells in each stage")] = 1
    # The rank among six already tells, and training stays the smaller part of the work.
    random_cells: Annotated[
        int, Meta(ge=0, description="random cells scored and trained beside the found one")
    ] = 5
    augment: Annotated[bool, Meta(description="shifted and mirrored images, where the images allow it")] = (
        True
    )


class PosteriorConfig(Settings, frozen=True, kw_only=True):
    """Posterior-guided one-shot search (strategy posterior)."""

    # Small ones tell already; jnas list supernets has the width and depth of the paper's networks.
    width: Annotated[
        int, Meta(ge=0, description="width of the supernet (jnas list supernets); 0: the smallest that tells")
    ] = 0
    depth: Annotated[
        int, Meta(ge=1, description="depth of the supernet: cells, layers or blocks of each stage")
    ] = 1
    epochs: Annotated[int, Meta(ge=1, description="epochs of the supernet's training")] = 60
    batch: Annotated[int, Meta(ge=2, description="images in a step")] = 64
    learning_rate: Annotated[float, Meta(gt=0, description="first learning rate of the cosine schedule")] = (
        0.05
    )
    # The paper trains weights and logits alike for up to 1800 epochs; in a thirtieth of the steps logits that
    # learn alike hardly move.
    logits_rate: Annotated[
        float, Meta(gt=0, description="how many times faster logits of dropping learn than weights")
    ] = 10.0
    gates: Annotated[
        Literal["channel", "group"],
        Meta(
            description="a mask for each input channel, or one for a whole group (operations have one anyway)"
        ),
    ] = "channel"
    temperature: Annotated[
        float, Meta(gt=0, description="of the relaxed masks in training; the paper's 1/5")
    ] = 0.2
    drop_probability: Annotated[
        float, Meta(gt=0, lt=1, description="drop probability that training starts from")
    ] = 0.1
    inclusion: Annotated[
        float, Meta(gt=0, lt=1, description="prior probability that a mask is kept; 0.5 is the paper's")
    ] = 0.5
    prior: Annotated[
        Literal["none", "training_free"],
        Meta(description="training_free shifts both by how much an operation is missed by ntk and regions"),
    ] = "none"
    prior_strength: Annotated[
        float, Meta(ge=0, le=10, description="how far, in logits, for the most and the least missed")
    ] = 1.0
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
    augment: Annotated[bool, Meta(description="shifted and mirrored images, where the images allow it")] = (
        True
    )
    validation: Annotated[
        float,
        Meta(gt=0, lt=1, description="share of the training images held out to choose among candidates"),
    ] = 0.2
    candidates: Annotated[int, Meta(ge=1, description="candidates drawn from the posterior")] = 50
    blind_candidates: Annotated[int, Meta(ge=0, description="candidates drawn blindly, for comparison")] = 50
    at_once: Annotated[
        int,
        Meta(ge=1, description="candidates evaluated side by side; fewer are tried where memory does not do"),
    ] = 10
    recalibrate: Annotated[
        int,
        Meta(
            ge=0,
            description="training images from which each candidate's normalisation is estimated; 0: the supernet's",
        ),
    ] = 0
    # Drawing is cheap, evaluating is not.
    filter: Annotated[
        str,
        Meta(
            description="proxy that drawn candidates are filtered by before they are evaluated (jnas list proxies)"
        ),
    ] = ""
    filter_factor: Annotated[int, Meta(ge=2, description="how many times more are drawn for that")] = 4
    tuning_epochs: Annotated[
        int, Meta(ge=0, description="epochs that the weights of the found candidate are tuned for")
    ] = 0
    tuning_rate: Annotated[float, Meta(gt=0, description="first learning rate of that")] = 0.01


# Settings of TE-NAS in each space, as published and as its code runs. The paper prunes one operation an edge and round;
# its authors' code three in the DARTS space for CIFAR-10 (two and 24 images for ImageNet).
PROTOCOLS: Mapping[str, Mapping[str, Mapping[str, Mapping[str, Any]]]] = {
    "nasbench201": {
        "paper": {
            "ntk": {"batch": 32, "repeats": 3, "initialisation": "kaiming_normal", "fresh_weights": True},
            "regions": {"inputs": 5000, "repeats": 3},
        },
        "released": {
            "ntk": {"batch": 72, "repeats": 3, "initialisation": "pytorch_default", "fresh_weights": False},
            "regions": {"inputs": 3000, "repeats": 3},
        },
    },
    "darts": {
        "paper": {
            "ntk": {
                "batch": 32,
                "channels": 1,
                "repeats": 3,
                "initialisation": "kaiming_normal",
                "fresh_weights": True,
            },
            "regions": {"inputs": 5000, "repeats": 3},
        },
        "released": {
            "prune": {"operations_per_round": 3},
            "ntk": {
                "batch": 14,
                "channels": 1,
                "repeats": 3,
                "initialisation": "pytorch_default",
                "fresh_weights": False,
            },
            "regions": {"inputs": 3000, "repeats": 3},
        },
    },
}


class SearchConfig(Settings, frozen=True, kw_only=True):
    """A search of one space."""

    space: Annotated[
        str, Meta(description="search space (jnas list spaces) or supernet (jnas list supernets)")
    ] = "nasbench201"
    strategy: Annotated[
        str, Meta(description="how to explore it (jnas list strategies, jnas list oneshot)")
    ] = "pruning"
    protocol: Annotated[
        Literal["paper", "released"],
        Meta(
            description="TE-NAS as published (fresh Kaiming weights, 32 images) or as its authors' code runs"
        ),
    ] = "paper"
    seed: Seed = 0
    data: Data = "digits"
    prune: PruneConfig = PruneConfig()
    evolution: EvolutionConfig = EvolutionConfig()
    network: NetworkConfig = NetworkConfig()
    final: NetworkConfig = NetworkConfig()
    posterior: PosteriorConfig = PosteriorConfig()
    ntk: NtkConfig = NtkConfig()
    regions: RegionsConfig = RegionsConfig()
    training: TrainingConfig = TrainingConfig()
    table: Annotated[
        str,
        Meta(
            description="CSV with columns architecture,test_acc where the found cell is looked up afterwards"
        ),
    ] = ""

    @staticmethod
    def implied(given: Mapping[str, Any]) -> Mapping[str, Any]:
        protocols = PROTOCOLS.get(str(given.get("space")), PROTOCOLS["nasbench201"])
        return protocols.get(str(given.get("protocol", "paper")), {})


from_mapping = partial(read.from_mapping, SearchConfig)
