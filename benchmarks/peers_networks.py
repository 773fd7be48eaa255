"""The networks of NAS-Bench-201 and of DARTS in plain PyTorch, for `peers.py`.

Dong and Yang, ICLR 2020, https://arxiv.org/abs/2001.00326; Liu, Simonyan and Yang, ICLR 2019,
https://arxiv.org/abs/1806.09055. Modules are eager, images [N, C, H, W], weights jnas's parameters as NumPy arrays.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

# (side, dilation, how often) of depthwise separable convolutions.
SEPARABLE = {
    "sep_conv_3x3": (3, 1, 2),
    "sep_conv_5x5": (5, 1, 2),
    "dil_conv_3x3": (3, 2, 1),
    "dil_conv_5x5": (5, 2, 1),
}


class Graph(NamedTuple):
    """A cell: edges (source, target, stride, operation -> factor), nodes of the output.

    Weights of an operation are stacked over the edges that have it, in their order.
    """

    edges: Sequence[tuple[int, int, int, Mapping[str, float]]]
    outputs: Sequence[int]


class BatchNorm(nn.BatchNorm2d):
    """Normalisation by the batch in training, which `off` leaves out."""

    off = False

    def __init__(self, norm: Mapping[str, np.ndarray]):
        super().__init__(len(norm["scale"]))
        self.weight.data = torch.tensor(norm["scale"])
        self.bias.data = torch.tensor(norm["offset"])

    def forward(self, x: Tensor) -> Tensor:
        return x if self.off else super().forward(x)


def convolution(kernel: np.ndarray, stride: int = 1, dilation: int = 1, depthwise: bool = False) -> nn.Conv2d:
    """Convolution without bias, padded by half the kernel [k, k, C, O], or [k, k, 1, C] depthwise."""
    side, _, inputs, outputs = kernel.shape
    groups = outputs if depthwise else 1
    padding = dilation * (side // 2)
    layer = nn.Conv2d(inputs * groups, outputs, side, stride, padding, dilation, groups, bias=False)
    layer.weight.data = torch.tensor(kernel.transpose(3, 2, 0, 1)).contiguous()
    return layer


def relu_convolution_norm(
    weights: Mapping[str, Any], stride: int = 1, relu: bool = True, kernel: str = "kernel"
) -> nn.Sequential:
    """ReLU, convolution, normalisation."""
    layers = [convolution(weights[kernel], stride), BatchNorm(weights["norm"])]
    return nn.Sequential(*[nn.ReLU()] * relu, *layers)


def separable(weights: Mapping[str, Any], stride: int, name: str) -> nn.Sequential:
    """Once or twice ReLU, depthwise convolution, 1x1 convolution, normalisation."""
    _, dilation, repeats = SEPARABLE[name]
    layers: list[nn.Module] = []
    for index in range(repeats):
        layers += [
            nn.ReLU(),
            convolution(weights[f"depthwise_{index}"], 1 if index else stride, dilation, depthwise=True),
            convolution(weights[f"pointwise_{index}"]),
            BatchNorm(weights[f"norms_{index}"]),
        ]
    return nn.Sequential(*layers)


class FactorizedReduction(nn.Module):
    """ReLU, two 1x1 convolutions of every second pixel, the second shifted by one, side by side, normalisation."""

    def __init__(self, weights: Mapping[str, Any]):
        super().__init__()
        self.plain = convolution(weights["plain"], 2)
        self.shifted = convolution(weights["shifted"], 2)
        self.norm = BatchNorm(weights["norm"])

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        return self.norm(torch.cat([self.plain(x), self.shifted(x[:, :, 1:, 1:])], 1))


def operation(name: str, weights: Mapping[str, Any] | None, stride: int) -> nn.Module:
    """A candidate operation."""
    if name == "avg_pool_3x3":
        return nn.AvgPool2d(3, stride, 1, count_include_pad=False)
    if name == "max_pool_3x3":
        return nn.MaxPool2d(3, stride, 1)
    if weights is None:
        return nn.Identity()
    if name == "skip_connect":
        return FactorizedReduction(weights)
    return separable(weights, stride, name) if name in SEPARABLE else relu_convolution_norm(weights, stride)


def taken(tree: Any, place: int) -> Any:
    """One entry of the first axis of every array."""
    return (
        {name: taken(value, place) for name, value in tree.items()}
        if isinstance(tree, Mapping)
        else tree[place]
    )


class Cell(nn.Module):
    """Nodes that add up the operations on their edges; the output nodes side by side."""

    def __init__(self, graph: Graph, weights: Mapping[str, Any]):
        super().__init__()
        self.graph, self.operations, self.edges = graph, nn.ModuleList(), []
        seen: Counter[str] = Counter()
        for source, target, stride, factors in graph.edges:
            for name, factor in factors.items():
                own = None
                if name in weights and (name != "skip_connect" or stride > 1):
                    own = taken(weights[name], seen[name])
                    seen[name] += 1
                self.operations.append(operation(name, own, stride))
                self.edges.append((source, target, factor))

    def forward(self, *inputs: Tensor) -> Tensor:
        nodes = dict(enumerate(inputs))
        # Edges stand by target: a node is complete before it is read.
        for module, (source, target, factor) in zip(self.operations, self.edges, strict=True):
            y = module(nodes[source])
            y = y if factor == 1 else factor * y
            nodes[target] = nodes[target] + y if target in nodes else y
        outputs = [nodes[node] for node in self.graph.outputs]
        return torch.cat(outputs, 1) if len(outputs) > 1 else outputs[0]


class Head(nn.Module):
    """Global average pooling and a linear classifier, after normalisation and ReLU where there is one."""

    def __init__(self, params: Mapping[str, Any]):
        super().__init__()
        self.norm = BatchNorm(params["last_norm"]) if "last_norm" in params else None
        self.classifier = nn.Linear(*params["classifier_kernel"].shape)
        self.classifier.weight.data = torch.tensor(params["classifier_kernel"].T).contiguous()
        self.classifier.bias.data = torch.tensor(params["classifier_bias"])

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.norm is None else F.relu(self.norm(x))
        return self.classifier(x.mean((2, 3)))


class ResidualBlock(nn.Module):
    """Two convolutions beside pooling and a 1x1 convolution: half the image, twice the channels."""

    def __init__(self, weights: Mapping[str, Any]):
        super().__init__()
        self.body = nn.Sequential(
            relu_convolution_norm(weights["conv_a"], 2), relu_convolution_norm(weights["conv_b"])
        )
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), convolution(weights["downsample"]))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.shortcut(x)


def residual(graph: Graph, params: Mapping[str, Any], cells_per_stage: int, stages: int = 3) -> nn.Sequential:
    """The network of NAS-Bench-201."""
    blocks: list[nn.Module] = [relu_convolution_norm(params["stem"], relu=False)]
    for stage in range(stages):
        if stage:
            blocks.append(ResidualBlock(params[f"residual_{stage}"]))
        weights = params.get(f"cells_{stage}", {})
        blocks += [Cell(graph, taken(weights, place)) for place in range(cells_per_stage)]
    return nn.Sequential(*blocks, Head(params))


class TwoInputs(nn.Module):
    """The network of DARTS: each cell reads the two before it. kinds: of each cell, 1 for a reduction cell."""

    def __init__(self, graphs: Sequence[Graph], params: Mapping[str, Any], kinds: Sequence[int]):
        super().__init__()
        self.stem, self.head = relu_convolution_norm(params["stem"], relu=False), Head(params)
        self.older, self.younger, self.cells = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for index, kind in enumerate(kinds):
            older = params[f"cell_{index}_older"]
            bring = FactorizedReduction if "shifted" in older else relu_convolution_norm
            self.older.append(bring(older))
            self.younger.append(relu_convolution_norm(params[f"cell_{index}_younger"]))
            self.cells.append(Cell(graphs[kind], params.get(f"cell_{index}", {})))

    def forward(self, x: Tensor) -> Tensor:
        older = younger = self.stem(x)
        for bring_older, bring_younger, cell in zip(self.older, self.younger, self.cells, strict=True):
            older, younger = younger, cell(bring_older(older), bring_younger(younger))
        return self.head(younger)


def images_of(images: np.ndarray) -> Tensor:
    """Images [N, H, W, C] in PyTorch's order."""
    return torch.tensor(np.asarray(images).transpose(0, 3, 1, 2)).contiguous()


def normalisations(network: nn.Module) -> list[BatchNorm]:
    return [module for module in network.modules() if isinstance(module, BatchNorm)]


def weights_of(network: nn.Module) -> list[Tensor]:
    """The weights of convolutions and of the classifier."""
    return [module.weight for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
