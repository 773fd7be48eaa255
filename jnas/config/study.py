"""What a study is configured by: a YAML file with the kind of the study and a section for it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jnas.config import strict
from jnas.config.search import read_as
from jnas.config.strict import option


@dataclass(frozen=True)
class SearchStudyConfig:
    """Strategies on a table, over many seeds at once."""

    strategies: str = option(
        "random,aging,local",
        "strategies compared; random search is always among them",
    )
    seeds: int = option(500, "searches by each strategy", minimum=2)
    evaluations: int = option(500, "evaluations of one search", minimum=2)
    epoch: int = option(0, "epochs that an evaluation trains for; 0: as many as the table has", minimum=0)


@dataclass(frozen=True)
class RankStudyConfig:
    """Training-free scores against trained accuracies."""

    proxies: str = option(
        "naswot,swap,synflow,regions", "proxies, separated by commas; sizes are always there"
    )
    variants: str = option(
        "", "further scorings: network.batch=16; ntk.channels=1 ntk.logits=trace; ..., each with all proxies"
    )
    cells: int = option(0, "cells of the table that are scored, at random; 0: all", minimum=0)
    top: float = option(0.05, "share of the cells that precision is counted among", above=0, maximum=1)
    resamples: int = option(200, "bootstrap samples of each interval", minimum=20)


@dataclass(frozen=True)
class KernelStudyConfig:
    """Kernels of wide networks against those of infinite width."""

    cells: int = option(
        5, "cells of the table that are followed as width grows, evenly by accuracy", minimum=1
    )
    ranked: int = option(60, "cells whose kernel of infinite width is held against accuracy", minimum=0)
    widths: str = option("8,16,32,64,128", "channels, separated by commas")
    draws: int = option(4, "networks of each width", minimum=2)
    images: int = option(12, "images that kernels are taken on", minimum=3)
    depth: int = option(1, "cells one after another", minimum=1)
    resamples: int = option(200, "bootstrap samples of each interval", minimum=20)


@dataclass(frozen=True)
class DynamicsStudyConfig:
    """Training of the linearised network against training."""

    cells: int = option(4, "cells of the table that are trained, evenly by accuracy", minimum=1)
    widths: str = option("8,32", "channels, separated by commas: wider is closer to linear")
    train: int = option(48, "training images", minimum=4)
    test: int = option(96, "test images", minimum=4)
    steps: int = option(512, "steps of gradient descent on all training images", minimum=8)
    rate: float = option(0.1, "learning rate as a share of the largest stable one", above=0, maximum=1)
    depth: int = option(1, "cells one after another", minimum=1)


@dataclass(frozen=True)
class DriftStudyConfig:
    """Neural tangent kernels while the networks train."""

    cells: int = option(100, "cells of the table that are trained, at random; 0: all", minimum=0)
    images: int = option(32, "training images that kernels are taken on", minimum=4)
    channels: int = option(16, "channels of the first stage", minimum=1)
    cells_per_stage: int = option(1, "cells in each stage", minimum=1)
    stages: int = option(1, "stages", minimum=1)
    epochs: str = option("0,1,2,5", "epochs after which to measure, ascending; training ends with the last")
    batch: int = option(128, "images in a batch", minimum=1)
    learning_rate: float = option(0.2, "largest learning rate of the cosine", above=0)
    weight_decay: float = option(5e-4, "weight decay", minimum=0)
    resamples: int = option(200, "bootstrap samples of each interval", minimum=20)


@dataclass(frozen=True)
class OneshotStudyConfig:
    """Inherited weights against trainings of one's own."""

    cells: int = option(200, "cells of the table that are evaluated, at random; 0: all", minimum=0)
    supernets: str = option("uniform,posterior", "kinds compared: uniform paths, posterior")
    seeds: int = option(3, "supernets of each kind", minimum=1)
    channels: int = option(16, "channels of the first stage of the supernet", minimum=1)
    cells_per_stage: int = option(1, "cells in each stage", minimum=1)
    stages: int = option(1, "stages", minimum=1, maximum=3)
    epochs: int = option(60, "epochs of a supernet's training", minimum=1)
    # Uniform paths train one operation an edge at a step: with few steps they rank by what was trained.
    batch: int = option(32, "images in a batch", minimum=2)
    learning_rate: float = option(0.1, "largest learning rate of the cosine", above=0)
    logits_rate: float = option(2.0, "how many times faster logits of dropping learn than weights", above=0)
    weight_penalty: float = option(0.02, "weight of the penalty on weights, of both kinds", minimum=0)
    drop_probability: float = option(0.5, "the posterior's drop probability at the start", above=0, below=1)
    recalibrate: int = option(
        256, "training images by which a cell's normalisation is measured again; 0: not", minimum=0
    )
    resamples: int = option(200, "bootstrap samples of each interval", minimum=20)


_SEARCH, _RANK, _KERNEL = SearchStudyConfig(), RankStudyConfig(), KernelStudyConfig()
_DYNAMICS, _DRIFT, _ONESHOT = DynamicsStudyConfig(), DriftStudyConfig(), OneshotStudyConfig()


@dataclass(frozen=True)
class StudyConfig:
    """A study; `read_config` builds it."""

    kind: Literal["search", "rank", "kernel", "dynamics", "drift", "oneshot"] = option(
        "search", "what is studied"
    )
    table: str = option(
        "digits",
        "table of trained accuracies: digits comes with jnas; or the .npz of jnas table, or a CSV with architecture "
        "and test_acc",
    )
    data: str = option("digits", "images that scores are measured on: those of the table")
    seed: int = option(0, "seed of everything random", minimum=0, maximum=2**32 - 1)
    search: SearchStudyConfig = _SEARCH
    rank: RankStudyConfig = _RANK
    kernel: KernelStudyConfig = _KERNEL
    dynamics: DynamicsStudyConfig = _DYNAMICS
    drift: DriftStudyConfig = _DRIFT
    oneshot: OneshotStudyConfig = _ONESHOT


def read_config(path: str | Path, overrides: Sequence[tuple[str, str]] = ()) -> StudyConfig:
    """The configuration in a YAML file, with `(dotted key, text)` pairs of the command line on top. `InputError`."""
    config: StudyConfig = read_as(StudyConfig, from_mapping, path, overrides)
    return config


def from_mapping(mapping: Mapping[str, Any], source: str = "configuration") -> StudyConfig:
    """The configuration that a nested mapping describes; raises `InputError` for what it does not know."""
    config: StudyConfig = strict.build(StudyConfig, mapping, source)
    return config


def describe_options() -> Iterator[tuple[str, str, str, str]]:
    """`strict.describe_options` of a study."""
    yield from strict.describe_options(StudyConfig)
