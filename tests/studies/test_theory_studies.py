"""The studies of kernels, small: what they leave agrees with what was computed otherwise; bad settings are refused."""

import csv

import jax
import neural_tangents as nt
import numpy as np
import pytest
import small_digits

from jnas import cli, spaces
from jnas.config.study import from_mapping
from jnas.errors import InputError
from jnas.estimators import compact_table
from jnas.studies import drift as drift_study
from jnas.studies import dynamics as dynamics_study
from jnas.studies import kernel as kernel_study
from jnas.theory import infinite_width

SPACE = spaces.get("nasbench201")
MIXED = (3, 1, 4, 2, 1, 3)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return small_digits.write(tmp_path_factory.mktemp("data") / "small.npz", 100, 40)


def run(tmp_path, capsys, kind, *options):
    config, out = tmp_path / "study.yaml", tmp_path / "run"
    config.write_text(f"kind: {kind}\n")
    assert cli.main(["study", str(config), "--out", str(out), *map(str, options)]) == 0
    for name in (*FIGURES[kind], "report.html"):
        assert (out / name).stat().st_size > 5000
    text = capsys.readouterr().out
    assert "nan" not in text.lower()
    with (out / "study.csv").open() as stream:
        return list(csv.DictReader(stream)), text


FIGURES = {
    "kernel": ("width.png", "spectrum.svg"),
    "dynamics": ("loss.png", "accuracy.svg"),
    "drift": ("drift.png", "ranks.svg"),
}


def test_the_table_that_comes_with_jnas():
    table = compact_table.open_table("digits")
    distinct = np.asarray(SPACE.canonical(table.architectures))
    np.testing.assert_array_equal(distinct, table.architectures)
    assert len(np.unique(distinct, axis=0)) == len(table.architectures)
    assert table.accuracy.shape[1:] == (3, 3) and np.isfinite(table.seconds).all()
    # One cell of 32 channels with six convolutions of 3x3, the stem, the normalisations and the classifier.
    full = table.parameters[(table.architectures == 3).all(axis=1)]
    assert set(full) <= {6 * (9 * 32**2 + 64) + 9 * 32 + 64 + 64 + 330}
    assert table.parameters.min() == 9 * 32 + 64 + 64 + 330


def test_kernel(tmp_path, capsys):
    rows, text = run(
        tmp_path, capsys, "kernel", "--kernel.cells", 2, "--kernel.ranked", 5, "--kernel.widths", "4,64",
        "--kernel.draws", 2, "--kernel.images", 4, "--kernel.resamples", 20,
    )  # fmt: skip
    assert len(rows) == 2 * (1 + 2 * 2) and "Over 5 cells the condition number at infinite width" in text
    apart = {
        width: np.median([float(row["ntk_distance"]) for row in rows if row["width"] == width])
        for width in ("4", "64", "infinite")
    }
    assert apart["4"] > apart["64"] > apart["infinite"] == 0


def test_dynamics(tmp_path, capsys):
    rows, text = run(
        tmp_path, capsys, "dynamics", "--dynamics.cells", 1, "--dynamics.widths", "4", "--dynamics.train", 12,
        "--dynamics.test", 10, "--dynamics.steps", 16,
    )  # fmt: skip
    assert int(rows[-1]["step"]) == 16 and "With 4 channels the prediction breaks for" in text
    losses = [float(row["train_loss"]) for row in rows]
    assert losses[-1] < losses[0]


def test_the_prediction_is_what_the_linearised_network_does_in_training():
    """Gradient descent on neural-tangents' `linearize`, step by step, and its gradient flow for small steps."""
    generator = np.random.default_rng(2)
    images, test = generator.normal(size=(2, 6, 4, 4, 1)).astype(np.float32)
    targets, labels = np.eye(3)[[0, 1, 2, 0, 1, 2]] - 1 / 3, np.array([0, 1, 2, 0, 1, 2])
    key, share = jax.random.key(0), 0.4
    found = dynamics_study.beside_linear(
        key, MIXED, 4, (images, targets), (test, labels), [1, 7], share=share, depth=1
    )
    init, apply, _ = infinite_width.network(MIXED, 4, 3)
    start = init(key, images.shape)
    kernel = nt.empirical_ntk_fn(apply, trace_axes=())(images, None, start)
    flat = np.swapaxes(kernel, 1, 2).reshape(18, 18)
    rate = share * 2 * 18 / np.linalg.eigvalsh(flat)[-1]
    for function, place in ((nt.linearize(apply, start), 2), (apply, 1)):
        gradient = jax.jit(jax.grad(lambda p, f=function: jax.numpy.mean((f(p, images) - targets) ** 2) / 2))
        params = start
        for step in range(1, 8):
            params = jax.tree.map(lambda p, g: p - rate * g, params, gradient(params))
            if step in (1, 7):
                row = found[0 if step == 1 else 1]
                loss = float(np.mean((np.asarray(function(params, images)) - targets) ** 2) / 2)
                assert row[place] == pytest.approx(loss, rel=2e-3)
        if place == 2:
            test_targets = np.eye(3)[labels] - 1 / 3
            loss = float(np.mean((np.asarray(function(params, test)) - test_targets) ** 2) / 2)
            assert found[1][5] == pytest.approx(loss, rel=2e-3)
    slow = dynamics_study.beside_linear(
        key, MIXED, 4, (images, targets), (test, labels), [20], share=0.01, depth=1
    )
    assert slow[0][2] == pytest.approx(slow[0][3], rel=2e-2)


def test_drift(digits, tmp_path, capsys):
    rows, text = run(
        tmp_path, capsys, "drift", "--data", digits, "--drift.cells", 4, "--drift.images", 8, "--drift.channels", 2,
        "--drift.batch", 50, "--drift.epochs", "0,2", "--drift.resamples", 20,
    )  # fmt: skip
    assert len(rows) == 8 and "In 2 epochs the kernel of the median cell moves by" in text
    assert {row["kernel_change"] for row in rows if row["epoch"] == "0"} <= {"0.0", "nan"}


@pytest.mark.parametrize(
    ("study", "settings", "fault"),
    [
        (kernel_study, {"kernel": {"widths": "8,4"}}, "kernel.widths is '8,4': give ascending whole numbers from 1"),
        (kernel_study, {"kernel": {"images": 100_000}}, "100000 images do not fit"),
        (kernel_study, {"kernel": {"cells": 10**6}}, "ask for fewer than 1000000"),
        (dynamics_study, {"dynamics": {"widths": "x"}}, "dynamics.widths is 'x'"),
        (dynamics_study, {"dynamics": {"test": 100_000}}, "100000 images do not fit"),
        (drift_study, {"drift": {"epochs": "1,2"}}, "give 0, before training"),
        (drift_study, {"drift": {"batch": 100_000}}, "do not fit"),
    ],
)  # fmt: skip
def test_wrong_settings(study, settings, fault):
    from jnas.run.progress import Progress

    with pytest.raises(InputError, match=fault):
        study.run(from_mapping(settings), compact_table.open_table("digits"), Progress(quiet=True))
