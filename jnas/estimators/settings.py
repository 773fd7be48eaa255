"""Settings of the estimators, and of the networks and kernels that proxies measure."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from msgspec import Meta

from jnas.errors import InputError
from jnas.settings import Augment, CellsPerStage, Channels, LearningRate, Member, Settings, names_in

if TYPE_CHECKING:
    # Help of commands goes without JAX.
    from jnas.data import Dataset
    from jnas.spaces.base import Space
    from jnas.types import Estimator


class NtkConfig(Settings, frozen=True, kw_only=True):
    """The condition number of the neural tangent kernel."""

    # TE-NAS: 32 images in the paper, 72 in its code; 3 channels and one cell a stage; a search averages 3 repeats.
    batch: Annotated[int, Meta(ge=2, description="images in the kernel")] = 32
    repeats: Annotated[int, Meta(ge=1, description="repeats, averaged; each has images of its own")] = 1
    channels: Annotated[int, Meta(ge=1, description="channels of the first stage; DARTS: 1")] = 3
    cells_per_stage: CellsPerStage = 1
    # "train" is what the authors compute; "frozen" ranks alike and is an order of magnitude faster.
    normalisation: Annotated[
        Literal["train", "frozen"],
        Meta(description="batch normalisation by the batch, or with statistics frozen at the batch's values"),
    ] = "train"
    logits: Annotated[
        Literal["sum", "trace", "full"],
        Meta(description="kernel of the summed logits, trace over the logits, or the whole NO x NO kernel"),
    ] = "sum"
    # "weights" is what the authors sum over: convolutions, normalisation scales and the classifier.
    parameters: Annotated[
        Literal["weights", "all"],
        Meta(description="parameters that count: without offsets and biases, or all"),
    ] = "weights"
    initialisation: Annotated[
        Literal["kaiming_normal", "pytorch_default"],
        Meta(description="distribution of the weights"),
    ] = "kaiming_normal"
    fresh_weights: Annotated[bool, Meta(description="new weights in each repeat")] = True
    implementation: Annotated[
        Literal["jnas", "jacobian_contraction", "ntk_vector_products", "structured_derivatives"],
        Meta(description="jnas's own kernel, or one of the three of neural-tangents"),
    ] = "jnas"


class RegionsConfig(Settings, frozen=True, kw_only=True):
    """The number of linear regions."""

    # Random 3x3 crops of one channel, one channel and one cell are those of the authors' code: on whole images
    # every input has a pattern of its own, and the count says nothing. The paper takes 5000, the code 3000.
    inputs: Annotated[int, Meta(ge=2, description="inputs whose ReLU patterns are counted")] = 5000
    channels: Annotated[int, Meta(ge=1, description="channels of the cells")] = 1
    cells_per_stage: CellsPerStage = 1
    crop: Annotated[
        int, Meta(ge=0, description="side of the random one-channel crops; 0 takes whole images")
    ] = 3
    repeats: Annotated[int, Meta(ge=1, description="repeats, averaged; each has inputs of its own")] = 1


class NetworkConfig(Settings, frozen=True, kw_only=True):
    """The network that proxies of the network to be trained look at."""

    # 64 images, 16 channels and five cells a stage are what the zero-cost proxies were published with.
    batch: Annotated[int, Meta(ge=2, description="images in a batch")] = 64
    repeats: Annotated[
        int, Meta(ge=1, description="repeats, averaged; each has weights and images of its own")
    ] = 1
    channels: Channels = 16
    cells_per_stage: Annotated[int, Meta(ge=1, description="cells in each stage; DARTS: 1")] = 5
    initialisation: Annotated[
        Literal["kaiming_normal", "pytorch_default"], Meta(description="distribution of the weights")
    ] = "kaiming_normal"


class Proxies(Member, frozen=True, kw_only=True, tag="proxies"):
    """Training-free scores: proxies:ntk,regions."""

    short: ClassVar[str] = "proxies"
    takes: ClassVar[tuple[str, ...]] = ("architectures", "gates")
    proxies: Annotated[str, Meta(description="proxies, separated by commas (jnas list proxies)")] = (
        "ntk,regions"
    )
    network: NetworkConfig = NetworkConfig()
    ntk: NtkConfig = NtkConfig()
    regions: RegionsConfig = RegionsConfig()

    def make(self, space: "Space", dataset: "Dataset", *, apart: bool = False) -> "Estimator":
        """The estimator that these settings describe. apart: repeats are objectives of their own."""
        from jnas.estimators.proxies import proxies

        return proxies(space, names_in(self.proxies), dataset, self, apart=apart)


class Table(Member, frozen=True, kw_only=True, tag="table"):
    """Accuracies that were measured before: table:digits, table:FILE.npz, table:FILE.csv."""

    short: ClassVar[str] = "path"
    takes: ClassVar[tuple[str, ...]] = ("architectures", "trainings")
    path: Annotated[str, Meta(description="digits, the .npz of jnas table, or a CSV")] = "digits"
    epoch: Annotated[int, Meta(ge=0, description="epochs of an evaluation; 0: as many as the table has")] = 0

    def make(self, space: "Space", dataset: "Dataset", *, apart: bool = False) -> "Estimator":
        """The estimator that these settings describe. Raises `InputError` for a table of another space."""
        from jnas.estimators.compact_table import open_table
        from jnas.estimators.tabular import tabular

        table = open_table(self.path, space.name)
        if table.space != space.name:
            raise InputError(
                f"the table '{self.path}' is of {table.space}, the search of {space.name}: choose one"
            )
        return tabular(table, epoch=self.epoch)


class Scores(Member, frozen=True, kw_only=True, tag="scores"):
    """Training-free scores that jnas score wrote: scores:FILE.csv."""

    short: ClassVar[str] = "path"
    takes: ClassVar[tuple[str, ...]] = ("architectures",)
    path: Annotated[str, Meta(description="the CSV of jnas score")] = "scores.csv"
    proxies: Annotated[str, Meta(description="its columns, separated by commas; empty: all proxies")] = ""

    def make(self, space: "Space", dataset: "Dataset | None" = None, *, apart: bool = False) -> "Estimator":
        """The estimator that these settings describe."""
        from jnas.estimators.scores import scores

        return scores(space, self.path, names_in(self.proxies))


class Recipe(Settings, frozen=True, kw_only=True):
    """Recipe of a training; the defaults are those of DARTS on CIFAR-10. Zero leaves a part out."""

    epochs: Annotated[int, Meta(ge=1, description="epochs")] = 600
    batch: Annotated[int, Meta(ge=1, description="images in a step, over all devices")] = 96
    learning_rate: LearningRate = 0.025
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
    augment: Augment = True
    precision: Annotated[
        Literal["float32", "bfloat16"], Meta(description="of weights and images in the network")
    ] = "float32"


NASBENCH201 = Recipe(
    epochs=200, batch=256, learning_rate=0.1, nesterov=True, weight_decay=5e-4, clip=0.0, auxiliary=0.0, drop_path=0.0,
    cutout=0,
)  # fmt: skip


class Training(Settings, frozen=True, kw_only=True):
    """A training of one architecture."""

    # 12 epochs, the learning rate, the weight decay and 16 channels are the smallest budget of NAS-Bench-201; one cell
    # a stage, instead of its five, trains in minutes without a GPU.
    epochs: Annotated[int, Meta(ge=1, description="epochs")] = 12
    batch: Annotated[int, Meta(ge=1, description="images in a step")] = 64
    learning_rate: LearningRate = 0.1
    weight_decay: Annotated[float, Meta(ge=0, description="L2 penalty of the weights")] = 5e-4
    channels: Channels = 16
    cells_per_stage: CellsPerStage = 1
    augment: Augment = True


class Train(Training, Member, frozen=True, kw_only=True, tag="train"):
    """Accuracy after training each architecture."""

    takes: ClassVar[tuple[str, ...]] = ("architectures", "trainings")

    def make(self, space: "Space", dataset: "Dataset", *, apart: bool = False) -> "Estimator":
        """The estimator that these settings describe."""
        from jnas.estimators.batch_training import trained

        return trained(space, dataset, self)


class Inherited(Member, frozen=True, kw_only=True, tag="inherited"):
    """Accuracy with the weights of a supernet: of --oneshot, or of a finished run, inherited:RUN."""

    short: ClassVar[str] = "run"
    takes: ClassVar[tuple[str, ...]] = ("architectures", "gates")
    run: Annotated[str, Meta(description="folder of the search that trained it; empty: of this search")] = ""
    recalibrate: Annotated[
        int,
        Meta(
            ge=0,
            description="training images by which a candidate's normalisation is estimated; 0: the supernet's",
        ),
    ] = 0
    batch: Annotated[int, Meta(ge=1, description="candidates side by side; fewer where memory is short")] = 10
