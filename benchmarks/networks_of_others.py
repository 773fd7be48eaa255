"""Networks as users of Flax (Linen and NNX), Equinox, Haiku and plain JAX write them; nothing in them knows jnas.

Each function gives (apply, parameters): apply(parameters, images [N, 32, 32, 3]) -> logits [N, 10], normalised as in
training.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util

Network = tuple[Callable[[Any, jax.Array], Any], Any]
IMAGE = jnp.zeros((2, 32, 32, 3))
# (stage, block, channels, stride) of ResNet-18 for images of 32 x 32 (He et al., 2016, https://arxiv.org/abs/1512.03385).
BLOCKS = [(s, b, 64 * 2**s, 2 if s and not b else 1) for s in range(4) for b in range(2)]


class Block(nn.Module):
    channels: int
    stride: int

    @nn.compact
    def __call__(self, x):
        def norm(name):
            return nn.BatchNorm(use_running_average=False, name=name)

        y = nn.Conv(self.channels, (3, 3), self.stride, padding=1, use_bias=False, name="conv_1")(x)
        y = nn.relu(norm("norm_1")(y))
        y = norm("norm_2")(nn.Conv(self.channels, (3, 3), padding=1, use_bias=False, name="conv_2")(y))
        if x.shape != y.shape:
            x = nn.Conv(self.channels, (1, 1), self.stride, use_bias=False, name="conv_0")(x)
            x = norm("norm_0")(x)
        return nn.relu(x + y)


class ResNet18(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(64, (3, 3), padding=1, use_bias=False, name="conv")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=False, name="norm")(x))
        for stage, block, channels, stride in BLOCKS:
            x = Block(channels, stride, name=f"block_{stage}_{block}")(x)
        return nn.Dense(10, name="classifier")(x.mean((1, 2)))


def resnet18_linen(key: jax.Array) -> Network:
    """ResNet-18 in Linen."""
    model = ResNet18()
    variables = model.init(key, IMAGE)
    rest = {"batch_stats": variables["batch_stats"]}
    return lambda p, x: model.apply({"params": p, **rest}, x, mutable=["batch_stats"]), variables["params"]


def resnet18_nnx(key: jax.Array) -> Network:
    """The same in NNX, with the weights that Linen draws."""
    from flax import nnx

    class NnxBlock(nnx.Module):
        def __init__(self, inputs, channels, stride, rngs):
            def conv(inputs, size, stride=1):
                half = size // 2
                return nnx.Conv(
                    inputs, channels, (size, size), stride, padding=half, use_bias=False, rngs=rngs
                )

            self.conv_1, self.norm_1 = conv(inputs, 3, stride), nnx.BatchNorm(channels, rngs=rngs)
            self.conv_2, self.norm_2 = conv(channels, 3), nnx.BatchNorm(channels, rngs=rngs)
            self.brings = inputs != channels or stride > 1
            if self.brings:
                self.conv_0, self.norm_0 = conv(inputs, 1, stride), nnx.BatchNorm(channels, rngs=rngs)

        def __call__(self, x):
            y = nnx.relu(self.norm_1(self.conv_1(x)))
            y = self.norm_2(self.conv_2(y))
            return nnx.relu((self.norm_0(self.conv_0(x)) if self.brings else x) + y)

    class NnxResNet18(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(3, 64, (3, 3), padding=1, use_bias=False, rngs=rngs)
            self.norm = nnx.BatchNorm(64, rngs=rngs)
            inputs = 64
            for stage, block, channels, stride in BLOCKS:
                setattr(self, f"block_{stage}_{block}", NnxBlock(inputs, channels, stride, rngs))
                inputs = channels
            self.classifier = nnx.Linear(512, 10, rngs=rngs)

        def __call__(self, x):
            x = nnx.relu(self.norm(self.conv(x)))
            for stage, block, _, _ in BLOCKS:
                x = getattr(self, f"block_{stage}_{block}")(x)
            return self.classifier(x.mean((1, 2)))

    graph, params, rest = nnx.split(NnxResNet18(nnx.Rngs(0)), nnx.Param, ...)
    drawn = traverse_util.flatten_dict(resnet18_linen(key)[1])
    own = nnx.to_pure_dict(params)
    flat = traverse_util.flatten_dict(own)
    nnx.replace_by_pure_dict(params, traverse_util.unflatten_dict({path: drawn[path] for path in flat}))
    # Copies, as running averages are written into them.
    return lambda p, x: nnx.merge(graph, p, jax.tree.map(jnp.asarray, rest))(x), params


def equinox_small(key: jax.Array) -> Network:
    """Three convolutions with group normalisation, image by image, in Equinox."""
    import equinox as eqx

    keys = jax.random.split(key, 4)
    layers = [
        eqx.nn.Conv2d(3, 16, 3, padding=1, key=keys[0]),
        eqx.nn.GroupNorm(4, 16),
        eqx.nn.Lambda(jax.nn.relu),
        eqx.nn.Conv2d(16, 32, 3, 2, padding=1, key=keys[1]),
        eqx.nn.GroupNorm(4, 32),
        eqx.nn.Lambda(jax.nn.relu),
        eqx.nn.Conv2d(32, 32, 3, 2, padding=1, key=keys[2]),
        eqx.nn.Lambda(jax.nn.silu),
        eqx.nn.Lambda(lambda x: x.mean((1, 2))),
        eqx.nn.Linear(32, 10, key=keys[3]),
    ]
    params, static = eqx.partition(eqx.nn.Sequential(layers), eqx.is_inexact_array)
    return lambda p, x: jax.vmap(eqx.combine(p, static))(jnp.moveaxis(x, -1, 1)), params


def haiku_small(key: jax.Array) -> Network:
    """Three convolutions with batch normalisation in Haiku."""
    import haiku as hk

    def forward(x):
        for channels, stride in ((16, 1), (32, 2), (32, 2)):
            x = hk.Conv2D(channels, 3, stride, with_bias=False)(x)
            x = jax.nn.relu(hk.BatchNorm(True, True, 0.9)(x, is_training=True))
        return hk.Linear(10)(x.mean((1, 2)))

    network = hk.without_apply_rng(hk.transform_with_state(forward))
    params, state = network.init(key, IMAGE)
    return lambda p, x: network.apply(p, state, x), params


def plain(key: jax.Array) -> Network:
    """A perceptron of three layers in plain JAX."""
    keys, sizes = jax.random.split(key, 3), ((3072, 256), (256, 256), (256, 10))
    params = [jax.random.normal(k, size) * (2 / size[0]) ** 0.5 for k, size in zip(keys, sizes, strict=True)]

    def apply(params, x):
        x = x.reshape(len(x), -1)
        for weight in params[:-1]:
            x = jax.nn.relu(x @ weight)
        return x @ params[-1]

    return apply, params


class Encoder(nn.Module):
    """A block of a vision transformer."""

    width: int
    heads: int

    @nn.compact
    def __call__(self, x, _=None):
        x = x + nn.MultiHeadDotProductAttention(self.heads)(nn.LayerNorm()(x))
        y = nn.Dense(2 * self.width)(nn.LayerNorm()(x))
        return x + nn.Dense(self.width)(nn.gelu(y)), None


class VisionTransformer(nn.Module):
    """Patches of 4 x 4, a class token, `depth` blocks under scan and remat (Dosovitskiy et al., 2021)."""

    width: int = 64
    heads: int = 4
    depth: int = 6

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(self.width, (4, 4), (4, 4))(x).reshape(len(x), -1, self.width)
        token = self.param("token", nn.initializers.normal(0.02), (1, 1, self.width))
        x = jnp.concatenate([jnp.broadcast_to(token, (len(x), 1, self.width)), x], 1)
        x = x + self.param("positions", nn.initializers.normal(0.02), (1, *x.shape[1:]))
        stack = nn.scan(
            nn.remat(Encoder), variable_axes={"params": 0}, split_rngs={"params": True}, length=self.depth
        )
        x, _ = stack(self.width, self.heads)(x, None)
        return nn.Dense(10)(nn.LayerNorm()(x)[:, 0])


def vision_transformer(key: jax.Array) -> Network:
    """A small vision transformer in Linen."""
    model = VisionTransformer()
    params = model.init(key, IMAGE)["params"]
    return lambda p, x: model.apply({"params": p}, x), params


NETWORKS = {
    "ResNet-18, Linen": resnet18_linen,
    "ResNet-18, NNX": resnet18_nnx,
    "small, Equinox": equinox_small,
    "small, Haiku": haiku_small,
    "perceptron, plain": plain,
    "transformer, GELU": vision_transformer,
}
