"""What a search is told to do: frozen dataclasses, one source for the file, the command line and the help.

A configuration file is a YAML mapping; its sections are written with dots on the command line
(`ntk: {batch: 32}` and `--ntk.batch 32`). What is not written comes from the protocol, then from the defaults
here. The flags are read as keys of that same mapping, because what a protocol implies gives way to the keys
that were written explicitly, and only the mapping knows which were.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jnas.config import strict
from jnas.config.strict import option


@dataclass(frozen=True)
class PruneConfig:
    """The pruning of the supernet."""

    # 1 as released for NAS-Bench-201; the authors take 3 and 2 in the larger DARTS space.
    operations_per_round: int = option(
        1, "operations pruned on each edge in each round; the protocol sets the default", minimum=1
    )


@dataclass(frozen=True)
class NtkConfig:
    """The condition number of the neural tangent kernel."""

    # The paper says 32 images, the authors' code takes 72; 3 repeats, 3 channels and one cell a stage are its.
    batch: int = option(32, "images in the kernel; the protocol sets the default", minimum=2)
    repeats: int = option(3, "repeats, averaged; each has images of its own", minimum=1)
    channels: int = option(3, "channels of the first stage; DARTS: 1", minimum=1)
    cells_per_stage: int = option(1, "cells in each stage", minimum=1)
    # "train" is what the authors compute; "frozen" ranks alike and is an order of magnitude faster.
    normalisation: Literal["train", "frozen"] = option(
        "train", "batch normalisation by the batch, or with statistics frozen at the batch's values"
    )
    logits: Literal["sum", "trace", "full"] = option(
        "sum", "kernel of the summed logits, trace over the logits, or the whole NO x NO kernel"
    )
    # "weights" is what the authors sum over: convolutions, normalisation scales and the classifier.
    parameters: Literal["weights", "all"] = option(
        "weights", "parameters that count: without offsets and biases, or all"
    )
    initialisation: Literal["kaiming_normal", "pytorch_default"] = option(
        "kaiming_normal", "distribution of the weights; the protocol sets the default"
    )
    fresh_weights: bool = option(True, "new weights in each repeat; the protocol sets the default")
    implementation: Literal[
        "jnas", "jacobian_contraction", "ntk_vector_products", "structured_derivatives"
    ] = option("jnas", "jnas's own kernel, or one of the three of neural-tangents")


@dataclass(frozen=True)
class RegionsConfig:
    """The number of linear regions."""

    # Random 3x3 crops of one channel, one channel and one cell are those of the authors' code: on whole images
    # every input has a pattern of its own, and the count says nothing. The paper takes 5000, the code 3000.
    inputs: int = option(
        5000, "inputs whose ReLU patterns are counted; the protocol sets the default", minimum=2
    )
    channels: int = option(1, "channels of the cells", minimum=1)
    cells_per_stage: int = option(1, "cells in each stage", minimum=1)
    crop: int = option(3, "side of the random one-channel crops; 0 takes whole images", minimum=0)
    repeats: int = option(3, "repeats, averaged; each has inputs of its own", minimum=1)


@dataclass(frozen=True)
class NetworkConfig:
    """The network that proxies of the network to be trained look at."""

    # 64 images, 16 channels and five cells a stage are what the zero-cost proxies were published with.
    batch: int = option(64, "images in a batch", minimum=2)
    repeats: int = option(1, "repeats, averaged; each has weights and images of its own", minimum=1)
    channels: int = option(16, "channels of the first stage", minimum=1)
    cells_per_stage: int = option(5, "cells in each stage; DARTS: 1", minimum=1)
    initialisation: Literal["kaiming_normal", "pytorch_default"] = option(
        "kaiming_normal", "distribution of the weights"
    )


@dataclass(frozen=True)
class EvolutionConfig:
    """Evolution on a combination of training-free scores (strategy evolution)."""

    # What a cell can express is seen in a shallow network already, and these three are cheap.
    proxies: str = option(
        "synflow,zen,params", "proxies whose ranks are combined, separated by commas (jnas list proxies)"
    )
    evaluations: int = option(2048, "architectures scored", minimum=1)
    children: int = option(64, "architectures of one generation", minimum=1)
    parents: int = option(64, "best architectures of all so far that are mutated", minimum=1)
    finalists: int = option(64, "best architectures that are scored again in the final", minimum=1)
    # Whether gradients get through shows in the depth that is trained: the final adds trainability.
    final_proxies: str = option(
        "synflow,zen,az_trainability", "proxies whose ranks among the finalists are combined"
    )
    final_repeats: int = option(2, "repeats of that, each with weights and images of its own", minimum=1)


@dataclass(frozen=True)
class TrainingConfig:
    """The training of the found cell, and of random cells beside it."""

    # 12 epochs, the learning rate, the weight decay and 16 channels are the smallest budget of NAS-Bench-201;
    # one cell a stage, instead of its five, trains in minutes without a GPU.
    epochs: int = option(12, "epochs of each training; 0 trains nothing", minimum=0)
    batch: int = option(64, "images in a step", minimum=1)
    learning_rate: float = option(0.1, "first learning rate of the cosine schedule", above=0)
    weight_decay: float = option(5e-4, "L2 penalty of the weights", minimum=0)
    channels: int = option(16, "channels of the first stage", minimum=1)
    cells_per_stage: int = option(1, "cells in each stage", minimum=1)
    # The rank among six already tells, and training stays the smaller part of the work.
    random_cells: int = option(5, "random cells scored and trained beside the found one", minimum=0)
    augment: bool = option(True, "shifted and mirrored images, where the images allow it")


@dataclass(frozen=True)
class PosteriorConfig:
    """Posterior-guided one-shot search (strategy posterior)."""

    # Small ones tell already; jnas list supernets has the width and depth of the paper's networks.
    width: int = option(
        0, "width of the supernet (jnas list supernets); 0: the smallest that tells", minimum=0
    )
    depth: int = option(1, "depth of the supernet: cells, layers or blocks of each stage", minimum=1)
    epochs: int = option(60, "epochs of the supernet's training", minimum=1)
    batch: int = option(64, "images in a step", minimum=2)
    learning_rate: float = option(0.05, "first learning rate of the cosine schedule", above=0)
    # The paper trains weights and logits alike for up to 1800 epochs; in a thirtieth of the steps logits that
    # learn alike hardly move.
    logits_rate: float = option(10.0, "how many times faster logits of dropping learn than weights", above=0)
    gates: Literal["channel", "group"] = option(
        "channel", "a mask for each input channel, or one for a whole group (operations have one anyway)"
    )
    temperature: float = option(0.2, "of the relaxed masks in training; the paper's 1/5", above=0)
    drop_probability: float = option(0.1, "drop probability that training starts from", above=0, below=1)
    inclusion: float = option(
        0.5, "prior probability that a mask is kept; 0.5 is the paper's", above=0, below=1
    )
    prior: Literal["none", "training_free"] = option(
        "none", "training_free shifts both by how much an operation is missed by ntk and regions"
    )
    prior_strength: float = option(
        1.0, "how far, in logits, for the most and the least missed", minimum=0, maximum=10
    )
    # 1 to 2 leaves a fifth to a half of the parameters where every image counts once; the paper's 0.1 to 2500 go with
    # networks a hundred times larger.
    weight_penalty: float = option(1.0, "the paper's l^2, of the squared weights", minimum=0)
    penalty: Literal["kept", "constant"] = option(
        "kept", "weigh it by the probability of being kept (the paper), or not (plain L2)"
    )
    entropy: float = option(1.0, "weight of the divergence of the masks; 1 in the loss as derived", minimum=0)
    # The paper counts augmented images: 500,000 for the 50,000 of CIFAR, that is 10.
    examples: float = option(1.0, "examples that an image counts for in the loss", above=0)
    augment: bool = option(True, "shifted and mirrored images, where the images allow it")
    validation: float = option(
        0.2, "share of the training images held out to choose among candidates", above=0, below=1
    )
    candidates: int = option(50, "candidates drawn from the posterior", minimum=1)
    blind_candidates: int = option(50, "candidates drawn blindly, for comparison", minimum=0)
    at_once: int = option(
        10, "candidates evaluated side by side; fewer are tried where memory does not do", minimum=1
    )
    recalibrate: int = option(
        0,
        "training images from which each candidate's normalisation is estimated; 0: the supernet's",
        minimum=0,
    )
    # Drawing is cheap, evaluating is not.
    filter: str = option(
        "", "proxy that drawn candidates are filtered by before they are evaluated (jnas list proxies)"
    )
    filter_factor: int = option(4, "how many times more are drawn for that", minimum=2)
    tuning_epochs: int = option(0, "epochs that the weights of the found candidate are tuned for", minimum=0)
    tuning_rate: float = option(0.01, "first learning rate of that", above=0)


@dataclass(frozen=True)
class SearchConfig:
    """A search of one space. `from_mapping` builds it with what its protocol implies."""

    space: str = option("nasbench201", "search space (jnas list spaces) or supernet (jnas list supernets)")
    strategy: str = option("pruning", "how to explore it (jnas list strategies, jnas list oneshot)")
    protocol: Literal["paper", "released"] = option(
        "paper",
        "TE-NAS as published (Kaiming weights, fresh in each repeat; 32 images) or as its authors' code runs",
    )
    # A JAX key is made from 32 bits.
    seed: int = option(0, "seed of everything random", minimum=0, maximum=2**32 - 1)
    data: str = option("digits", "name of a data set (jnas list data), or the path of a file or folder")
    prune: PruneConfig = PruneConfig()
    evolution: EvolutionConfig = EvolutionConfig()
    network: NetworkConfig = NetworkConfig()
    final: NetworkConfig = NetworkConfig()
    posterior: PosteriorConfig = PosteriorConfig()
    ntk: NtkConfig = NtkConfig()
    regions: RegionsConfig = RegionsConfig()
    training: TrainingConfig = TrainingConfig()
    table: str = option(
        "", "CSV with columns architecture,test_acc where the found cell is looked up afterwards"
    )


# What a protocol implies, in each space, for the keys that are not written explicitly. The paper prunes one
# operation an edge and round; its authors' code three in the DARTS space for CIFAR-10 (two and 24 images for
# ImageNet).
PROTOCOLS: Mapping[str, Mapping[str, Mapping[str, Mapping[str, Any]]]] = {
    "nasbench201": {
        "paper": {
            "ntk": {"batch": 32, "initialisation": "kaiming_normal", "fresh_weights": True},
            "regions": {"inputs": 5000},
        },
        "released": {
            "ntk": {"batch": 72, "initialisation": "pytorch_default", "fresh_weights": False},
            "regions": {"inputs": 3000},
        },
    },
    "darts": {
        "paper": {
            "ntk": {"batch": 32, "channels": 1, "initialisation": "kaiming_normal", "fresh_weights": True},
            "regions": {"inputs": 5000},
        },
        "released": {
            "prune": {"operations_per_round": 3},
            "ntk": {"batch": 14, "channels": 1, "initialisation": "pytorch_default", "fresh_weights": False},
            "regions": {"inputs": 3000},
        },
    },
}

# Where the config.yaml of a run notes versions and device. Skipped in reading: a run's file repeats the run.
ENVIRONMENT_KEY = "environment"


def read_config(path: str | Path, overrides: Sequence[tuple[str, str]] = ()) -> SearchConfig:
    """The configuration in the YAML file `path`, with `(dotted key, text)` pairs of the command line on top.

    Raises `InputError` for a file that is missing or holds no YAML mapping, an unknown key, and a value of
    another type or outside its bounds.
    """
    config: SearchConfig = read_as(SearchConfig, from_mapping, path, overrides)
    return config


def read_as(
    kind: type, build: Callable[..., Any], path: str | Path, overrides: Sequence[tuple[str, str]]
) -> Any:
    """`read_config` for any dataclass `kind`, which `build(mapping, source)` makes."""
    mapping = strict.read_mapping(path)
    mapping.pop(ENVIRONMENT_KEY, None)
    # The file by itself first, so that its mistakes are not blamed on the command line.
    build(mapping, source=str(path))
    return build(strict.overridden(kind, mapping, overrides, "command line"), source="command line")


def from_mapping(mapping: Mapping[str, Any], source: str = "configuration") -> SearchConfig:
    """The configuration that a nested mapping describes, with what its protocol implies.

    Raises `InputError` as `read_config` does; `source` says where the mapping stood.
    """
    plain = strict.build(SearchConfig, mapping, source)
    # What is no space of cells scores nothing; a space that nobody knows is refused later.
    protocols = PROTOCOLS.get(plain.space, PROTOCOLS["nasbench201"])
    implied = {
        section: {**values, **mapping.get(section, {})}
        for section, values in protocols[plain.protocol].items()
    }
    return strict.build(SearchConfig, {**mapping, **implied}, source)


def to_mapping(config: Any) -> dict[str, Any]:
    """A resolved configuration as nested plain values, which `from_mapping` reads back unchanged."""
    return dataclasses.asdict(config)


def digest(config: Any) -> str:
    """SHA-256 of the resolved configuration: equal for equal configurations, on every machine."""
    return hashlib.sha256(json.dumps(to_mapping(config), sort_keys=True).encode()).hexdigest()


def differences(old: Any, new: Any) -> list[str]:
    """`key: old -> new` for each field in which two configurations, of one dataclass, differ."""
    pairs = [(key, _get(old, key), _get(new, key)) for key, _, _ in strict.leaves(type(old))]
    return [f"{key}: {strict.describe(a)} -> {strict.describe(b)}" for key, a, b in pairs if a != b]


def describe_options() -> Iterator[tuple[str, str, str, str]]:
    """`strict.describe_options` of a search."""
    return strict.describe_options(SearchConfig)


def _get(config: Any, key: str) -> Any:
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    return value
