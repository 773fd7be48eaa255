"""NAS-Bench-201's network of one cell in plain JAX, which shares no code with jnas, block by block.

A cell reads the rows of the supernet's stacked weights that it has. `layers` gives those a name each; `forward` runs
them, and shows every normalisation what it receives.
"""

import jax
import jax.numpy as jnp
import numpy as np

EDGES = [(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)]
NAMES = {2: "nor_conv_1x1", 3: "nor_conv_3x3"}


def layers(params, cell):
    """{layer: {kernel, scale, offset}} of the cell, from parameters of the supernet."""

    def layer(group):
        return {"kernel": group["kernel"], **group["norm"]}

    flat = {"last_norm": params["last_norm"]}
    flat["classifier"] = {"kernel": params["classifier_kernel"], "bias": params["classifier_bias"]}
    for name, group in params.items():
        if name == "stem":
            flat[name] = layer(group)
        elif name.startswith("residual_"):
            flat[f"{name}/downsample"] = {"kernel": group["downsample"]}
            flat |= {f"{name}/{part}": layer(group[part]) for part in ("conv_a", "conv_b")}
        elif name.startswith("cells_"):
            for edge, choice in enumerate(cell):
                if choice in NAMES:
                    stacked = layer(group[NAMES[choice]])
                    for index in range(len(stacked["kernel"])):
                        flat[f"{name}/{index}/{edge}"] = {
                            part: values[index, edge] for part, values in stacked.items()
                        }
    return flat


def convolution(x, kernel, stride=1):
    half = kernel.shape[0] // 2
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), [(half, half)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def pool(x):
    window = ((1, 3, 3, 1), (1, 1, 1, 1), "SAME")
    zero = np.zeros((), x.dtype)
    total = jax.lax.reduce_window(x, zero, jax.lax.add, *window)
    return total / jax.lax.reduce_window(jnp.ones_like(x), zero, jax.lax.add, *window)


class Pass:
    """One pass: `received` by each normalisation, or made by each shortcut; `signs` before ReLUs; outputs of `blocks`.

    moved: what is added to what a normalisation receives, by layer. normalise: whether it does anything at all.
    """

    def __init__(self, flat, cell, moved=None, normalise=True):
        self.flat, self.cell, self.moved, self.normalise = flat, cell, moved or {}, normalise
        self.received, self.signs, self.blocks = {}, [], {}

    def relu(self, x, readers=1):
        self.signs += [x > 0] * readers
        return jax.nn.relu(x)

    def norm(self, name, x):
        x = x + self.moved.get(name, 0)
        self.received[name] = x
        if not self.normalise:
            return x
        mean = x.mean((0, 1, 2))
        variance = ((x - mean) ** 2).mean((0, 1, 2))
        own = self.flat[name]
        return own["scale"] * (x - mean) / jnp.sqrt(variance + 1e-5) + own["offset"]

    def convolve(self, name, x, stride=1, relu=True):
        x = self.relu(x) if relu else x
        return self.norm(name, convolution(x, self.flat[name]["kernel"], stride))

    def run_cell(self, name, x):
        nodes = [x, 0 * x, 0 * x, 0 * x]
        for edge, (source, target) in enumerate(EDGES):
            h, choice = nodes[source], self.cell[edge]
            if choice == 1:
                nodes[target] += h
            elif choice in NAMES:
                nodes[target] += self.convolve(f"{name}/{edge}", h)
            elif choice == 4:
                nodes[target] += pool(h)
        return nodes[3]

    def run_residual(self, name, x):
        h = self.convolve(f"{name}/conv_b", self.convolve(f"{name}/conv_a", x, 2))
        halved = (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4
        shortcut = convolution(halved, self.flat[f"{name}/downsample"]["kernel"])
        shortcut = shortcut + self.moved.get(f"{name}/downsample", 0)
        self.received[f"{name}/downsample"] = shortcut
        return h + shortcut

    def block(self, name, x):
        """The output of a block: `stem`, `residual_s` or `cells_s/i`."""
        if name == "stem":
            return self.convolve(name, x, relu=False)
        return self.run_residual(name, x) if name.startswith("residual") else self.run_cell(name, x)

    def names(self):
        """The blocks in order."""
        stages = 1 + sum(name.startswith("residual") for name in self.flat) // 3
        names = ["stem"]
        for stage in range(stages):
            names += [f"residual_{stage}"] * (stage > 0) + [f"cells_{stage}/0"]
        return names

    def logits(self, x):
        for name in self.names():
            x = self.blocks[name] = self.block(name, x)
        self.last = self.relu(self.norm("last_norm", x))
        self.pooled = self.last.mean((1, 2))
        return self.pooled @ self.flat["classifier"]["kernel"] + self.flat["classifier"]["bias"]
