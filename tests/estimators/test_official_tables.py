"""Files in the forms that NAS-Bench-201 and NATS-Bench are published in, made here, and files that mean harm."""

import bz2
import os
import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import pytest

from jnas import spaces
from jnas.errors import InputError
from jnas.estimators import official_tables

SPACE = spaces.get("nasbench201")
CELLS = [SPACE.to_string(cell) for cell in SPACE.all()[[7, 4321, 15_000]]]
SEEDS = {"cifar10": (777, 888, 999), "cifar100": (777,)}


def accuracy(cell: int, seed: int, epoch: int) -> float:
    return round(10 + cell + seed / 1000 + epoch / 7, 2)


def trial(cell: int, data: str, seed: int, epochs: int) -> dict:
    split = official_tables.SPLITS[data]
    evaluated = {f"{split}@{epoch}": accuracy(cell, seed, epoch) for epoch in range(epochs)}
    return {
        "name": "infer.tiny", "net_state_dict": None, "seed": seed, "epochs": epochs, "params": 0.3, "flop": 47.1,
        "train_times": OrderedDict((epoch, 2.0 + cell) for epoch in range(epochs)),
        # Some numbers of the published files are NumPy's.
        "train_losses": OrderedDict((epoch, np.float64(0.5)) for epoch in range(epochs)),
        "arch_config": {"arch_str": CELLS[cell], "channel": 16, "num_cells": 5},
        "eval_acc1es": evaluated | {f"x-valid@{epoch}": 1.0 for epoch in range(epochs)},
    }  # fmt: skip


def of_cell(cell: int, names=("12", "200")) -> OrderedDict:
    recipes = zip(names, (12, 200), strict=True)
    return OrderedDict(
        (
            name,
            {
                "arch_index": cell,
                "arch_str": CELLS[cell],
                "dataset_seed": {data: list(seeds) for data, seeds in SEEDS.items()},
                "all_results": {
                    (data, seed): trial(cell, data, seed, epochs) for data, seeds in SEEDS.items() for seed in seeds
                },
            },
        )
        for name, epochs in recipes
    )  # fmt: skip


def whole(names=("12", "200")) -> dict:
    return {
        "meta_archs": CELLS,
        "arch2infos": {cell: of_cell(cell, names) for cell in range(len(CELLS))},
        "evaluated_indexes": set(range(len(CELLS))),
    }


@pytest.fixture(params=["folder", "compressed", "zip", "legacy"])
def published(request, tmp_path):
    if request.param == "folder":
        path = tmp_path / "NATS-tss-v1_0-3ffb9-simple"
        path.mkdir()
        parts = {"meta": {"meta_archs": CELLS}} | {f"{cell:06d}": of_cell(cell) for cell in range(3)}
        for name, content in parts.items():
            (path / f"{name}.pickle.pbz2").write_bytes(bz2.compress(pickle.dumps(content, protocol=4)))
    elif request.param == "compressed":
        path = tmp_path / "NATS-tss-v1_0-3ffb9.pickle.pbz2"
        path.write_bytes(bz2.compress(pickle.dumps(whole(), protocol=4)))
    elif request.param == "zip":
        path = tmp_path / "NAS-Bench-201-v1_1-096897.pth"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(whole(("less", "full")), protocol=2))
    else:
        path = tmp_path / "NAS-Bench-201-v1_0-e61699.pth"
        header = (official_tables.MAGIC, 1001, {"little_endian": True})
        parts = [*header, whole(("less", "full")), []]
        path.write_bytes(b"".join(pickle.dumps(part, protocol=2) for part in parts))
    return path


def test_accuracies_seeds_and_seconds(published):
    seen = []
    table = official_tables.read(published, "cifar10", 12, lambda *numbers: seen.append(numbers))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert [SPACE.to_string(cell) for cell in table.architectures] == CELLS
    assert table.epochs.tolist() == list(range(1, 13)) and table.accuracy.shape == (3, 3, 12)
    for cell in range(3):
        for place, seed in enumerate(SEEDS["cifar10"]):
            expected = [accuracy(cell, seed, epoch) for epoch in range(12)]
            np.testing.assert_allclose(table.accuracy[cell, place], expected, rtol=1e-6)
    np.testing.assert_allclose(table.seconds, [24, 36, 48])
    long = official_tables.read(published, "cifar100", 200, lambda *numbers: None)
    assert long.accuracy.shape == (3, 1, 20) and long.epochs[-1] == 200
    np.testing.assert_allclose(long.accuracy[1, 0, -1], accuracy(1, 777, 199), rtol=1e-6)


def test_what_was_not_trained(published):
    with pytest.raises(InputError, match=r"no accuracies of ImageNet16-120 after 12 epochs"):
        official_tables.read(published, "ImageNet16-120", 12, lambda *numbers: None)
    with pytest.raises(InputError, match=r"unknown data 'cifar11'"):
        official_tables.read(published, "cifar11", 12, lambda *numbers: None)
    with pytest.raises(InputError, match=r"no recipe of 90 epochs: choose one of 12, 200"):
        official_tables.read(published, "cifar10", 90, lambda *numbers: None)


class Harm:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("wrapping", ["compressed", "zip", "legacy"])
@pytest.mark.parametrize("what", ["system", "eval", "attribute"])
def test_a_pickle_that_means_harm_is_refused_and_runs_nothing(what, wrapping, tmp_path):
    witness = tmp_path / "witness"
    harm = {
        "system": Harm(os.system, f"touch {witness}"),
        "eval": Harm(eval, f"open({str(witness)!r}, 'w')"),
        "attribute": Harm(getattr, "text", "upper"),
    }[what]
    content = pickle.dumps({"meta_archs": CELLS, "arch2infos": {0: harm}}, protocol=4)
    if wrapping == "compressed":
        path = tmp_path / "harm.pickle.pbz2"
        path.write_bytes(bz2.compress(content))
    elif wrapping == "zip":
        path = tmp_path / "harm.pth"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", content)
    else:
        path = tmp_path / "harm.pth"
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"it asks for .* which is not allowed") as error:
        official_tables.read(path, "cifar10", 12, lambda *numbers: None)
    assert not witness.exists() and "\n" not in str(error.value)


@pytest.mark.parametrize("harm", ["missing", "truncated", "another pickle", "no pickle", "another cell"])
def test_damaged_files(harm, tmp_path):
    path = tmp_path / "table.pickle.pbz2"
    content = bz2.compress(pickle.dumps(whole()))
    if harm == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif harm == "another pickle":
        path.write_bytes(bz2.compress(pickle.dumps([1, 2])))
    elif harm == "no pickle":
        path.write_bytes(b"nothing of the kind")
    elif harm == "another cell":
        broken = whole()
        broken["arch2infos"][1]["12"]["arch_str"] = "|sep_conv_3x3~0|"
        path.write_bytes(bz2.compress(pickle.dumps(broken)))
    with pytest.raises(InputError, match=r"table\.pickle\.pbz2|sep_conv_3x3") as error:
        official_tables.read(path, "cifar10", 12, lambda *numbers: None)
    assert "\n" not in str(error.value)
