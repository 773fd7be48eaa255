"""The posterior-guided search as a user runs it: what it leaves, resuming, stopping in time, wrong configurations."""

import contextlib
import json
import shutil
import sqlite3

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import yaml

from jnas import cli, data, spaces
from jnas.config.old_search import from_mapping
from jnas.oneshot import candidates
from jnas.proxies import ntk, regions
from jnas.report.report import write_report
from jnas.run import posterior_search, scoring, supernet_training
from jnas.run.progress import Progress
from jnas.run.search import run
from jnas.store.records import read_records

CHANNELS = {
    "strategy": "posterior",
    "space": "shake_shake",
    "posterior": {
        "width": 1, "depth": 1, "epochs": 3, "batch": 256, "candidates": 5, "blind_candidates": 3, "at_once": 2,
        "tuning_epochs": 1, "recalibrate": 32,
    },
}  # fmt: skip
CELLS = {
    "strategy": "posterior",
    "space": "nasbench201",
    "posterior": {
        "gates": "group", "width": 1, "depth": 1, "epochs": 1, "batch": 256, "candidates": 3,
        "blind_candidates": 2, "at_once": 3, "prior": "training_free", "filter": "swap", "filter_factor": 2,
    },
    "ntk": {"batch": 4, "repeats": 1},
    "regions": {"inputs": 20, "repeats": 1},
    "training": {"epochs": 0, "random_cells": 1},
}  # fmt: skip
TIMES = {"seconds", "search_seconds"}


