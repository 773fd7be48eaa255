"""Cells of NAS-Bench-201 and of DARTS as ordinary Linen networks, with the weights of supernets.

They share no code with jnas and sow nothing; blocks are named as the supernets name them. `residual` and `two_inputs`
give a network and its parameters.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
DARTS_EDGES = tuple((source, target) for target in range(2, 6) for source in range(target))
# (side, dilation, how often)
SEPARABLE = {
    "sep_conv_3x3": (3, 1, 2),
    "sep_conv_5x5": (5, 1, 2),
    "dil_conv_3x3": (3, 2, 1),
    "dil_conv_5x5": (5, 2, 1),
}


def convolution(channels, side, name, stride=1, dilation=1, groups=1):
    half = side // 2 * dilation
    return nn.Conv(
        channels, (side, side), stride, [(half, half)] * 2, kernel_dilation=dilation, feature_group_count=groups,
        use_bias=False, name=name,
    )  # fmt: skip


def norm(name="norm"):
    return nn.BatchNorm(use_running_average=False, use_fast_variance=False, name=name)


class ConvNorm(nn.Module):
    channels: int
    side: int = 1
    stride: int = 1
    relu: bool = True

    @nn.compact
    def __call__(self, x):
        x = nn.relu(x) if self.relu else x
        return norm()(convolution(self.channels, self.side, "conv", self.stride)(x))


class Halving(nn.Module):
    """Two 1x1 convolutions of every second pixel, side by side."""

    channels: int

    @nn.compact
    def __call__(self, x):
        x, half = nn.relu(x), self.channels // 2
        plain = convolution(half, 1, "plain")(x[:, ::2, ::2])
        shifted = convolution(self.channels - half, 1, "shifted")(x[:, 1::2, 1::2])
        return norm()(jnp.concatenate([plain, shifted], -1))


class SeparableConv(nn.Module):
    channels: int
    operation: str
    stride: int

    @nn.compact
    def __call__(self, x):
        side, dilation, repeats = SEPARABLE[self.operation]
        for i in range(repeats):
            stride = 1 if i else self.stride
            x = convolution(self.channels, side, f"depthwise_{i}", stride, dilation, self.channels)(
                nn.relu(x)
            )
            x = norm(f"norms_{i}")(convolution(self.channels, 1, f"pointwise_{i}")(x))
        return x


class Residual(nn.Module):
    cell: tuple
    channels: int
    classes: int
    stages: int = 3
    cells: int = 1

    @nn.compact
    def __call__(self, x):
        x = checkpoint_name(ConvNorm(self.channels, 3, relu=False, name="stem")(x), "after_stem")
        channels = self.channels
        for stage in range(self.stages):
            if stage:
                channels *= 2
                name = f"residual_{stage}"
                h = ConvNorm(channels, 3, 2, name=f"{name}_a")(x)
                h = ConvNorm(channels, 3, name=f"{name}_b")(h)
                x = h + convolution(channels, 1, f"{name}_shortcut")(nn.avg_pool(x, (2, 2), (2, 2)))
                x = checkpoint_name(x, f"after_{name}")
            for index in range(self.cells):
                nodes = [x, 0, 0, 0]
                for edge, (source, target) in enumerate(EDGES):
                    h, choice = nodes[source], self.cell[edge]
                    if isinstance(h, int) or choice == 0:
                        continue
                    if choice == 4:
                        h = nn.avg_pool(h, (3, 3), padding="SAME", count_include_pad=False)
                    elif choice in (2, 3):
                        h = ConvNorm(channels, 2 * choice - 3, name=f"cell_{stage}_{index}_{edge}")(h)
                    nodes[target] = nodes[target] + h
                x = checkpoint_name(nodes[3], f"after_cell_{stage}_{index}")
        x = nn.relu(norm("last_norm")(x))
        return nn.Dense(self.classes, name="classifier")(x.mean((1, 2)))


class TwoInputs(nn.Module):
    choices: tuple
    operations: tuple
    kinds: tuple
    channels: int
    classes: int
    search: bool

    @nn.compact
    def __call__(self, x):
        wide = self.channels if self.search else 3 * self.channels
        x = checkpoint_name(ConvNorm(wide, 3, relu=False, name="stem")(x), "after_stem")
        older, younger, channels = x, x, self.channels
        for index, kind in enumerate(self.kinds):
            channels *= 1 + kind
            name = f"cell_{index}"
            bring = (
                ConvNorm if older.shape == younger.shape or older.shape[1] == younger.shape[1] else Halving
            )
            nodes = [
                bring(channels, name=f"{name}_older")(older),
                ConvNorm(channels, name=f"{name}_younger")(younger),
                0, 0, 0, 0,
            ]  # fmt: skip
            for edge, (source, target) in enumerate(DARTS_EDGES):
                operation = self.operations[self.choices[kind][edge]]
                stride = 2 if kind and source < 2 else 1
                if operation != "none":
                    h = self.carry(nodes[source], operation, stride, channels, f"{name}_{edge}")
                    nodes[target] = nodes[target] + h
            older, younger = younger, checkpoint_name(jnp.concatenate(nodes[2:], -1), f"after_{name}")
        if self.search:
            younger = nn.relu(norm("last_norm")(younger))
        return nn.Dense(self.classes, name="classifier")(younger.mean((1, 2)))

    def carry(self, x, operation, stride, channels, name):
        if operation == "skip_connect":
            return x if stride == 1 else Halving(channels, name=name)(x)
        if operation in SEPARABLE:
            return SeparableConv(channels, operation, stride, name=name)(x)
        options = {"strides": (stride, stride), "padding": [(1, 1)] * 2}
        if operation == "avg_pool_3x3":
            return nn.avg_pool(x, (3, 3), count_include_pad=False, **options)
        return nn.max_pool(x, (3, 3), **options)


def normalisation(group):
    return {"scale": group["scale"], "bias": group["offset"]}


def layer(group):
    """Parameters of `ConvNorm`, `Halving` or `SeparableConv` from those of a supernet."""
    values = {}
    for name, value in group.items():
        if name.startswith("norm"):
            values[name] = normalisation(value)
        else:
            values["conv" if name == "kernel" else name] = {"kernel": value}
    return values


def row(group, *places):
    """The weights of one edge, nested."""
    return {
        name: row(value, *places) if isinstance(value, dict) else value[places]
        for name, value in group.items()
    }


def residual(params, cell, classes, stages, cells, rows):
    """A network of `cell` and its parameters, from those of the supernet `jnas.nets.macro.Residual`.

    rows: by operation the edges that its stacked weights are of.
    """
    own = {"stem": layer(params["stem"]), "last_norm": normalisation(params["last_norm"])}
    own["classifier"] = {"kernel": params["classifier_kernel"], "bias": params["classifier_bias"]}
    names = {2: "nor_conv_1x1", 3: "nor_conv_3x3"}
    for stage in range(stages):
        if stage:
            group = params[f"residual_{stage}"]
            own[f"residual_{stage}_a"], own[f"residual_{stage}_b"] = (
                layer(group["conv_a"]),
                layer(group["conv_b"]),
            )
            own[f"residual_{stage}_shortcut"] = {"kernel": group["downsample"]}
        for index in range(cells):
            for edge, choice in enumerate(cell):
                if choice in names:
                    group = params[f"cells_{stage}"][names[choice]]
                    place = rows[names[choice]].index(edge)
                    own[f"cell_{stage}_{index}_{edge}"] = layer(row(group, index, place))
    channels = params["stem"]["kernel"].shape[-1]
    return Residual(tuple(cell), channels, classes, stages, cells), own


def two_inputs(params, choices, operations, kinds, classes, rows):
    """A network of two cells and its parameters, from those of the supernet `jnas.nets.two_inputs.TwoInputs`.

    rows: for each kind of cell, by operation the edges that its stacked weights are of.
    """
    own = {"stem": layer(params["stem"])}
    own["classifier"] = {"kernel": params["classifier_kernel"], "bias": params["classifier_bias"]}
    for index, kind in enumerate(kinds):
        name = f"cell_{index}"
        own[f"{name}_older"], own[f"{name}_younger"] = (
            layer(params[f"{name}_older"]),
            layer(params[f"{name}_younger"]),
        )
        for edge, choice in enumerate(choices[kind]):
            operation = operations[choice]
            if edge in rows[kind].get(operation, ()):
                place = rows[kind][operation].index(edge)
                own[f"{name}_{edge}"] = layer(row(params[name][operation], place))
    search = "last_norm" in params
    if search:
        own["last_norm"] = normalisation(params["last_norm"])
    channels = params["stem"]["kernel"].shape[-1] // (1 if search else 3)
    cells = tuple(map(tuple, choices))
    return TwoInputs(cells, tuple(operations), tuple(kinds), channels, classes, search), own
