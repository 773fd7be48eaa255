"""Tables made by training: as the batched training says, resumed, grown, by several devices; and what does not fit."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
import small_digits
from msgspec.structs import replace

from jnas import cli, data, spaces
from jnas.errors import InputError
from jnas.estimators import batch_training, compact_table
from jnas.run import table as table_build
from jnas.run.progress import Progress
from jnas.run.table import TableConfig

SPACE, QUIET = spaces.get("nasbench201"), Progress(quiet=True)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return small_digits.write(tmp_path_factory.mktemp("data") / "small.npz", 200, 80)


@pytest.fixture(scope="module")
def config(small):
    return TableConfig(data=small, seeds=2, channels=2, epochs=2, batch=50, curve="1,2")


@pytest.fixture(scope="module")
def table(config, tmp_path_factory):
    return table_build.build(config, 6, tmp_path_factory.mktemp("table") / "t.npz", "local", QUIET)


def test_it_holds_what_the_trainings_reach(config, table):
    keys = jax.random.split(jax.random.fold_in(jax.random.key(0), 1), 2)
    cells = table_build.order(config)[:6]
    np.testing.assert_array_equal(table.architectures, cells)
    choices = np.argmax(np.asarray(SPACE.gates(cells)), axis=-1).astype(np.int32)
    for seed, key in enumerate(keys):
        expected = batch_training.accuracies(
            key, choices, data.load(config.data), epochs=2, batch=50, learning_rate=0.2, weight_decay=5e-4,
            channels=2, cells_per_stage=1, stages=1, evaluate_at=(1, 2),
        )  # fmt: skip
        np.testing.assert_allclose(table.accuracy[:, seed], expected, atol=1e-4)
    assert (table.seconds > 0).all() and table.epochs.tolist() == [1, 2]


def test_every_distinct_cell_has_its_turn(config):
    cells = table_build.order(config)
    assert len(cells) == 6466 and len(np.unique(cells, axis=0)) == 6466
    np.testing.assert_array_equal(np.asarray(SPACE.canonical(cells)), cells)
    other = table_build.order(replace(config, seed=1))
    assert not np.array_equal(cells[:50], other[:50])


@pytest.fixture
def trained(monkeypatch):
    """Cells of each call of the batched training, which is interrupted where `stop_at` of them are done."""
    calls, train = SimpleNamespace(cells=[], stop_at=None), batch_training.accuracies

    def watched(key, choices, *arguments, **options):
        if len(calls.cells) == calls.stop_at:
            raise KeyboardInterrupt
        calls.cells.append(len(choices))
        return train(key, choices, *arguments, **options)

    monkeypatch.setattr(batch_training, "accuracies", watched)
    return calls


def test_interrupted_and_grown_it_is_the_same(config, table, tmp_path, trained):
    path = tmp_path / "t.npz"
    # One chunk of two seeds.
    trained.stop_at = 2
    with pytest.raises(KeyboardInterrupt):
        table_build.build(config, 5, path, "local", QUIET)
    trained.stop_at = None
    table_build.build(config, 5, path, "local", QUIET)
    assert len(trained.cells) == 4
    grown = table_build.build(config, 6, path, "local", QUIET)
    np.testing.assert_array_equal(grown.accuracy, table.accuracy)
    again = compact_table.read(path)
    np.testing.assert_allclose(again.accuracy, table.accuracy, atol=compact_table.UNIT)
    np.testing.assert_array_equal(again.architectures, table.architectures)
    with pytest.raises(InputError, match=r"another configuration \(learning_rate: 0.2 -> 0.3\)"):
        changed = replace(config, learning_rate=0.3)
        table_build.build(changed, 6, path, "local", QUIET)


def test_shards_give_the_table_of_one_machine(config, table, tmp_path, trained):
    parts = [tmp_path / f"{number}.npz" for number in (1, 2)]
    sizes = [
        len(table_build.build(config, 6, part, "local", QUIET, shard=f"{number}/2").architectures)
        for number, part in enumerate(parts, start=1)
    ]
    assert sizes == [3, 3]
    trained.cells.clear()
    merged = table_build.build(config, 6, tmp_path / "t.npz", "local", QUIET, merge=parts)
    assert trained.cells == []
    np.testing.assert_array_equal(merged.accuracy, table.accuracy)
    np.testing.assert_array_equal(merged.architectures, table.architectures)


def test_the_command(config, small, tmp_path, capsys):
    command = ["table", "build", "--data", small, "--cells", "4", "--seeds", "2", "--channels", "2"]
    command += ["--epochs", "2", "--batch", "50", "--curve", "1,2", "--out", str(tmp_path / "t.npz")]
    assert cli.main(command) == 0
    built = capsys.readouterr().out
    assert built.startswith("4 cells of nasbench201 on ") and "Kendall tau between two seeds" in built
    assert cli.main(["table", "show", str(tmp_path / "t.npz")]) == 0
    assert capsys.readouterr().out.splitlines()[:2] == built.splitlines()[:2]


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["build"], "jnas table build needs --out"),
        (["mend"], "jnas table takes build, import FILE or show FILE"),
        ([], "jnas table takes build, import FILE or show FILE"),
        (["show", "absent.npz"], "no table 'absent.npz'"),
        (["build", "--out", "t.csv"], "give a file ending in .npz"),
        (["build", "--out", "t.npz", "--cells", "many"], "--cells is 'many': give a number, or all"),
        (["build", "--out", "t.npz", "--cells", "7000"], "cells is 7000: give a number from 1 to 6,466"),
        (["build", "--out", "t.npz", "--curve", "3,2"], "curve is '3,2'"),
        (["build", "--out", "t.npz", "--curve", "x"], "curve is 'x': give ascending whole numbers"),
        (["build", "--out", "t.npz", "--batch", "2000"], "batch 2000 does not fit: there are 1438 images"),
        (["build", "--out", "t.npz", "--executor", "slurm"], "unknown executor 'slurm'"),
        (["build", "--out", "t.npz", "--epoch", "2"], "did you mean"),
        (["import", "absent", "--out", "t.npz"], "no table 'absent': get it by the links"),
        (["import", "absent", "--out", "t.npz", "--epochs", "x"], "--epochs is 'x': give 12 or 200"),
        (["import", "absent", "--out", "t.npz", "--seed", "1"], "jnas table import knows no --seed"),
    ],
)
def test_wrong_arguments(arguments, fault, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["table", *arguments]) == 2
    assert fault in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