@pytest.fixture(scope="module", autouse=True)
def programs():
    """The searches of channels, which have one configuration, train and evaluate by the same compiled programs."""

    def once(make):
        made = {}

        def cached(supernet, *arguments, **options):
            # Masks that are given are of one candidate.
            if options.get("draw") is not None or supernet.name != CHANNELS["space"]:
                return make(supernet, *arguments, **options)
            if not made:
                made["own"] = make(supernet, *arguments, **options)
            return made["own"]

        return cached

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supernet_training, "supernet_trainer", once(supernet_training.supernet_trainer))
        patch.setattr(candidates, "evaluator", once(candidates.evaluator))
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Folder and result of an uninterrupted search of channels."""
    folder = tmp_path_factory.mktemp("channels") / "run"
    return folder, run(from_mapping(CHANNELS), folder, Progress(quiet=True))


def test_what_it_leaves(finished):
    folder, result = finished
    learned = result["posterior"]
    records = read_records(folder / "records.sqlite")
    assert [r.value for r in records if r.stage == "candidates"] == learned["candidates"]["accuracy"]
    assert max(learned["candidates"]["accuracy"]) == learned["found_validation"]
    assert learned["expected_parameters"] < learned["parameters"]
    assert set(learned["test"]) == {"found", "whole supernet", "best blind", "found, tuned"}
    assert result["architecture"].startswith("shake_shake:") and result["evaluations"] == 5
    curves = [r for r in records if r.stage == "supernet"]
    assert len(curves) == 3 * (3 + len(learned["groups"]))
    kept = np.unpackbits(np.frombuffer(bytes.fromhex(result["architecture"].partition(":")[2]), np.uint8))
    assert kept.sum() == sum(group["kept"] for group in learned["groups"])
    last = {r.candidate: r.value for r in curves if r.round == 2 and r.proxy == "drop_probability"}
    assert list(last.values()) == [group["drop_probability"] for group in learned["groups"]]
    assert json.loads((folder / "result.json").read_text())["posterior"]["test"] == learned["test"]


def test_the_split_keeps_the_images_apart():
    digits = data.load("digits")
    split = posterior_search.hold_out(from_mapping(CHANNELS), digits)
    seen = {image.tobytes() for image in split.dataset.x_train}
    assert len(split.images) + len(split.dataset.x_train) == len(digits.x_train)
    # Two digits of the data set may be equal; hardly more.
    assert sum(image.tobytes() in seen for image in split.images) <= 2
    assert abs(len(split.images) / len(digits.x_train) - 0.2) < 0.01
    assert split.dataset.x_test is digits.x_test


def weights(folder):
    with ocp.CheckpointManager((folder / "checkpoints" / "supernet").absolute()) as checkpoints:
        assert checkpoints.latest_step() == 3
        return checkpoints.restore(3, args=ocp.args.StandardRestore())


def test_interrupted_in_training_it_ends_with_the_same_parameters(finished, tmp_path, monkeypatch):
    """Interrupted when two epochs are recorded and one is stored, then among the candidates, then in tuning."""
    config, folder = from_mapping(CHANNELS), tmp_path / "run"

    class Interrupting(Progress):
        """Raises after so many steps of one task."""

        def __init__(self, text, after):
            super().__init__(quiet=True)
            self.text, self.left = text, after

        @contextlib.contextmanager
        def task(self, text, total, unit=""):
            with super().task(text, total, unit) as advance:

                def counting(steps):
                    advance(steps)
                    # The first epoch is stored, the second is not.
                    monkeypatch.setattr(supernet_training, "CHECKPOINT_SECONDS", 1e9)
                    self.left -= text == self.text
                    if self.left == 0:
                        raise KeyboardInterrupt

                yield counting

    monkeypatch.setattr(supernet_training, "CHECKPOINT_SECONDS", 0.0)
    for text, after in (
        ("training the supernet", 2),
        ("evaluating candidates", 1),
        ("tuning what was found", 1),
    ):
        with pytest.raises(KeyboardInterrupt):
            run(config, folder, Interrupting(text, after))
        if text == "training the supernet":
            stored = ocp.CheckpointManager((folder / "checkpoints" / "supernet").absolute()).latest_step()
            recorded = {r.round for r in read_records(folder / "records.sqlite") if r.stage == "supernet"}
            assert (stored, recorded) == (1, {0, 1})
    resumed = run(config, folder, Progress(quiet=True))
    assert {k: v for k, v in resumed.items() if k not in TIMES} == {
        k: v for k, v in finished[1].items() if k not in TIMES
    }
    jax.tree.map(np.testing.assert_array_equal, weights(folder), weights(finished[0]))


def test_its_report(finished):
    text = write_report(finished[0]).read_text(encoding="utf-8")
    for heading in ("The supernet", "The surviving network", "The candidates"):
        assert heading in text
    assert "On the test images" in text and "The found cell" not in text and "nan" not in text.lower()


@pytest.mark.parametrize("what", ["the loss", "the weights alone"])
def test_what_is_not_finite_stops_and_leaves_the_last_good_state(what, tmp_path, monkeypatch, capsys):
    make = supernet_training.supernet_trainer

    def spoiled(*arguments, **options):
        trainer = make(*arguments, **options)

        def epoch(state, number):
            after, record = trainer.epoch(state, number)
            if number == 1 and what == "the loss":
                return after, record._replace(cross_entropy=jnp.nan)
            if number == 1:
                after = after._replace(params=jax.tree.map(lambda leaf: leaf * jnp.nan, after.params))
            return after, record

        return trainer._replace(epoch=epoch)

    monkeypatch.setattr(supernet_training, "supernet_trainer", spoiled)
    config, folder = tmp_path / "config.yaml", tmp_path / "run"
    config.write_text(yaml.safe_dump(CHANNELS))
    assert cli.main(["search", str(config), "--out", str(folder)]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert "training the supernet: not finite in epoch 2 of 3: lower posterior.learning_rate" in last
    assert "the state after epoch 1 is kept in" in last
    with ocp.CheckpointManager((folder / "checkpoints" / "supernet").absolute()) as checkpoints:
        assert checkpoints.latest_step() == 1


def test_cells_with_a_prior_and_a_filter(tmp_path, monkeypatch, capsys):
    """Theory and posterior together, with stand-ins for the scores: what they say decides."""

    def kernels(key, gates, count, images, **options):
        # Without the 3x3 convolution of an edge the condition number is twice as large: it is missed.
        missing = 6 - jnp.sum(gates[:, 0, :, 3] > 0, axis=-1)
        return jax.vmap(lambda m: jnp.diag(jnp.array([1.0, 0.5**m])))(missing.astype(jnp.float32))

    filtered = []

    def chunk_scorer(config, proxies, dataset):
        assert proxies == ("swap",)

        def score(cells):
            filtered.extend(map(tuple, cells.tolist()))
            return {"swap": (cells.sum(axis=1).astype(float), ["ok"] * len(cells))}

        return score

    monkeypatch.setattr(ntk, "kernels", kernels)
    monkeypatch.setattr(regions, "counts", lambda key, gates, count, inputs, **o: jnp.full(len(gates), 7))
    monkeypatch.setattr(scoring, "chunk_scorer", chunk_scorer)
    config, folder = tmp_path / "config.yaml", tmp_path / "run"
    config.write_text(yaml.safe_dump(CELLS))
    assert cli.main(["search", str(config), "--out", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "Found cell" in out and "posterior" in out and "whole supernet" in out
    learned = json.loads((folder / "result.json").read_text())["posterior"]
    inclusion = {group["name"]: group["inclusion"] for group in learned["groups"]}
    assert all((value > 0.5) == name.startswith("nor_conv_3x3") for name, value in inclusion.items())
    assert len(filtered) == 6
    kept = {r.subject for r in read_records(folder / "records.sqlite") if r.stage == "candidates"}
    space = spaces.get("nasbench201")
    best = sorted(filtered, key=sum)[-3:]
    assert min(sum(space.from_string(text).tolist()) for text in kept) >= min(map(sum, best))
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "The found cell" in text and "The surviving network" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"drop_probability": 0.0}, "'posterior.drop_probability' is 0.0: give a number > 0 and < 1"),
        ({"drop_probability": 1.0}, "'posterior.drop_probability' is 1.0: give a number > 0 and < 1"),
        ({"inclusion": 1.2}, "'posterior.inclusion' is 1.2: give a number > 0 and < 1"),
        ({"validation": 0.0}, "'posterior.validation' is 0.0: give a number > 0 and < 1"),
        ({"temperature": 0.0}, "'posterior.temperature' is 0.0: give a number > 0"),
        ({"gates": "layer"}, "'posterior.gates' is 'layer': give one of channel, group"),
        ({"batch": 4000}, "posterior.batch 4000 does not fit: 'digits' leaves 1151 images to train on"),
        ({"recalibrate": 4000}, "posterior.recalibrate 4000 does not fit"),
        ({"filter": "swap"}, "posterior.filter 'swap' is of cells, and 'shake_shake' has channels"),
        ({"prior": "training_free"}, "posterior.prior 'training_free' is of cells"),
        ({"filter_factor": 1}, "'posterior.filter_factor' is 1: give a whole number >= 2"),
        ({"filter": "swop", "space": "nasbench201"}, "unknown proxy 'swop'"),
        ({"space": "shakeshake"}, "needs a space with gates, not 'shakeshake'"),
        ({"strategy": "posterio"}, "unknown strategy 'posterio'"),
    ],
)
def test_wrong_configurations(changes, message, tmp_path, capsys):
    own = {key: value for key, value in changes.items() if key not in ("space", "strategy")}
    mapping = CHANNELS | {key: value for key, value in changes.items() if key in ("space", "strategy")}
    config, folder = tmp_path / "config.yaml", tmp_path / "run"
    config.write_text(yaml.safe_dump(mapping | {"posterior": CHANNELS["posterior"] | own}))
    assert cli.main(["search", str(config), "--out", str(folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not folder.exists()


def test_equal_candidates_are_evaluated_once():
    """Drawn until as many are different as are wanted, or until it seems that there are no more."""
    rows = iter([[[1, 0], [1, 0]], [[1, 0], [0, 1]], [[1, 1], [0, 0]]])
    found = posterior_search._distinct(lambda key: np.array(next(rows), bool), jax.random.key(0), 3)
    np.testing.assert_array_equal(found, [[True, False], [False, True], [True, True]])
    same = posterior_search._distinct(lambda key: np.ones((3, 2), bool), jax.random.key(0), 3)
    np.testing.assert_array_equal(same, [[True, True]])
    assert posterior_search._distinct(lambda key: np.ones((0, 2), bool), jax.random.key(0), 0).shape == (0, 2)


def test_candidates_that_do_not_fit_into_memory_are_fewer_at_a_time(finished, tmp_path, monkeypatch):
    """The records of a finished run without its candidates: as many as fit are evaluated, with the same result."""
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    with contextlib.closing(sqlite3.connect(folder / "records.sqlite")) as db, db:
        db.execute("DELETE FROM evaluations WHERE stage = 'candidates'")
    make, sizes = posterior_search.evaluator, []

    def limited(work, key):
        evaluate = make(work, key)

        def inner(params, batch_stats, kept, *images):
            sizes.append(len(kept))
            if len(kept) > 1:
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
            return evaluate(params, batch_stats, kept, *images)

        return inner

    monkeypatch.setattr(posterior_search, "evaluator", limited)
    again = run(from_mapping(CHANNELS), folder, Progress(quiet=True))
    assert sizes[:4] == [2, 1, 1, 1]
    found = again["posterior"]["candidates"]["accuracy"]
    np.testing.assert_allclose(
        found, finished[1]["posterior"]["candidates"]["accuracy"], atol=100 / 288 + 1e-9
    )
