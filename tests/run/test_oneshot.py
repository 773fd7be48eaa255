"""A search that trains a supernet first, as a user runs it: its files, resuming, wrong configurations, its heirs."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import small_digits
import yaml
from interrupting import Interrupting
from measure import StandIns

from jnas import cli, data, spaces
from jnas.config.search import from_mapping
from jnas.estimators.settings import Inherited
from jnas.proxies.base import KERNEL, NETWORK, REGIONS
from jnas.report.report import write_report
from jnas.run import oneshot
from jnas.run.fit import fit
from jnas.run.progress import Progress
from jnas.run.search import run
from jnas.run.supernet_training import hold_out
from jnas.store.records import read_records
from jnas.types import Candidates

SPACE = spaces.get("nasbench201")
QUIET = Progress(quiet=True)
TRAINING = {"width": 1, "depth": 1, "batch": 64}
CHANNELS = {
    "space": "shake_shake",
    "oneshot": "posterior",
    "supernet": {**TRAINING, "epochs": 3},
    "strategy": {"name": "draw", "candidates": 5},
    "estimator": {"name": "inherited", "batch": 2, "recalibrate": 32},
    "compare": {"random_cells": 0, "blind_candidates": 3},
    "tuning": {"epochs": 1},
}
CELLS = {
    "space": "nasbench201",
    "oneshot": {"name": "posterior", "gates": "group"},
    "supernet": {**TRAINING, "epochs": 1, "prior": "training_free"},
    "strategy": {"name": "draw", "candidates": 3},
    "estimator": {"name": "inherited", "batch": 3},
    "filter": {"proxies": "swap", "factor": 2},
    "compare": {"random_cells": 1, "blind_candidates": 2},
}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A file of 200 images of digits, of which 160 train a supernet in two steps an epoch."""
    return small_digits.write(tmp_path_factory.mktemp("digits") / "small.npz", 200, 60)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, small):
    """Folder and result of an uninterrupted search of channels."""
    folder = tmp_path_factory.mktemp("channels") / "run"
    return folder, run(from_mapping({**CHANNELS, "data": small}), folder, QUIET)


@pytest.fixture(scope="module")
def cells(tmp_path_factory, small):
    """Folder and programs of a search of cells, with stand-ins for the scores; they decide the prior and the filter."""

    def kernel(row, draw, image):
        # Without the 3x3 convolution of an edge the condition number is twice as large: it is missed.
        missing = 6 - jnp.sum(row.reshape(6, 5)[:, 3] > 0)
        return jnp.diag(jnp.array([1.0, 0.5**missing]))

    folder = tmp_path_factory.mktemp("cells") / "run"
    config = folder.with_name("config.yaml")
    config.write_text(yaml.safe_dump({**CELLS, "data": small}))
    with pytest.MonkeyPatch.context() as patch:
        stand_ins = StandIns(
            patch,
            {
                KERNEL: kernel,
                REGIONS: lambda row, draw, image: jnp.int32(7),
                NETWORK: lambda row, draw, image: jnp.sum(row.reshape(6, 5) @ jnp.arange(5.0)),
            },
        )
        assert cli.main(["search", str(config), "--out", str(folder)]) == 0
    return folder, stand_ins


def stage(folder, name):
    return [r for r in read_records(folder / "records.sqlite") if r.stage == name]


def without_times(result):
    return {key: value for key, value in result.items() if not key.endswith("seconds")}


def weights(folder):
    with ocp.CheckpointManager((folder / "checkpoints" / "supernet").absolute()) as checkpoints:
        return checkpoints.restore(checkpoints.latest_step(), args=ocp.args.StandardRestore())


def test_the_result_of_channels(finished):
    folder, result = finished
    learned = result["posterior"]
    assert [r.value for r in stage(folder, "search")] == learned["candidates"]["accuracy"]
    assert max(learned["candidates"]["accuracy"]) == learned["found_validation"]
    assert learned["expected_parameters"] < learned["parameters"]
    assert set(learned["test"]) == {"found", "whole supernet", "best blind", "found, tuned"}
    assert {r.subject: r.value for r in stage(folder, "test")} == learned["test"]
    assert [r.value for r in stage(folder, "blind")] == learned["blind"]["accuracy"]
    assert (result["strategy"], result["estimator"], result["evaluations"]) == ("draw", "accuracy", 5)
    assert result["architecture"].startswith("shake_shake:")
    present = np.unpackbits(np.frombuffer(bytes.fromhex(result["architecture"].partition(":")[2]), np.uint8))
    assert present.sum() == sum(group["kept"] for group in learned["groups"])
    curves = stage(folder, "supernet")
    assert {r.round for r in curves} == {0, 1, 2}
    last = [r.value for r in curves if (r.round, r.objective) == (2, "drop_probability")]
    np.testing.assert_allclose(last, [group["drop_probability"] for group in learned["groups"]], rtol=1e-6)
    assert json.loads((folder / "result.json").read_text())["posterior"]["test"] == learned["test"]


def test_the_split_keeps_the_images_apart():
    digits = data.load("digits")
    split = hold_out(digits, 0, 0.2)
    seen = {image.tobytes() for image in split.dataset.x_train}
    assert len(split.images) + len(split.dataset.x_train) == len(digits.x_train)
    # Two digits of the data set may be equal; hardly more.
    assert sum(image.tobytes() in seen for image in split.images) <= 2
    assert abs(len(split.images) / len(digits.x_train) - 0.2) < 0.01
    assert split.dataset.x_test is digits.x_test


