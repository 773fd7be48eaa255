"""What a training is told to do: frozen dataclasses, one source for the file, the command line and the help."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jnas.config import strict
from jnas.config.search import read_as
from jnas.config.strict import option


@dataclass(frozen=True)
class RecipeConfig:
    """How the network is trained; the defaults are those of DARTS on CIFAR-10."""

    epochs: int = option(600, "epochs", minimum=1)
    batch: int = option(96, "images in a step, over all devices", minimum=1)
    learning_rate: float = option(0.025, "first learning rate of the cosine schedule", above=0)
    momentum: float = option(0.9, "momentum", minimum=0, below=1)
    nesterov: bool = option(False, "Nesterov's momentum")
    weight_decay: float = option(3e-4, "L2 penalty of the weights", minimum=0)
    clip: float = option(5.0, "largest norm of the gradient; 0: as it is", minimum=0)
    label_smoothing: float = option(0.0, "share of a label spread over all classes", minimum=0, below=1)
    auxiliary: float = option(0.4, "weight of the auxiliary head's loss; 0: no head (DARTS)", minimum=0)
    drop_path: float = option(0.3, "probability of dropping a path at the end (DARTS)", minimum=0, below=1)
    cutout: int = option(16, "side of the square cut out of each image; 0: none", minimum=0)
    average: float = option(
        0.0, "decay of the exponential average of the weights that is evaluated; 0: none", minimum=0, below=1
    )
    augment: bool = option(True, "shifted and mirrored images, where the images allow it")
    precision: Literal["float32", "bfloat16"] = option("float32", "of weights and images in the network")


@dataclass(frozen=True)
class TrainConfig:
    """The training of one architecture."""

    space: str = option("darts", "search space of the architecture (jnas list spaces)")
    arch: str = option("", "architecture, in the space's own text; or the folder of a finished search")
    seed: int = option(0, "seed of everything random", minimum=0, maximum=2**32 - 1)
    data: str = option("digits", "name of a data set (jnas list data), or the path of a file or folder")
    stream: int = option(
        0, "read a folder's images when they are needed, resized to this side; 0: all in memory", minimum=0
    )
    channels: int = option(36, "channels of the first stage", minimum=1)
    cells_per_stage: int = option(6, "cells of each stage; DARTS: normal cells, 6 make 20 cells", minimum=1)
    recipe: RecipeConfig = RecipeConfig()
    checkpoint_seconds: float = option(60.0, "seconds between stored states", minimum=0)
    log_steps: int = option(50, "steps between lines of the log", minimum=1)


def read_config(path: str | Path, overrides: Sequence[tuple[str, str]] = ()) -> TrainConfig:
    """The configuration in the YAML file `path`, with `(dotted key, text)` pairs of the command line on top.

    Raises `InputError` as `jnas.config.search.read_config` does.
    """
    config: TrainConfig = read_as(TrainConfig, from_mapping, path, overrides)
    return config


def from_mapping(mapping: Mapping[str, Any], source: str = "configuration") -> TrainConfig:
    """The configuration that a nested mapping describes. Raises `InputError`; `source` says where it stood."""
    return strict.build(TrainConfig, mapping, source)


def describe_options() -> Iterator[tuple[str, str, str, str]]:
    """`strict.describe_options` of a training."""
    return strict.describe_options(TrainConfig)
