"""A finished run with invented numbers, in the form that a search leaves behind."""

import random
from pathlib import Path

import pytest

from jnas.config import search as configuration
from jnas.store.folder import open_run
from jnas.store.records import Evaluation

OPERATIONS = ("skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))


def invented_result(seed: int = 0, epochs: int = 30, random_cells: int = 5) -> dict:
    """The result.json of a pruning search of NAS-Bench-201, all numbers drawn from `seed`."""
    draw = random.Random(seed)
    alive = {edge: list(OPERATIONS) for edge in range(len(EDGES))}
    rounds = []
    for number in range(len(OPERATIONS) - 1):
        candidates = [
            {
                "cell": 0, "edge": edge, "source": EDGES[edge][0], "target": EDGES[edge][1],
                "operation": operation,
                "ntk_change": round(draw.gauss(0, 0.3), 3), "regions_change": round(draw.gauss(0, 0.05), 3),
            }
            for edge, names in alive.items()
            for operation in names
        ]  # fmt: skip
        for key, sign in (("ntk", -1), ("regions", 1)):
            values = sorted({sign * c[f"{key}_change"] for c in candidates})
            for candidate in candidates:
                candidate[f"{key}_rank"] = values.index(sign * candidate[f"{key}_change"])
        for edge, names in alive.items():
            own = [c for c in candidates if c["edge"] == edge]
            worst = min(own, key=lambda c: c["ntk_rank"] + c["regions_rank"])
            names.remove(worst["operation"])
            for candidate in own:
                candidate["pruned"] = candidate is worst
        supernet = {f"ntk/{repeat}": -draw.uniform(200, 400) for repeat in range(3)}
        supernet |= {f"regions/{repeat}": draw.uniform(60, 90) for repeat in range(3)}
        rounds.append({"round": number, "candidates": candidates, "supernet": supernet})
    found = to_string([names[0] for names in alive.values()])
    cells = [found] + [
        to_string([draw.choice(("none", *OPERATIONS)) for _ in EDGES]) for _ in range(random_cells)
    ]
    return {
        "kind": "search", "format": 2, "jnas": "0.1.0",
        "space": "nasbench201", "strategy": "pruning", "estimator": "ntk/0,regions/0", "protocol": "paper",
        "seed": seed, "data": "digits", "architecture": found, "seconds": 41.7, "search_seconds": 30.2,
        "evaluations": 342, "rounds": rounds,
        "scores": {
            "found": _scores(draw, cells[0], 0.6),
            "random": [_scores(draw, cell, 1.5) for cell in cells[1:]],
        },
        "training": {
            "epochs": epochs,
            "found": _training(draw, cells[0], 97.5, epochs),
            "random": [_training(draw, cell, draw.uniform(90, 97.4), epochs) for cell in cells[1:]],
        } if epochs else None,
        "posterior": None,
        "table": {"test_accuracy": 93.42},
    }  # fmt: skip


def to_string(names: list[str]) -> str:
    edges = list(zip(names, EDGES, strict=True))
    nodes = [[f"{name}~{source}" for name, (source, target) in edges if target == node] for node in (1, 2, 3)]
    return "+".join(f"|{'|'.join(inputs)}|" for inputs in nodes)


def _scores(draw: random.Random, architecture: str, scale: float) -> dict:
    convolutions = architecture.count("conv")
    return {
        "architecture": architecture, "ntk": scale * draw.uniform(60, 400), "regions": draw.uniform(20, 120),
        "params": 0.07 + 0.2 * convolutions * draw.random(), "flops": 8 + 30 * convolutions * draw.random(),
        "convs": convolutions,
    }  # fmt: skip


def _training(draw: random.Random, architecture: str, final: float, epochs: int) -> dict:
    progress = [1 - 0.9 * 0.82**epoch for epoch in range(1, epochs + 1)]
    accuracy = [10 + (final - 10) * p + draw.gauss(0, 1.2) * (1 - p) for p in progress]
    return {
        "architecture": architecture, "test_accuracy": accuracy[-1], "test_accuracy_by_epoch": accuracy,
        "train_loss_by_epoch": [2.3 * (1 - p) + 0.02 + draw.random() * 0.05 for p in progress],
    }  # fmt: skip


# Settings of the runs that `write_run` writes.
CONFIG = configuration.from_mapping({"training": {"epochs": 30, "channels": 8}})


def write_run(folder: Path, result: dict) -> Path:
    """A finished run in `folder`, as a search writes it."""
    with open_run(folder, CONFIG) as run:
        for number, entry in enumerate(result["rounds"]):
            run.records.add(
                Evaluation(
                    "search", f"round {number}, gates {place}", f"{proxy}/0", number, place,
                    c[f"{proxy}_change"], "ok", 0.02,
                )
                for place, c in enumerate(entry.get("candidates", []))
                for proxy in ("ntk", "regions")
            )  # fmt: skip
        run.write_result(result)
    return folder


@pytest.fixture
def result() -> dict:
    return invented_result()


@pytest.fixture
def run_folder(tmp_path: Path, result: dict) -> Path:
    return write_run(tmp_path / "run", result)


# A real search that is as small as one can be, in which every part of a run has its turn.
TINY = {
    "data": "digits",
    "estimator": {
        "ntk": {"batch": 4, "repeats": 1, "channels": 1},
        "regions": {"inputs": 50, "repeats": 1},
    },
    "compare": {"random_cells": 1},
    "training": {"epochs": 2, "batch": 256, "channels": 2},
}


@pytest.fixture(scope="session")
def tiny() -> dict:
    return TINY


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """The folder of the uninterrupted search of `TINY`, and its result; read only."""
    from jnas.run.progress import Progress
    from jnas.run.search import run

    folder = tmp_path_factory.mktemp("tiny") / "run"
    return folder, run(configuration.from_mapping(TINY), folder, Progress(quiet=True))
