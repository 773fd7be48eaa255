"""Networks as words of a grammar: how cells are joined into resolutions, and the cell that all of them share.

    D2   -> Linear3(D1, D1, D0) | Linear3(D0, D1, D1) | Linear4(D1, D1, D0, D0)
    D1   -> Linear3(C, C, DOWN) | Linear4(C, C, C, DOWN) | Residual3(C, C, DOWN, DOWN)
    D0   -> Linear3(C, C, CELL) | Linear4(C, C, C, CELL) | Residual3(C, C, CELL, CELL)
    DOWN -> Linear2(CELL, res) | Linear3(CELL, CELL, res) | Residual2(CELL, res, res)
    C    -> Linear2(CELL, CELL) | Linear3(CELL, CELL, CELL) | Residual2(CELL, CELL, CELL)

Linear: one after another. Residual2(a, b, c) = b(a(x)) + c(x); Residual3(a, b, c, d) = d(b(a(x))) + c(x). `res` is a
residual block that halves the image and doubles the channels. CELL is a cell of NAS-Bench-201's form, of the same
operations everywhere, with weights of its own.

Each non-terminal of the largest derivation is a decision, its production; conditions say which there are. There are
C = DOWN = 3, D0 = 45, D1 = 189 and D2 = 75,549,915 words, times 5^6 cells, 1.18e12. The count and the draws that are
uniform over words are `jnas.spaces.distinct`; `Space.sample` is uniform over productions, which favours short words.

Source: Schrodi, Stoll, Ru, Sukthanker, Brox and Hutter, "Construction of Hierarchical Neural Architecture Search Spaces
based on Context-free Grammars", NeurIPS 2023, https://arxiv.org/abs/2211.01842. Departure: one shared cell.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jnas.spaces.base import Space
from jnas.spaces.layers import Classifier, convolution_norm, norm, operation
from jnas.spaces.networks import of_networks

WIDE = ("linear3_down_last", "linear3_down_first", "linear4")
LEVEL = ("linear3", "linear4", "residual3")
BLOCK = ("linear2", "linear3", "residual2")
OPERATIONS = ("zero", "identity", "conv_1x1", "conv_3x3", "avg_pool_3x3")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
CHANNELS = 16


def _decisions() -> tuple[dict[str, Sequence[Any]], dict[str, dict[str, Sequence[Any]]]]:
    """Decisions and conditions of the largest derivation: two levels that halve the image and two that do not."""
    decisions: dict[str, Sequence[Any]] = {"network": WIDE}
    conditions: dict[str, dict[str, Sequence[Any]]] = {}
    for level in ("down_1", "down_2", "flat_1", "flat_2"):
        decisions[level] = LEVEL
        if level == "flat_2":
            conditions[level] = {"network": ("linear4",)}
        for child, productions in (("c1", LEVEL), ("c2", LEVEL), ("c3", ("linear4",))):
            decisions[f"{level}_{child}"] = BLOCK
            conditions[f"{level}_{child}"] = {level: productions}
        if level.startswith("down"):
            for child, productions in (("halve1", LEVEL), ("halve2", ("residual3",))):
                decisions[f"{level}_{child}"] = BLOCK
                conditions[f"{level}_{child}"] = {level: productions}
    decisions |= {f"cell_{a}_{b}": OPERATIONS for a, b in EDGES}
    return decisions, conditions


class Word(nn.Module):
    """The network of a derivation, from images [N, H, W, C] to logits [N, classes]. productions: by name."""

    productions: tuple[tuple[str, str], ...]
    operations: tuple[str, ...]
    classes: int
    channels: int = CHANNELS

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        production = dict(self.productions)

        def cell(x: Array) -> Array:
            nodes = [x] + [jnp.zeros_like(x)] * 3
            for (source, target), name in zip(EDGES, self.operations, strict=True):
                if name != "zero":
                    nodes[target] = nodes[target] + operation(name, nodes[source], train)
            return nodes[-1]

        def halve(x: Array) -> Array:
            width = 2 * x.shape[-1]
            y = convolution_norm(nn.relu(x), width, 3, train, stride=2)
            y = convolution_norm(nn.relu(y), width, 3, train)
            return y + convolution_norm(x, width, 1, train, stride=2)

        def block(name: str, last: Any, x: Array) -> Array:
            if production[name] == "residual2":
                return last(cell(x)) + last(x)
            for _ in range(2 if production[name] == "linear3" else 1):
                x = cell(x)
            return last(x)

        def level(name: str, x: Array) -> Array:
            def end(place: int, x: Array) -> Array:
                return block(f"{name}_halve{place}", halve, x) if name.startswith("down") else cell(x)

            y = block(f"{name}_c2", cell, block(f"{name}_c1", cell, x))
            if production[name] == "linear4":
                y = block(f"{name}_c3", cell, y)
            if production[name] == "residual3":
                return end(1, x) + end(2, y)
            return end(1, y)

        order = {
            WIDE[0]: ("down_1", "down_2", "flat_1"),
            WIDE[1]: ("flat_1", "down_1", "down_2"),
            WIDE[2]: ("down_1", "down_2", "flat_1", "flat_2"),
        }
        x = convolution_norm(x, self.channels, 3, train)
        for name in order[production["network"]]:
            x = level(name, x)
        return Classifier(self.classes)(nn.relu(norm(x, train)), train)


def network(architecture: Mapping[str, Any], classes: int) -> Word:
    """The network of an architecture."""
    operations = tuple(value for name, value in architecture.items() if name.startswith("cell"))
    productions = tuple(item for item in architecture.items() if not item[0].startswith("cell"))
    return Word(productions, operations, classes)


SPACE: Space = of_networks("grammar", _decisions()[0], network, _decisions()[1])
