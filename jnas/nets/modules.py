"""Flax modules that cell networks are built from: convolution with batch normalisation, and its forms.

`Build` says how a network is to be evaluated; a network passes it on to its parts unchanged.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from jnas.nets import operations
from jnas.nets.fast.mixture import mixed_edges

# Parameters of one number a channel or a class. All others are weights: they are drawn, and count as such in scores.
PER_CHANNEL = ("scale", "offset", "bias", "classifier_bias")
# From this side on images go through the stem for ImageNet.
IMAGENET_SIDE = 64
# Share of the old running statistics kept at each training step (PyTorch's momentum 0.1).
RUNNING_KEEP = 0.9

# The name of convolutions' outputs, which are not computed anew where a derivative is.
CONVOLUTION = "convolution"

# Weights of fan-in 1; those of fan-in n are these over sqrt(n).
#   kaiming_normal: variance 2 / n (He et al., 2015, https://arxiv.org/abs/1502.01852)
#   pytorch_default: uniform within 1 / sqrt(n), what PyTorch gives a layer that nobody initialises
INITIALISATIONS: dict[str, Callable[[Array, int], Array]] = {
    "kaiming_normal": lambda key, size: jnp.sqrt(2.0) * jax.random.normal(key, (size,)),
    "pytorch_default": lambda key, size: jax.random.uniform(key, (size,), minval=-1.0, maxval=1.0),
}


def initialiser(name: str) -> Callable:
    """Flax initialiser of convolution and classifier weights, whose last axis is the output; copies stand before."""

    def initialise(key: Array, shape: Sequence[int]) -> Array:
        unscaled = INITIALISATIONS[name](key, math.prod(shape)).reshape(shape)
        return unscaled / math.sqrt(math.prod(shape[-4:-1]))

    return initialise


def initial_parameters(network: nn.Module, key: Array, *inputs: Array) -> dict:
    """Parameters as `network.init(key, *inputs)` draws them, all from one stream of random numbers.

    The distribution is that of `network.init`, the numbers are not: one draw for all weights compiles in a
    fraction of the time of a draw for each. `network` has a field `build`. The last four axes of a convolution's
    weights, or both of a classifier's, are its own; axes before them count copies.
    """
    # The weights are the same in every layout, and not every form on planes can be initialised.
    plain = network.clone(build=replace(network.build, planes=False))
    shapes = jax.eval_shape(plain.init, key, *inputs)["params"]
    leaves, tree = jax.tree_util.tree_flatten_with_path(shapes)
    drawn = [path[-1].key not in PER_CHANNEL for path, _ in leaves]
    sizes = [math.prod(leaf.shape) if own else 0 for (_, leaf), own in zip(leaves, drawn, strict=True)]
    stream = INITIALISATIONS[network.build.initialisation](key, sum(sizes))
    parts = jnp.split(stream, np.cumsum(sizes)[:-1])
    values = [
        part.reshape(leaf.shape) / math.sqrt(math.prod(leaf.shape[-4:-1]))
        if own
        else jnp.full(leaf.shape, path[-1].key == "scale", leaf.dtype)
        for (path, leaf), own, part in zip(leaves, drawn, parts, strict=True)
    ]
    return jax.tree.unflatten(tree, values)


def initial_statistics(network: nn.Module, *inputs: Array) -> dict:
    """Running statistics before training, mean 0 and variance 1, for whatever `network` normalises."""
    shapes = jax.eval_shape(network.init, jax.random.key(0), *inputs)["batch_stats"]
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.full(leaf.shape, path[-1].key == "variance", leaf.dtype), shapes
    )


def statistics_of_batch(network: nn.Module, variables: Mapping, *inputs: Array) -> dict:
    """Mean and variance of one batch, in the form of `batch_stats`; `network` normalises by the batch."""
    zeros = jax.tree.map(jnp.zeros_like, initial_statistics(network, *inputs))
    _, updated = network.apply({**variables, "batch_stats": zeros}, *inputs, mutable=["batch_stats"])
    # Running statistics that were zero have taken this share of the batch's.
    return jax.tree.map(lambda leaf: leaf / (1 - RUNNING_KEEP), updated["batch_stats"])


@dataclass(frozen=True)
class Build:
    """Form in which a network is evaluated; the function it computes is the same in every build.

    statistics: `"train"` normalises by the batch and differentiates through its statistics; `"frozen"` by
      the batch's statistics held constant; `"running"` by the stored averages; `"none"` leaves normalisation
      out, scale and offset included.
    planes: evaluate convolutions by `jnas.nets.fast.mixture`, on channel-first planes: fast for a few channels,
      differentiates backwards only, needs statistics of the batch.
    loops: the network stands inside loops and conditionals, or holds some: on a CPU its convolutions then have
      derivatives that stay fast there (`operations.convolution_in_loops`).
    forwards: differentiate forwards as well: outside loops all convolutions then are what programs are read for, XLA's
      own.
    axis_name: name of a `vmap` over images that statistics are taken over as well.
    initialisation: a name in `INITIALISATIONS`.
    """

    statistics: str = "train"
    planes: bool = False
    loops: bool = False
    forwards: bool = False
    axis_name: str | None = None
    initialisation: str = "kaiming_normal"

    @property
    def layout(self) -> str:
        return "CNHW" if self.planes else "NHWC"

    def convolution(self, x: Array, kernel: Array, stride: int, dilation: int = 1) -> Array:
        """`operations.convolution`, in the form that this build asks for."""
        # A kernel of one pixel is a matrix product in any build, fast in loops too.
        if self.loops and not self.forwards and kernel.shape[0] > 1 and _on_cpu():
            # Undilated, a kernel with zeros between its entries acts as it does dilated.
            kernel = operations.spread(kernel, dilation, (0, 1)) if dilation > 1 else kernel
            return operations.convolution_in_loops(x, kernel, stride)
        return operations.convolution(x, kernel, self.layout, stride, dilation)

    def depthwise_convolution(self, x: Array, kernel: Array, stride: int, dilation: int = 1) -> Array:
        """Convolution of each channel of x [N, H, W, C] by a kernel of its own; kernel [k, k, 1, C], k odd."""
        if not _on_cpu() or (self.forwards and not self.loops):
            return operations.convolution(x, kernel, "NHWC", stride, dilation, groups=x.shape[-1])
        by_shifts = operations.sum_of_shifts if self.forwards else operations.depthwise_by_shifts
        return by_shifts(x, kernel, stride, dilation)

    def images_first(self, signs: Array) -> Array:
        """Signs of images, or of planes [..., C, N, H, W], with the images as the first axis."""
        return jnp.moveaxis(signs, -3, 0) if self.planes else signs


def _on_cpu() -> bool:
    return jax.default_backend() == "cpu"


def gate_channels(module: nn.Module, weights: str, y: Array) -> Array:
    """The output y [N, H, W, C] of a convolution, multiplied by the gates [N, C] that a caller may have given.

    They stand in the collection `channel_gates` where the convolution's weights stand in `params`. Ones change
    nothing, and their gradient is that of the channels.
    """
    if not module.has_variable("channel_gates", weights):
        return y
    return y * module.get_variable("channel_gates", weights)[:, None, None, :]


def sow_pattern(module: nn.Module, name: str, signs: Array) -> None:
    """Sow signs of images [N, H, W, C], or of planes [..., C, N, H, W], in the collection `patterns`, images first."""
    module.sow("patterns", name, module.build.images_first(signs))


class BatchNorm(nn.Module):
    """Batch normalisation with learned scale and offset; `build.statistics` says by which statistics."""

    channels: int
    build: Build

    def setup(self):
        self.scale = self.param("scale", nn.initializers.ones, (self.channels,))
        self.offset = self.param("offset", nn.initializers.zeros, (self.channels,))

    @nn.compact
    def __call__(self, x: Array) -> Array:
        build, shape = self.build, (self.channels,)
        if build.statistics == "none":
            return x
        averaging = self.is_mutable_collection("batch_stats")
        stored: tuple[nn.Variable, ...] = ()
        if averaging or build.statistics == "running":
            stored = (
                self.variable("batch_stats", "mean", jnp.zeros, shape),
                self.variable("batch_stats", "variance", jnp.ones, shape),
            )
        if build.statistics == "running":
            mean, variance = (old.value for old in stored)
        else:
            mean, variance = operations.moments(x, build.layout, build.axis_name)
        if build.statistics == "frozen":
            mean, variance = jax.lax.stop_gradient((mean, variance))
        if build.statistics == "train" and averaging and not self.is_initializing():
            for old, new in zip(stored, (mean, variance), strict=True):
                old.value = RUNNING_KEEP * old.value + (1 - RUNNING_KEEP) * new
        # log sqrt(mean variance); 0 where nothing varies, as a dead branch scales nothing.
        mean_variance = jnp.mean(variance)
        positive = mean_variance > 0
        self.sow(
            "deviations", "log", jnp.where(positive, jnp.log(jnp.where(positive, mean_variance, 1)) / 2, 0)
        )
        return operations.normalise(x, mean, variance, self.scale, self.offset, build.layout)


class ConvolutionNorm(nn.Module):
    """ReLU (if `relu`), convolution without bias, batch normalisation."""

    inputs: int
    outputs: int
    size: int
    build: Build
    stride: int = 1
    relu: bool = True

    def setup(self):
        initialise = initialiser(self.build.initialisation)
        self.kernel = self.param("kernel", initialise, (self.size, self.size, self.inputs, self.outputs))
        self.norm = BatchNorm(self.outputs, self.build)

    def __call__(self, x: Array) -> Array:
        if self.build.planes:
            arrays = [array[None, None] for array in (self.kernel, self.norm.scale, self.norm.offset)]
            ones = jnp.ones((1, 1), x.dtype)
            (y,) = mixed_edges(x, *arrays, ones, None, None, self.stride, self.relu, self.build.statistics)
            return y
        x = nn.relu(x) if self.relu else x
        y = checkpoint_name(self.build.convolution(x, self.kernel, self.stride), CONVOLUTION)
        return self.norm(gate_channels(self, "kernel", y))


def classify(module: nn.Module, x: Array, build: Build) -> Array:
    """Logits [N, O] of the mean over the image, in the compact call of `module`."""
    x = jnp.mean(x, axis=(build.layout.index("H"), build.layout.index("W")))
    features = x.T if build.planes else x
    module.sow("features", "pooled", features)
    shape = (features.shape[-1], module.classes)
    kernel = module.param("classifier_kernel", initialiser(build.initialisation), shape)
    bias = module.param("classifier_bias", nn.initializers.zeros, (module.classes,))
    return features @ kernel + bias