def test_interrupted_in_every_part_it_ends_with_the_same_weights(finished, small, tmp_path, monkeypatch):
    config, folder = from_mapping({**CHANNELS, "data": small}), tmp_path / "run"
    # Every step is stored.
    monkeypatch.setitem(fit.__kwdefaults__, "checkpoint_seconds", 0.0)
    for task, steps in (("training the supernet", 3), ("search", 2), ("tuning the best candidate", 1)):
        with pytest.raises(KeyboardInterrupt):
            run(config, folder, Interrupting(task, steps))
    assert without_times(run(config, folder, QUIET)) == without_times(finished[1])
    jax.tree.map(np.testing.assert_array_equal, weights(folder), weights(finished[0]))


def test_the_report_of_channels(finished):
    text = write_report(finished[0]).read_text(encoding="utf-8")
    for heading in ("The supernet", "The surviving network", "The candidates"):
        assert heading in text
    assert "On the test images" in text and "The found cell" not in text and "nan" not in text.lower()


def test_a_training_that_diverges_fails_in_one_line(small, tmp_path, capsys):
    config, folder = tmp_path / "config.yaml", tmp_path / "run"
    config.write_text(yaml.safe_dump({**CHANNELS, "data": small}))
    words = ["search", str(config), "--oneshot.learning_rate", "1e30", "--out", str(folder)]
    assert cli.main(words) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert "training the supernet: not finite at step" in last and "lower oneshot.learning_rate" in last


def test_cells_with_a_prior_and_a_filter(cells):
    """Theory and posterior together: the scores decide."""
    folder, stand_ins = cells
    learned = json.loads((folder / "result.json").read_text())["posterior"]
    inclusion = {group["name"]: group["inclusion"] for group in learned["groups"]}
    assert all((value > 0.5) == name.startswith("nor_conv_3x3") for name, value in inclusion.items())
    assert sum(count for name, count in stand_ins.rows if name == "swap") == 6

    def canonical(text):
        return np.asarray(SPACE.canonical(SPACE.from_string(text)))

    # The evaluated ones have the largest sums of the drawn ones.
    drawn = {r.subject: int(canonical(r.subject).sum()) for r in stage(folder, "filter")}
    chosen = {SPACE.to_string(canonical(r.subject)) for r in stage(folder, "search")}
    assert max(drawn[text] for text in drawn.keys() - chosen) <= min(drawn[text] for text in chosen)
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "The found cell" in text and "The surviving network" in text


def test_another_search_inherits_the_weights_of_a_run(cells, tmp_path, capsys):
    words = f"search --strategy random --estimator inherited:{cells[0]} --budget 4 --out".split()
    assert cli.main([*words, str(tmp_path / "run")]) == 0
    records = stage(tmp_path / "run", "search")
    known = {r.subject: r.value for r in [*records, *stage(cells[0], "search"), *stage(cells[0], "blind")]}
    rows = np.stack([SPACE.from_string(text) for text in known])
    estimator = oneshot.of_run(Inherited(run=str(cells[0]), batch=3), SPACE)
    again = estimator.evaluate(jax.random.key(1), Candidates(rows)).value[:, 0]
    np.testing.assert_array_equal(again, list(known.values()))
    capsys.readouterr()
    words[2], words[4] = "evolution", f"inherited:{tmp_path / 'run'}"
    assert cli.main([*words, str(tmp_path / "other")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "holds no trained supernet: give the folder of a search with a oneshot section" in line


def test_a_pruning_by_inherited_weights(small, tmp_path):
    """No architecture is evaluated before the last: it is compared all the same."""
    result = run(
        from_mapping(
            {
                "data": small, "oneshot": "uniform", "supernet": {**TRAINING, "epochs": 1},
                "strategy": {"name": "pruning", "operations_per_round": 3},
            }
        ),
        tmp_path,
        QUIET,
    )  # fmt: skip
    assert result["evaluations"] == 25 and result["posterior"]["candidates"]["accuracy"] == [
        result["posterior"]["found_validation"]
    ]
    assert write_report(tmp_path).exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--supernet.batch 4000", "supernet.batch 4000 does not fit: 'small' leaves 160 images to train on"),
        ("--estimator.recalibrate 4000", "estimator.recalibrate 4000 does not fit"),
        ("--filter.proxies swap", "filter is for cells, and 'shake_shake' has channels"),
        ("--supernet.prior training_free", "supernet.prior is for cells"),
        ("--filter.proxies swop --space nasbench201", "unknown proxy 'swop'"),
        ("--space shakeshake", "needs a supernet, and 'shakeshake' is none: choose one of"),
        ("--strategy random", "strategy random does not end by itself"),
        ("--estimator table:digits", "evaluates inherited weights: leave estimator out"),
    ],
)
def test_wrong_configurations(options, message, small, tmp_path, capsys):
    config, folder = tmp_path / "config.yaml", tmp_path / "run"
    config.write_text(yaml.safe_dump({**CHANNELS, "data": small}))
    assert cli.main(["search", str(config), *options.split(), "--out", str(folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not folder.exists()
