"""Training-free scores as an estimator: compiled once and small, and with stand-ins for the measurements."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from measure import StandIns, diagonal, hundreds, weighed
from msgspec.structs import replace

from jnas import data as datasets
from jnas import spaces
from jnas.config.score import from_mapping
from jnas.data.base import dataset as make_dataset
from jnas.errors import InputError
from jnas.estimators.proxies import check, mean, proxies, sizes
from jnas.parallel import Program
from jnas.proxies import PROXIES, is_measured, proxy_value, sign
from jnas.proxies.base import KERNEL, NETWORK, REGIONS
from jnas.types import STATUSES, Candidates, Estimator, Values

SPACE = spaces.get("nasbench201")
SMALL_NETWORK = {"channels": 1, "cells_per_stage": 1, "batch": 4}
SMALL = from_mapping(
    {"network": SMALL_NETWORK, "ntk": {"batch": 4, "channels": 1}, "regions": {"inputs": 30}}
)
KEY = jax.random.key(0)
CELLS = np.asarray(SPACE.canonical(np.random.default_rng(3).permutation(SPACE.all())[:5]))
# Equal but for an edge that nobody reads.
TWINS = np.array([[3, 0, 0, 1, 0, 0], [2, 0, 0, 1, 0, 0]], np.int32)


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits")


@pytest.fixture
def stand_ins(monkeypatch):
    return StandIns(monkeypatch, {KERNEL: diagonal, REGIONS: hundreds, NETWORK: weighed})


def ask(estimator, cells=CELLS, key=KEY):
    return estimator.evaluate(key, Candidates(architectures=cells))


@pytest.mark.parametrize(
    "proxies, change, message",
    [
        (["nazwot"], {}, "unknown proxy 'nazwot'"),
        ([], {}, "no proxy given"),
        (["naswot"], {"network": {"batch": 11}}, "network.batch does not fit: 11 images .* 'few' has 10"),
        (["zico"], {"network": {"batch": 6}}, "network.batch does not fit: 12 images"),
        (["ntk_trace"], {"ntk": {"batch": 11}}, "ntk.batch does not fit: 11"),
        (["regions"], {"regions": {"inputs": 11, "crop": 0}}, "regions.inputs does not fit: 11"),
        (["regions"], {"regions": {"crop": 5}}, "regions.crop 5 does not fit into the images of 'few'"),
    ],
)
def test_what_does_not_fit_the_data(proxies, change, message):
    images, labels = np.zeros((10, 8, 4, 1), np.float32), np.arange(10) % 2
    few = make_dataset("few", images, labels, images, labels)
    fits = {"network": {"batch": 5}, "ntk": {"batch": 10}, "regions": {"inputs": 10, "crop": 4}}
    check(["naswot", "zico", "ntk", "regions", "params"], few, from_mapping(fits))
    with pytest.raises(InputError, match=message):
        check(proxies, few, from_mapping({**fits, **change}))
    # What nobody asks for need not fit.
    check(["params"], few, from_mapping({**fits, **change}))


def test_sizes_are_those_of_the_configured_network(digits):
    """Counted layer by layer: stem, cells, two residual blocks between stages, the end."""
    channels, cells_per_stage = 3, 2

    def count(cell: np.ndarray) -> int:
        total = 9 * channels + 2 * channels
        for c in (channels, 2 * channels, 4 * channels):
            if c > channels:
                total += (9 * (c // 2) * c + 2 * c) + (9 * c * c + 2 * c) + (c // 2) * c
            by_operation = (0, 0, c * c + 2 * c, 9 * c * c + 2 * c, 0)
            total += cells_per_stage * sum(by_operation[operation] for operation in cell)
        return total + 2 * 4 * channels + 4 * channels * 10 + 10

    cells = SPACE.all()[[0, 15624, 7, 9000, 12345]]
    config = from_mapping({"network": {"channels": channels, "cells_per_stage": cells_per_stage}})
    found = sizes(SPACE, digits, config.network, cells)
    assert found["params"].tolist() == [count(cell) for cell in cells]
    assert found["convs"].tolist() == np.isin(cells, (2, 3)).sum(1).tolist()
    # On images of 8x8, 4x4 and 2x2, with a classifier of 12 inputs and 10 outputs; a cell of none has no more.
    stem, blocks = 9 * 3 * 64, (9 * 3 * 6 + 9 * 6 * 6 + 3 * 6) * 16 + (9 * 6 * 12 + 9 * 12 * 12 + 6 * 12) * 4
    assert found["flops"][0] == stem + blocks + 12 * 10 + 10


# -------------------------------------------------------------------------------------------- compiled for real


def test_a_score_depends_on_the_architecture_alone(digits):
    names = ["regions", "swap", "convs", "naswot"]
    estimator = proxies(SPACE, names, digits, SMALL)
    assert estimator.objectives == tuple(names) and estimator.takes == ("architectures",)
    cells = np.array(SPACE.canonical(np.random.default_rng(0).integers(0, 5, (estimator.batch, 6))))
    cells[-1] = 0
    full = ask(estimator, cells)
    assert full.value.dtype == np.float64 and full.status.dtype == np.int8 and (full.cost > 0).all()
    assert ((full.status == 0) == np.isfinite(full.value)).all()
    assert len(np.unique(full.value[:, 3])) > len(np.unique(cells, axis=0)) // 2
    np.testing.assert_array_equal(full.value[:, 2], np.isin(cells, (2, 3)).sum(1))
    # Not on the others in the batch, nor on its place among them, nor on the other proxies of the same subject.
    order = np.random.default_rng(1).permutation(len(cells))
    moved = ask(proxies(SPACE, names, digits, SMALL), cells[order])
    np.testing.assert_array_equal(moved.value, full.value[order])
    alone = ask(proxies(SPACE, ["naswot"], digits, SMALL), cells[3:5])
    np.testing.assert_array_equal(alone.value[:, 0], full.value[3:5, 3])


# ------------------------------------------------------------------------------------------- without a compiler


def test_higher_is_better_and_a_failure_is_the_worst(stand_ins, digits, monkeypatch):
    value, status, _ = ask(proxies(SPACE, ["ntk", "regions", "params"], digits, SMALL))
    assert (value[:, 0] < -1).all() and (value[:, 1:] > 0).all() and not status.any()
    StandIns(monkeypatch, {KERNEL: lambda row, draw, image: jnp.zeros((2, 2))})
    value, status, _ = ask(proxies(SPACE, ["ntk", "ntk_trace"], digits, SMALL))
    assert (value == -np.inf).all() and (status == STATUSES.index("singular")).all()
    assert np.isnan(proxy_value("ntk", value[:, 0])).all() and proxy_value("ntk/1", -3.0) == 3.0
    assert sign("ntk/0") == -1 and sign("accuracy/0") == 1
    assert [is_measured(name) for name in ("ntk/0", "swap", "params", "accuracy")] == [
        True,
        True,
        False,
        False,
    ]


def test_repeats_draw_for_themselves_and_their_mean_is_that_of_each(stand_ins, digits):
    settings = replace(SMALL, ntk=replace(SMALL.ntk, repeats=3))
    apart = proxies(SPACE, ["ntk", "params", "regions"], digits, settings, apart=True)
    assert apart.objectives == ("ntk/0", "ntk/1", "ntk/2", "params", "regions/0")
    each = ask(apart)
    assert len(np.unique(each.value[:, :3])) == 15
    draws = [(key, arrays[0]) for name, key, arrays, _ in stand_ins.calls if name == KERNEL]
    assert len({str(jax.random.key_data(key)) for key, _ in draws}) == 3
    assert len({np.asarray(images).tobytes() for _, images in draws}) == 3
    averaged = ask(proxies(SPACE, ["ntk", "params", "regions"], digits, settings))
    np.testing.assert_allclose(averaged.value[:, 0], each.value[:, :3].mean(axis=1), rtol=1e-12)
    np.testing.assert_array_equal(averaged.value[:, 1:], each.value[:, 3:])
    # The first repeat is the only one of a single repeat.
    np.testing.assert_array_equal(ask(proxies(SPACE, ["ntk"], digits, SMALL)).value[:, 0], each.value[:, 0])


def test_one_failed_repeat_fails_the_mean():
    status = np.array([[0, 2, 1], [0, 0, 0]], np.int8)
    value = np.where(status == 0, [[1.0, 2.0, 3.0]] * 2, -np.inf)
    estimator = Estimator(("a/0", "a/1", "a/2"), lambda key, candidates: Values(value, status, np.zeros(2)))
    averaged = ask(mean(estimator))
    assert averaged.value.tolist() == [[-np.inf], [2.0]] and averaged.status.tolist() == [[2], [0]]


def test_kept_weights_are_those_of_the_first_repeat(stand_ins, digits):
    """For the regions too, as in the released code of TE-NAS."""
    settings = replace(
        SMALL,
        ntk=replace(SMALL.ntk, repeats=2, fresh_weights=False),
        regions=replace(SMALL.regions, repeats=2),
    )
    ask(proxies(SPACE, ["ntk", "regions"], digits, settings))
    for subject in (KERNEL, REGIONS):
        draws = [(key, arrays[0]) for name, key, arrays, _ in stand_ins.calls if name == subject]
        assert len({str(jax.random.key_data(key)) for key, _ in draws}) == 1
        assert len({np.asarray(images).tobytes() for _, images in draws}) == 2


def test_gates_and_architectures_of_the_same_cells(stand_ins, digits):
    estimator = proxies(SPACE, ["ntk", "regions"], digits, SMALL)
    assert estimator.takes == ("architectures", "gates")
    assert proxies(SPACE, ["ntk", "params"], digits, SMALL).takes == ("architectures",)
    gates = np.asarray(SPACE.gates(CELLS))
    one, all = (estimator.evaluate(KEY, Candidates(gates=rows)) for rows in (gates[2:3], gates))
    np.testing.assert_array_equal(one.value[0], all.value[2])
    other = estimator.evaluate(jax.random.fold_in(KEY, 1), Candidates(gates=gates))
    assert (other.value[:, 0] != all.value[:, 0]).all()


def test_equivalent_architectures_are_measured_once_and_have_sizes_of_their_own(stand_ins, digits):
    estimator = proxies(SPACE, ["ntk", "params"], digits, SMALL)
    first = ask(estimator, TWINS[[0, 1, 0]])
    later = ask(estimator, TWINS[1:])
    assert stand_ins.rows == [("ntk", 1)]
    assert len(np.unique(first.value[:, 0])) == 1 and later.value[0].tolist() == first.value[1].tolist()
    assert first.value[0, 1] > first.value[1, 1] and first.value[0, 1] == first.value[2, 1]


def test_zico_takes_two_batches_and_the_others_their_first(stand_ins, digits):
    for names in (["snip"], ["snip", "zico"]):
        ask(proxies(SPACE, names, digits, SMALL))
    alone, both = ([np.asarray(a) for a in arrays] for _, _, arrays, _ in stand_ins.calls)
    assert alone[0].shape[:2] == (1, 4) and both[0].shape[:2] == (2, 4)
    np.testing.assert_array_equal(alone[0][0], both[0][0])
    np.testing.assert_array_equal(alone[1][0], both[1][0])
    assert {name for name, proxy in PROXIES.items() if proxy.batches == 2} == {"zico"}


def test_an_architecture_that_does_not_fit_costs_no_other(stand_ins, digits, monkeypatch):
    run = Program.__call__
    monkeypatch.setattr(
        Program, "__call__", lambda *a: [None if i == 1 else out for i, out in enumerate(run(*a))]
    )
    value, status, _ = ask(proxies(SPACE, ["ntk", "params"], digits, SMALL))
    assert status[:, 0].tolist() == [0, STATUSES.index("out_of_memory"), 0, 0, 0] and not status[:, 1].any()
    assert np.isinf(value[1, 0]) and np.isfinite(np.delete(value[:, 0], 1)).all()


def test_a_status_that_nobody_knows(digits, monkeypatch):
    def finish(measured, labels):
        return 1.0, "poor"

    StandIns(monkeypatch, {NETWORK: lambda row, draw, image: jnp.float32(1)})
    monkeypatch.setitem(PROXIES, "naswot", dataclasses.replace(PROXIES["naswot"], finish=finish))
    with pytest.raises(
        InputError, match="naswot: its finish gives the status 'poor': choose one of ok, not_finite"
    ):
        ask(proxies(SPACE, ["naswot"], digits, SMALL))
