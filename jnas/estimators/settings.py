"""Settings of the estimators, and of the networks and kernels that proxies measure."""

from typing import Annotated, Literal

from msgspec import Meta

from jnas.settings import Settings


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
