"""Golden results of the smallest run of every kind: a change of any of them is a change of behaviour, to be explained.

Origin: jnas at commit 1407f0a on a CPU, by `PYTHONPATH=. python tests/test_golden.py`, which prints them anew.
Floating-point numbers may differ from machine to machine in their last digits, ranks and architectures not.
"""

import json
import pathlib
import tempfile

import numpy as np
import pytest
import small_digits
import yaml

from jnas import cli
from jnas.estimators import compact_table

GENOTYPE = (
    "Genotype(normal=[('dil_conv_3x3', 0), ('skip_connect', 1)], normal_concat=[2], "
    "reduce=[('max_pool_3x3', 0), ('skip_connect', 1)], reduce_concat=[2])"
)
KERNELS = {"ntk": {"batch": 4, "repeats": 1, "channels": 1}, "regions": {"inputs": 50, "repeats": 1}}
UNTRAINED = {"epochs": 0, "random_cells": 1}
NETWORK = {"channels": 2, "cells_per_stage": 1, "batch": 8}
POSTERIOR = {
    "width": 1, "epochs": 1, "batch": 256, "candidates": 3, "blind_candidates": 2, "tuning_epochs": 1,
    "recalibrate": 32,
}  # fmt: skip

# name: (command, configuration)
RUNS = {
    "pruning nasbench201": (
        "search", {**KERNELS, "training": {"epochs": 2, "batch": 256, "channels": 2, "random_cells": 1}},
    ),
    "pruning darts": (
        "search", {
            "space": "darts", "prune": {"operations_per_round": 6}, "ntk": {"batch": 2, "repeats": 1},
            "regions": {"inputs": 40, "repeats": 1}, "training": UNTRAINED,
        },
    ),
    "evolution nasbench201": (
        "search", {
            "strategy": "evolution", "network": NETWORK, "final": NETWORK, **KERNELS, "training": UNTRAINED,
            "evolution": {
                "proxies": "naswot,params", "evaluations": 12, "children": 4, "parents": 2, "finalists": 3,
                "final_proxies": "naswot,grad_norm", "final_repeats": 1,
            },
        },
    ),
    "posterior nasbench201": (
        "search", {
            "strategy": "posterior", "posterior": {**POSTERIOR, "gates": "group"}, **KERNELS,
            "training": UNTRAINED,
        },
    ),
    "posterior shake_shake": (
        "search", {"strategy": "posterior", "space": "shake_shake", "posterior": POSTERIOR},
    ),
    "train darts": (
        "train", {
            "arch": GENOTYPE, "channels": 4, "cells_per_stage": 1,
            "recipe": {"epochs": 2, "batch": 64, "auxiliary": 0, "cutout": 2, "average": 0.9},
        },
    ),
    "table nasbench201": (
        "table", {"seeds": 2, "channels": 2, "epochs": 2, "batch": 50, "curve": "1,2"},
    ),
}  # fmt: skip

