"""Settings of a study: its kind, and a section for each kind."""

from functools import partial
from typing import Annotated, Any, Literal

from msgspec import Meta

from jnas.config import read
from jnas.settings import Batch, CellsPerStage, Channels, LearningRate, Resamples, Seed, Settings, WeightDecay


class SearchStudyConfig(Settings, frozen=True, kw_only=True):
    """Strategies on a table, over many seeds at once."""

    strategies: Annotated[
        str | tuple[str | dict[str, Any], ...],
        Meta(
            description="strategies compared, random always among them: aging, aging population=100, ...; or a list"
        ),
    ] = "random,aging,local"
    seeds: Annotated[int, Meta(ge=2, description="searches by each strategy")] = 500
    slow_seeds: Annotated[
        int, Meta(ge=2, description="searches by a strategy that runs one search at a time, if fewer")
    ] = 20
    evaluations: Annotated[int, Meta(ge=2, description="evaluations of one search")] = 500
    signal: Annotated[
        str,
        Meta(
            description="value that a search sees: training, one drawn among the table's; mean, of all; or a column of "
            "the table's CSV"
        ),
    ] = "training"
    epoch: Annotated[
        int, Meta(ge=0, description="epochs that an evaluation trains for; 0: as many as the table has")
    ] = 0
    cost: Annotated[
        str,
        Meta(
            description="second objective, lower is better: params, flops, convs or FILE.csv:column; empty for none"
        ),
    ] = ""


class RankStudyConfig(Settings, frozen=True, kw_only=True):
    """Training-free scores against trained accuracies."""

    proxies: Annotated[str, Meta(description="proxies, separated by commas; sizes are always there")] = (
        "naswot,swap,synflow,regions"
    )
    variants: Annotated[
        str,
        Meta(
            description="further scorings, each of all proxies: network.batch=16; ntk.channels=1 ntk.logits=trace; ..."
        ),
    ] = ""
    cells: Annotated[int, Meta(ge=0, description="cells of the table that are scored, at random; 0: all")] = 0
    top: Annotated[
        float, Meta(gt=0, le=1, description="share of the cells that precision is counted among")
    ] = 0.05
    resamples: Resamples = 200


class KernelStudyConfig(Settings, frozen=True, kw_only=True):
    """Kernels of wide networks against those of infinite width."""

    cells: Annotated[
        int, Meta(ge=1, description="cells of the table that are followed as width grows, evenly by accuracy")
    ] = 5
    ranked: Annotated[
        int, Meta(ge=0, description="cells whose kernel of infinite width is held against accuracy")
    ] = 60
    widths: Annotated[str, Meta(description="channels, separated by commas")] = "8,16,32,64,128"
    draws: Annotated[int, Meta(ge=2, description="networks of each width")] = 4
    images: Annotated[int, Meta(ge=3, description="images that kernels are taken on")] = 12
    depth: Annotated[int, Meta(ge=1, description="cells one after another")] = 1
    resamples: Resamples = 200


class DynamicsStudyConfig(Settings, frozen=True, kw_only=True):
    """Training of the linearised network against training."""

    cells: Annotated[
        int, Meta(ge=1, description="cells of the table that are trained, evenly by accuracy")
    ] = 4
    widths: Annotated[str, Meta(description="channels, separated by commas: wider is closer to linear")] = (
        "8,32"
    )
    train: Annotated[int, Meta(ge=4, description="training images")] = 48
    test: Annotated[int, Meta(ge=4, description="test images")] = 96
    steps: Annotated[int, Meta(ge=8, description="steps of gradient descent on all training images")] = 512
    rate: Annotated[
        float, Meta(gt=0, le=1, description="learning rate as a share of the largest stable one")
    ] = 0.1
    depth: Annotated[int, Meta(ge=1, description="cells one after another")] = 1


class DriftStudyConfig(Settings, frozen=True, kw_only=True):
    """Neural tangent kernels while the networks train."""

    cells: Annotated[
        int, Meta(ge=0, description="cells of the table that are trained, at random; 0: all")
    ] = 100
    images: Annotated[int, Meta(ge=4, description="training images that kernels are taken on")] = 32
    channels: Channels = 16
    cells_per_stage: CellsPerStage = 1
    stages: Annotated[int, Meta(ge=1, description="stages")] = 1
    epochs: Annotated[
        str, Meta(description="epochs after which to measure, ascending; training ends with the last")
    ] = "0,1,2,5"
    batch: Batch = 128
    learning_rate: LearningRate = 0.2
    weight_decay: WeightDecay = 5e-4
    resamples: Resamples = 200


class OneshotStudyConfig(Settings, frozen=True, kw_only=True):
    """Inherited weights against trainings of one's own."""

    cells: Annotated[
        int, Meta(ge=0, description="cells of the table that are evaluated, at random; 0: all")
    ] = 200
    supernets: Annotated[str, Meta(description="kinds compared: uniform paths, posterior")] = (
        "uniform,posterior"
    )
    seeds: Annotated[int, Meta(ge=1, description="supernets of each kind")] = 3
    channels: Annotated[int, Meta(ge=1, description="channels of the first stage of the supernet")] = 16
    cells_per_stage: CellsPerStage = 1
    stages: Annotated[int, Meta(ge=1, le=3, description="stages")] = 1
    epochs: Annotated[int, Meta(ge=1, description="epochs of a supernet's training")] = 60
    # Uniform paths train one operation an edge at a step: with few steps they rank by what was trained.
    batch: Annotated[int, Meta(ge=2, description="images in a batch")] = 32
    learning_rate: LearningRate = 0.1
    logits_rate: Annotated[
        float, Meta(gt=0, description="how many times faster logits of dropping learn than weights")
    ] = 2.0
    weight_penalty: Annotated[
        float, Meta(ge=0, description="weight of the penalty on weights, of both kinds")
    ] = 0.02
    drop_probability: Annotated[
        float, Meta(gt=0, lt=1, description="the posterior's drop probability at the start")
    ] = 0.5
    recalibrate: Annotated[
        int,
        Meta(ge=0, description="training images by which a cell's normalisation is measured again; 0: not"),
    ] = 256
    resamples: Resamples = 200


class StudyConfig(Settings, frozen=True, kw_only=True):
    """A study of one kind."""

    kind: Annotated[
        Literal["search", "rank", "kernel", "dynamics", "drift", "oneshot"],
        Meta(description="what is studied"),
    ] = "search"
    table: Annotated[
        str,
        Meta(
            description="trained accuracies: digits, the .npz of jnas table, or a CSV of architecture and test_acc"
        ),
    ] = "digits"
    data: Annotated[str, Meta(description="images that scores are measured on: those of the table")] = (
        "digits"
    )
    seed: Seed = 0
    search: SearchStudyConfig = SearchStudyConfig()
    rank: RankStudyConfig = RankStudyConfig()
    kernel: KernelStudyConfig = KernelStudyConfig()
    dynamics: DynamicsStudyConfig = DynamicsStudyConfig()
    drift: DriftStudyConfig = DriftStudyConfig()
    oneshot: OneshotStudyConfig = OneshotStudyConfig()


from_mapping = partial(read.from_mapping, StudyConfig)
