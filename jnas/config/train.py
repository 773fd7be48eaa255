"""Settings of a training."""

from functools import partial
from typing import Annotated, Literal

from msgspec import Meta

from jnas.config import read
from jnas.settings import Data, Seed, Settings


class RecipeConfig(Settings, frozen=True, kw_only=True):
    """How the network is trained; the defaults are those of DARTS on CIFAR-10."""

    epochs: Annotated[int, Meta(ge=1, description="epochs")] = 600
    batch: Annotated[int, Meta(ge=1, description="images in a step, over all devices")] = 96
    learning_rate: Annotated[float, Meta(gt=0, description="first learning rate of the cosine schedule")] = (
        0.025
    )
    momentum: Annotated[float, Meta(ge=0, lt=1, description="momentum")] = 0.9
    nesterov: Annotated[bool, Meta(description="Nesterov's momentum")] = False
    weight_decay: Annotated[float, Meta(ge=0, description="L2 penalty of the weights")] = 3e-4
    clip: Annotated[float, Meta(ge=0, description="largest norm of the gradient; 0: as it is")] = 5.0
    label_smoothing: Annotated[
        float, Meta(ge=0, lt=1, description="share of a label spread over all classes")
    ] = 0.0
    auxiliary: Annotated[
        float, Meta(ge=0, description="weight of the auxiliary head's loss; 0: no head (DARTS)")
    ] = 0.4
    drop_path: Annotated[
        float, Meta(ge=0, lt=1, description="probability of dropping a path at the end (DARTS)")
    ] = 0.3
    cutout: Annotated[int, Meta(ge=0, description="side of the square cut out of each image; 0: none")] = 16
    average: Annotated[
        float,
        Meta(
            ge=0,
            lt=1,
            description="decay of the exponential average of the weights that is evaluated; 0: none",
        ),
    ] = 0.0
    augment: Annotated[bool, Meta(description="shifted and mirrored images, where the images allow it")] = (
        True
    )
    precision: Annotated[
        Literal["float32", "bfloat16"], Meta(description="of weights and images in the network")
    ] = "float32"


class TrainConfig(Settings, frozen=True, kw_only=True):
    """The training of one architecture."""

    space: Annotated[str, Meta(description="search space of the architecture (jnas list spaces)")] = "darts"
    arch: Annotated[
        str, Meta(description="architecture, in the space's own text; or the folder of a finished search")
    ] = ""
    seed: Seed = 0
    data: Data = "digits"
    stream: Annotated[
        int,
        Meta(
            ge=0,
            description="read a folder's images when they are needed, resized to this side; 0: all in memory",
        ),
    ] = 0
    channels: Annotated[int, Meta(ge=1, description="channels of the first stage")] = 36
    cells_per_stage: Annotated[
        int, Meta(ge=1, description="cells of each stage; DARTS: normal cells, 6 make 20 cells")
    ] = 6
    recipe: RecipeConfig = RecipeConfig()
    checkpoint_seconds: Annotated[float, Meta(ge=0, description="seconds between stored states")] = 60.0
    log_steps: Annotated[int, Meta(ge=1, description="steps between lines of the log")] = 50


from_mapping = partial(read.from_mapping, TrainConfig)