# name: {place in the result, fields and positions between slashes: value}
GOLDEN = {
    "pruning nasbench201": {
        "architecture":
            "|skip_connect~0|+|nor_conv_1x1~0|avg_pool_3x3~1|+|nor_conv_1x1~0|avg_pool_3x3~1|skip_connect~2|",
        "evaluations": 57,
        "rounds/0/supernet/ntk/0": 14.10894885,
        "rounds/0/supernet/regions/0": 48,
        "rounds/0/candidates/0/ntk_change": -2.80734428,
        "rounds/0/candidates/0/ntk_rank": 19,
        "rounds/2/supernet/ntk/0": 3.48061299,
        "scores/found/ntk": 85.36603018,
        "scores/found/regions": 42,
        "scores/found/params": 0.00152,
        "scores/random/0/architecture":
            "|avg_pool_3x3~0|+|none~0|nor_conv_3x3~1|+|nor_conv_3x3~0|avg_pool_3x3~1|skip_connect~2|",
        "training/found/train_loss_by_epoch": [2.3426034, 2.08345079],
        "training/found/test_accuracy": 18.9415,
    },
    "pruning darts": {
        "architecture":
            "Genotype(normal=[('max_pool_3x3', 0), ('skip_connect', 1), ('avg_pool_3x3', 0), ('dil_conv_3x3', 2), "
            "('skip_connect', 0), ('skip_connect', 1), ('sep_conv_3x3', 2), ('dil_conv_5x5', 3)], "
            "normal_concat=[2, 3, 4, 5], "
            "reduce=[('avg_pool_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_5x5', 0), ('sep_conv_5x5', 1), "
            "('sep_conv_5x5', 0), ('max_pool_3x3', 3), ('dil_conv_3x3', 1), ('max_pool_3x3', 4)], "
            "reduce_concat=[2, 3, 4, 5])",
        "evaluations": 222,
        "rounds/0/candidates/0/ntk_change": -0.01382625,
        "rounds/0/candidates/1/ntk_change": 0.32646562,
        "rounds/0/candidates/1/ntk_rank": 1,
    },
    "evolution nasbench201": {
        "architecture":
            "|nor_conv_3x3~0|+|skip_connect~0|skip_connect~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|",
        "evaluations": 15,
        "generations/0/best":
            "|nor_conv_3x3~0|+|skip_connect~0|skip_connect~1|+|skip_connect~0|nor_conv_3x3~1|avg_pool_3x3~2|",
        "scores/found/ntk": 4.3983556,
        "scores/found/regions": 47,
        "scores/found/flops": 1.402506,
    },
    "posterior nasbench201": {
        "architecture":
            "|avg_pool_3x3~0|+|skip_connect~0|nor_conv_1x1~1|+|avg_pool_3x3~0|nor_conv_3x3~1|avg_pool_3x3~2|",
        "evaluations": 3,
        "posterior/groups/0/drop_probability": 0.09984916,
        "posterior/groups/1/drop_probability": 0.09771061,
        "posterior/parameters": 1801,
        "posterior/expected_parameters": 1657.346,
        "posterior/found_parameters": 611,
        "posterior/test/found": 12.5348,
    },
    "posterior shake_shake": {
        "architecture":
            "shake_shake:dfffd7ffffdafffbffffff9f7ffdfbffbff5f6feff67ffffffffff7fffffffffffffff3ffffddfdfff7b5ff98cfcff7f"
            "fffff3effeffdddf7fffffffffffff7e",
        "posterior/groups/0/drop_probability": 0.10172712,
        "posterior/groups/16/drop_probability": 0.1156328,
        "posterior/found_parameters": 135932,
        "posterior/candidates/parameters": [136742, 135932, 135930],
        "posterior/test/found": 19.7772,
        "posterior/test/found, tuned": 27.5766,
    },
    "train darts": {
        "parameters": 2482,
        "curves/train_loss": [2.69644332, 2.74380755],
        "curves/test_accuracy": [17.1429, 17.1429],
    },
    "table nasbench201": {
        "architectures": [[2, 3, 2, 1, 0, 4], [3, 1, 4, 1, 3, 3], [3, 4, 2, 4, 1, 3]],
        "accuracy": [
            [[7.142, 5.714], [11.428, 15.714]], [[11.428, 10.0], [4.286, 8.572]], [[8.572, 8.572], [5.714, 7.142]],
        ],
        "parameters": [112, 176, 144],
    },
}  # fmt: skip


def outcome(name: str, folder: pathlib.Path) -> dict:
    """The result of a run, as `result.json` or a table holds it."""
    command, config = RUNS[name]
    if command != "search":
        config = {**config, "data": small_digits.write(folder / "small.npz", 150, 70)}
    if command == "table":
        flags = [text for key, value in config.items() for text in (f"--{key}", str(value))]
        assert cli.main(["table", "build", "--cells", "3", "--out", str(folder / "t.npz"), *flags]) == 0
        return compact_table.open_table(folder / "t.npz").__dict__
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    assert cli.main([command, str(folder / "config.yaml"), "--out", str(folder / "run")]) == 0
    return json.loads((folder / "run" / "result.json").read_text())


def at(result, place: str):
    for step in place.split("/"):
        result = result[int(step) if isinstance(result, list) else step]
    return result


@pytest.mark.parametrize("name", RUNS)
def test_golden(name, tmp_path):
    result = outcome(name, tmp_path)
    for place, value in GOLDEN[name].items():
        if isinstance(value, str):
            assert at(result, place) == value, place
        else:
            # Of few test images one more or less may be right.
            atol = 1.5 if "accuracy" in place or "/test/" in place else 0
            np.testing.assert_allclose(at(result, place), value, rtol=1e-3, atol=atol, err_msg=place)


if __name__ == "__main__":
    for name in RUNS:
        print(name, json.dumps(outcome(name, pathlib.Path(tempfile.mkdtemp())), default=str)[:20000])
