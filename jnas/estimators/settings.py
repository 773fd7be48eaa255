"""Settings of the estimators, and of the networks and kernels that proxies measure."""

from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from jnas.settings import Member, Settings


class NtkConfig(Settings, frozen=True, kw_only=True):
    """The condition number of the neural tangent kernel."""

    # TE-NAS: 32 images in the paper, 72 in its code; 3 channels and one cell a stage; a search averages 3 repeats.
    batch: Annotated[int, Meta(ge=2, description="images in the kernel")] = 32
    repeats: Annotated[int, Meta(ge=1, description="repeats, averaged; each has images of its own")] = 1
    channels: Annotated[int, Meta(ge=1, description="channels of the first stage; DARTS: 1")] = 3
    cells_per_stage: Annotated[int, Meta(ge=1, description="cells in each stage")] = 1
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
    cells_per_stage: Annotated[int, Meta(ge=1, description="cells in each stage")] = 1
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
    channels: Annotated[int, Meta(ge=1, description="channels of the first stage")] = 16
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


class Table(Member, frozen=True, kw_only=True, tag="table"):
    """Accuracies that were measured before: table:digits, table:FILE.npz, table:FILE.csv."""

    short: ClassVar[str] = "path"
    takes: ClassVar[tuple[str, ...]] = ("architectures",)
    path: Annotated[str, Meta(description="digits, the .npz of jnas table, or a CSV")] = "digits"
    epoch: Annotated[int, Meta(ge=0, description="epochs of an evaluation; 0: as many as the table has")] = 0


class Training(Settings, frozen=True, kw_only=True):
    """A training of one architecture."""

    # 12 epochs, the learning rate, the weight decay and 16 channels are the smallest budget of NAS-Bench-201; one cell
    # a stage, instead of its five, trains in minutes without a GPU.
    epochs: Annotated[int, Meta(ge=1, description="epochs")] = 12
    batch: Annotated[int, Meta(ge=1, description="images in a step")] = 64
    learning_rate: Annotated[float, Meta(gt=0, description="first learning rate of the cosine schedule")] = (
        0.1
    )
    weight_decay: Annotated[float, Meta(ge=0, description="L2 penalty of the weights")] = 5e-4
    channels: Annotated[int, Meta(ge=1, description="channels of the first stage")] = 16
    cells_per_stage: Annotated[int, Meta(ge=1, description="cells in each stage")] = 1
    augment: Annotated[bool, Meta(description="shifted and mirrored images, where the images allow it")] = (
        True
    )


class Train(Training, Member, frozen=True, kw_only=True, tag="train"):
    """Accuracy after training each architecture."""

    takes: ClassVar[tuple[str, ...]] = ("architectures",)


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
