"""Golden results of the smallest run of every kind: a change of any of them is a change of behaviour, to be explained.

Origin: jnas on a CPU at the commit that last changed them here, by `PYTHONPATH=. python tests/test_golden.py`, which
prints them anew.
Floating-point numbers may differ from machine to machine in their last digits, ranks and architectures not.
"""

import json
import pathlib
import sys
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
NETWORK = {"channels": 2, "cells_per_stage": 1, "batch": 8}
POSTERIOR = {
    "supernet": {"width": 1, "epochs": 1, "batch": 256}, "strategy": {"name": "draw", "candidates": 3},
    "estimator": {"name": "inherited", "recalibrate": 32}, "tuning": {"epochs": 1},
    "compare": {"random_cells": 0, "blind_candidates": 2},
}  # fmt: skip

# name: (command, configuration)
RUNS = {
    "pruning nasbench201": (
        "search", {
            "estimator": KERNELS, "compare": {"random_cells": 1},
            "training": {"epochs": 2, "batch": 256, "channels": 2},
        },
    ),
    "pruning darts": (
        "search", {
            "space": "darts", "strategy": {"name": "pruning", "operations_per_round": 6},
            "estimator": {"ntk": {"batch": 2, "repeats": 1}, "regions": {"inputs": 40, "repeats": 1}},
        },
    ),
    "evolution nasbench201": (
        "search", {
            "strategy": {"name": "evolution", "children": 4, "parents": 2}, "budget": 12,
            "estimator": {"proxies": "naswot,params", "network": NETWORK, **KERNELS}, "compare": {"random_cells": 0},
            "final": {
                "candidates": 3, "repeats": 1,
                "estimator": {"name": "proxies", "proxies": "naswot,grad_norm", "network": NETWORK},
            },
        },
    ),
    "posterior nasbench201": ("search", {"oneshot": {"name": "posterior", "gates": "group"}, **POSTERIOR}),
    "posterior shake_shake": ("search", {"oneshot": "posterior", "space": "shake_shake", **POSTERIOR}),
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
            "|nor_conv_3x3~0|+|skip_connect~0|avg_pool_3x3~1|+|nor_conv_1x1~0|skip_connect~1|nor_conv_3x3~2|",
        "evaluations": 57,
        "rounds/0/supernet/ntk/0": -54.207474,
        "rounds/0/supernet/regions/0": 49,
        "rounds/0/candidates/0/ntk_change": -0.12986717,
        "rounds/0/candidates/0/ntk_rank": 22,
        "rounds/2/supernet/ntk/0": -3.8512677,
        "scores/found/ntk": 3.7081328,
        "scores/found/regions": 45,
        "scores/found/params": 0.002976,
        "scores/random/0/architecture":
            "|nor_conv_3x3~0|+|avg_pool_3x3~0|avg_pool_3x3~1|+|nor_conv_1x1~0|nor_conv_1x1~1|nor_conv_3x3~2|",
        "training/found/train_loss_by_epoch": [2.201441, 1.8705345],
        "training/found/test_accuracy": 25.626741,
    },
    "pruning darts": {
        "architecture":
            "Genotype(normal=[('dil_conv_3x3', 0), ('max_pool_3x3', 1), ('max_pool_3x3', 1), ('skip_connect', 2), "
            "('sep_conv_5x5', 0), ('skip_connect', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 3)], "
            "normal_concat=[2, 3, 4, 5], "
            "reduce=[('sep_conv_3x3', 0), ('max_pool_3x3', 1), ('max_pool_3x3', 0), ('sep_conv_5x5', 1), "
            "('dil_conv_3x3', 1), ('dil_conv_5x5', 3), ('dil_conv_3x3', 0), ('sep_conv_3x3', 2)], "
            "reduce_concat=[2, 3, 4, 5])",
        "evaluations": 222,
        "rounds/0/candidates/0/ntk_change": 0.16935412,
        "rounds/0/candidates/1/ntk_change": 0.2693024,
        "rounds/0/candidates/1/ntk_rank": 22,
    },
    "evolution nasbench201": {
        "architecture":
            "|nor_conv_1x1~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|none~1|nor_conv_1x1~2|",
        "evaluations": 15,
        "rounds/0/best":
            "|skip_connect~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|none~0|nor_conv_3x3~1|nor_conv_1x1~2|",
        "scores/found/ntk": 58.742683,
        "scores/found/regions": 46,
        "scores/found/flops": 1.894026,
    },
    "posterior nasbench201": {
        "architecture":
            "|nor_conv_1x1~0|+|skip_connect~0|avg_pool_3x3~1|+|skip_connect~0|skip_connect~1|nor_conv_1x1~2|",
        "evaluations": 3,
        "posterior/groups/0/drop_probability": 0.09953402,
        "posterior/groups/1/drop_probability": 0.099769369,
        "posterior/parameters": 1801,
        "posterior/expected_parameters": 1657.6783,
        "posterior/found_parameters": 443,
        "posterior/test/found": 13.091922,
    },
    "posterior shake_shake": {
        "architecture":
            "shake_shake:fff7bfdffcdfadffdfff7ff7fdff77dbfff79fefceffffffbef7cffffffbfffffafff7dffcfeffffefb"
            "ffffffff7f7cfe7f6efb7bb3f5fffff77efeb7ff9f7df",
        "posterior/groups/0/drop_probability": 0.10242219,
        "posterior/groups/16/drop_probability": 0.11197569,
        "posterior/found_parameters": 135670,
        "posterior/candidates/parameters": [134186, 139348, 135670],
        "posterior/test/found": 23.955432,
        "posterior/test/found, tuned": 29.526462,
    },
    "train darts": {
        "parameters": 2482,
        "curves/train_loss": [2.6964433, 2.7438076],
        "curves/test_accuracy": [17.142857, 17.142857],
    },
    "table nasbench201": {
        "architectures": [[2, 3, 2, 1, 0, 4], [3, 1, 4, 1, 3, 3], [3, 4, 2, 4, 1, 3]],
        "accuracy": [
            [[14.286, 14.286], [4.286, 7.142]], [[7.142, 10.0], [4.286, 7.142]], [[5.714, 4.286], [8.572, 15.714]],
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
    # A key may hold a slash, as `ntk/0` does.
    while not (isinstance(result, dict) and place in result):
        step, slash, rest = place.partition("/")
        if not slash:
            return result[int(step)]
        result, place = result[int(step) if isinstance(result, list) else step], rest
    result = result[place]
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
    for name in sys.argv[1:] or RUNS:
        result = outcome(name, pathlib.Path(tempfile.mkdtemp()))
        values = {place: at(result, place) for place in GOLDEN[name]}
        print(name, json.dumps(values, indent=4, default=np.ndarray.tolist), flush=True)
