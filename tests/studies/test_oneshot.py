"""The study of inherited accuracies on a small table: its rows and words, and one cell evaluated by other means."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nasbench201_networks import Network, sizes, specialise
from small_digits import write

from jnas import data, spaces
from jnas.config.study import from_mapping
from jnas.data import transforms
from jnas.errors import InputError
from jnas.estimators.compact_table import Table
from jnas.nets.modules import Build, statistics_of_batch
from jnas.nets.sizes import Macro
from jnas.oneshot.supernets import SUPERNETS, nasbench201_supernet
from jnas.report import plots
from jnas.run.progress import Progress
from jnas.studies import oneshot as oneshot_study
from jnas.studies import statistics

SPACE = spaces.get("nasbench201")
CELLS = SPACE.all()[700::1800][:8]
TINY = {
    "seeds": 2, "channels": 2, "stages": 1, "epochs": 3, "batch": 48, "recalibrate": 64, "resamples": 20,
}  # fmt: skip


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return write(tmp_path_factory.mktemp("digits") / "small.npz", 300, 60)


def table(space="nasbench201"):
    """Accuracies that grow with the parameters, with noise."""
    accuracy = 50 + 0.1 * sizes(CELLS, Macro(2, 1, 1, (8, 8, 1))).params
    values = accuracy[:, None, None] + np.random.default_rng(0).normal(0, 5, (len(CELLS), 3, 1))
    return Table(
        space, "digits", CELLS, np.ones(1, np.int32), values.astype(np.float32),
        np.ones(len(CELLS), np.float32),
    )  # fmt: skip


def configured(digits, **settings):
    return from_mapping({"kind": "oneshot", "data": digits, "oneshot": {**TINY, **settings}})


def test_the_study(digits):
    known = table()
    findings = oneshot_study.run(configured(digits, cells=7), known, Progress(quiet=True))
    rows = [dict(zip(findings.columns, row, strict=True)) for row in findings.rows]
    assert [(row["score"], row["seed"]) for row in rows] == [
        ("uniform", "mean"), ("uniform", 0), ("uniform", 1),
        ("posterior", "mean"), ("posterior", 0), ("posterior", 1), ("params", None),
    ]  # fmt: skip
    for row in rows:
        for name in statistics.Ranking._fields:
            assert row[f"{name}_low"] <= row[f"{name}_high"]
        assert row["failed"] == 0
    for mean, one, other in (rows[:3], rows[3:6]):
        for name in (*statistics.Ranking._fields, "inherited"):
            assert mean[name] == pytest.approx((one[name] + other[name]) / 2)
        assert mean["kendall_spread"] == pytest.approx(abs(one["kendall"] - other["kendall"]) / np.sqrt(2))
        assert 0 < mean["inherited"] < 100
    places = np.sort(np.random.default_rng(0).permutation(8)[:7])
    params = sizes(CELLS[places], Macro(2, 1, 1, (8, 8, 1))).params
    assert rows[-1]["kendall"] == pytest.approx(statistics.kendall(params, known.mean()[places]))
    assert rows[-1]["stand_alone"] == pytest.approx(known.mean()[places].mean())
    assert [row[0] for row in findings.summary] == ["uniform", "posterior", "params"]
    (text,) = findings.paragraphs
    assert "Posterior: " in text and "supernets, accuracy" in text and "params: difference of tau" in text
    (figure,) = findings.figures
    assert "posterior: tau" in plots.as_svg(figure.draw, figure.size, figure.name)


def test_inherited_accuracy_is_that_of_the_cell_alone(digits):
    config, dataset = configured(digits), data.load(digits)
    work, key = oneshot_study.prepare(config, dataset), jax.random.key(config.seed)
    with Progress(quiet=True).task("", 1) as advance:
        variables = oneshot_study.train(work, "uniform", jax.random.key(3), advance)
        together = oneshot_study.accuracies(work, variables, key, CELLS, advance)
        alone = oneshot_study.accuracies(work, variables, key, CELLS[5:6], advance)
    split = work.split
    assert together[5] == alone[0] and len(set(together)) > 1
    # The network of this cell and nothing else, normalised by the same images.
    chosen = np.asarray(jax.random.permutation(key, len(split.dataset.x_train))[:64])
    params = specialise(variables[0], CELLS[5])

    def network(build):
        return Network(2, 10, build, 1, 1, architecture=tuple(map(int, CELLS[5])))

    images = transforms.normalise(split.dataset, jnp.asarray(split.dataset.x_train[chosen]))
    own = statistics_of_batch(network(Build()), {"params": params}, images)
    logits = network(Build(statistics="running")).apply(
        {"params": params, "batch_stats": own}, transforms.normalise(split.dataset, jnp.asarray(split.images))
    )
    right = np.argmax(np.asarray(logits), axis=-1) == split.labels
    assert together[5] == pytest.approx(100 * right.mean())


def test_the_supernet_of_fewer_stages():
    full = SUPERNETS["nasbench201"]((8, 8, 1), 10, 2, 1)
    same, short = (nasbench201_supernet((8, 8, 1), 10, 2, 1, stages) for stages in (3, 1))
    np.testing.assert_array_equal(same.weights_of_mask, full.weights_of_mask)
    assert same.kernels == full.kernels and same.parameters == full.parameters
    assert short.fixed + short.weights_of_mask.sum() == short.parameters < full.parameters
    norms = jax.jit(lambda key: short.squared_norms(short.init(key)[0]))(jax.random.key(0))
    np.testing.assert_array_equal(norms > 0, short.weights_of_mask > 0)


@pytest.mark.parametrize(
    ("settings", "space", "fault"),
    [
        ({"supernets": "uniforms"}, "nasbench201", "did you mean 'uniform'"),
        ({}, "darts", "of nasbench201 alone"),
        ({"batch": 500}, "nasbench201", "239 images are left"),
        ({"recalibrate": 240}, "nasbench201", "239 images are left"),
    ],
)
def test_wrong_studies(settings, space, fault, digits):
    with pytest.raises(InputError, match=fault):
        oneshot_study.run(configured(digits, **settings), table(space), Progress(quiet=True))
