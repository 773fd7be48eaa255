import csv
import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nasbench201_networks import sizes

import jnas
from jnas.nets import networks
from jnas.nets.sizes import Macro
from jnas.spaces import SPACES, get
from jnas.spaces.nasbench201 import from_string

SPACE = get("nasbench201")
TABLE = Path(__file__).parents[3] / "shared" / "data" / "nb201_cifar10.csv.gz"

# Origin: NAS-Bench-201's CIFAR-10 table, rows 0, 1 and 3 (parameters and FLOPs in millions).
GOLDEN = [
    ("|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|",
     0.129306, 15.6474, 2),
    ("|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|",
     0.802426, 113.951, 3),
    ("|avg_pool_3x3~0|+|skip_connect~0|none~1|+|none~0|none~1|skip_connect~2|", 0.073306, 7.78305, 0),
]  # fmt: skip


@pytest.mark.parametrize(("text", "params", "flops", "convs"), GOLDEN)
def test_published_numbers(text, params, flops, convs):
    cell = from_string(text)
    assert sizes(cell, Macro()).params == round(params * 1e6)
    assert f"{sizes(cell, Macro()).flops / 1e6:.6g}" == f"{flops:.6g}"
    assert sizes(cell).convs == convs


@pytest.mark.skipif(not TABLE.exists(), reason=f"no table at {TABLE}")
def test_the_whole_table():
    with gzip.open(TABLE, "rt") as file:
        rows = list(csv.DictReader(file))
    cells = np.stack([from_string(row["architecture"]) for row in rows])
    params, flops = sizes(cells, Macro()).params, sizes(cells, Macro()).flops
    assert len(rows) == SPACE.size
    assert np.array_equal(params, [round(float(row["params_M"]) * 1e6) for row in rows])
    assert [f"{value / 1e6:.6g}" for value in flops] == [row["flops_M"] for row in rows]


def count(cell: np.ndarray, network: Macro) -> tuple[int, int]:
    """Parameters and multiply-adds layer by layer, with every layer written out."""
    height, width, inputs = network.image
    layers = [(3, inputs, network.channels, height, width, True)]
    channels = network.channels
    for stage in range(network.stages):
        if stage:
            height, width, half, channels = (height + 1) // 2, (width + 1) // 2, channels, channels * 2
            layers += [
                (3, half, channels, height, width, True),
                (3, channels, channels, height, width, True),
                (1, half, channels, height, width, False),
            ]
        for _ in range(network.cells):
            for name in (SPACE.operations[operation] for operation in cell):
                if name.startswith("nor_conv"):
                    layers.append((int(name[-1]), channels, channels, height, width, True))
    params = sum(k * k * a * b + 2 * b * norm for k, a, b, _, _, norm in layers)
    flops = sum(k * k * a * b * h * w for k, a, b, h, w, _ in layers)
    head = channels * network.classes + network.classes
    return params + 2 * channels + head, flops + head


@pytest.mark.parametrize(
    "network",
    [
        Macro(channels=3, cells=1),
        Macro(channels=8, cells=2, stages=1, image=(8, 8, 1)),
        Macro(channels=4, cells=3, stages=4, image=(32, 24, 1), classes=100),
    ],
)
def test_other_sizes_equal_the_sum_over_layers(network):
    cells = SPACE.all()[:: 15625 // 40].reshape(-1, 1, 6)
    params, flops = sizes(cells, network).params, sizes(cells, network).flops
    assert params.shape == flops.shape == cells.shape[:2]
    expected = np.array([count(cell, network) for cell in cells[:, 0]])
    assert np.array_equal(params[:, 0], expected[:, 0])
    assert np.array_equal(flops[:, 0], expected[:, 1])


@pytest.fixture
def no_pool(monkeypatch):
    """NAS-Bench-201 without zeros and pooling: its decision 2 is `nor_conv_3x3`, which is operation 3."""
    graphs = tuple(graph.without("none", "avg_pool_3x3") for graph in SPACE.graphs)
    space = replace(SPACE, name="no_pool", graphs=graphs, canonical_form=None)
    monkeypatch.setitem(SPACES, "no_pool", space)
    return space


def test_sizes_of_a_part_of_a_space(no_pool):
    network = Macro(2, 1, 1, (4, 4, 1), 3)
    # By hand, six edges with a convolution, then with skips alone:
    #   parameters  stem 9 x 1 x 2 + 4, edges 6 (9 x 2 x 2 + 4), last normalisation 4, classifier 2 x 3 + 3
    #   FLOPs       stem 9 x 1 x 2 x 16, edges 6 x 9 x 2 x 2 x 16, classifier 9
    choices = no_pool.choices([[2] * 6, [0] * 6])
    counted = networks.sizes_of(no_pool, network, choices)
    assert counted.params.tolist() == [275, 35]
    assert counted.flops.tolist() == [3753, 297]
    assert counted.convs.tolist() == [6, 0]
    texts = [no_pool.to_string([2] * 6), no_pool.to_string([0, 1, 2, 0, 1, 2])]
    part, whole = (jnas.score(name, texts, ["params", "flops", "convs"], "digits")
                   for name in ("no_pool", "nasbench201"))  # fmt: skip
    for name in ("params", "flops", "convs"):
        assert part[name].tolist() == whole[name].tolist()
