"""What a chunk of architectures is worth: compiled once and small, and stand-ins where memory is short."""

import itertools
import logging
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnas import data as datasets
from jnas import spaces
from jnas.config.score import from_mapping
from jnas.data.base import dataset as make_dataset
from jnas.errors import InputError
from jnas.proxies import PROXIES, batch
from jnas.run import scoring
from jnas.run.scoring import check, chunk_scorer, chunk_size, sizes

SPACE = spaces.get("nasbench201")
NETWORK = {"channels": 1, "cells_per_stage": 1, "batch": 4}
SMALL = {"network": NETWORK, "ntk": {"batch": 4, "channels": 1}, "regions": {"inputs": 30}}


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits")


# ----------------------------------------------------------------------------------------------------- settings


def test_defaults():
    config = from_mapping({})
    assert (config.space, config.data, config.seed, config.memory_gb) == ("nasbench201", "digits", 0, 0.0)
    assert (config.network.batch, config.network.channels, config.network.cells_per_stage) == (64, 16, 5)
    assert (config.ntk.batch, config.ntk.repeats, config.regions.repeats) == (32, 1, 1)
    of_darts = from_mapping({"space": "darts", "network": {"batch": 8}})
    assert (of_darts.ntk.channels, of_darts.ntk.repeats, of_darts.network.cells_per_stage) == (1, 1, 1)
    assert from_mapping({"space": "darts", "network": {"cells_per_stage": 2}}).network.cells_per_stage == 2


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
    check(from_mapping(fits), ["naswot", "zico", "ntk", "regions", "params"], few)
    with pytest.raises(InputError, match=message):
        check(from_mapping({**fits, **change}), proxies, few)
    # What nobody asks for need not fit.
    check(from_mapping({**fits, **change}), ["params"], few)


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
    found = sizes(config, digits, cells)
    assert found["params"].tolist() == [count(cell) for cell in cells]
    assert found["convs"].tolist() == np.isin(cells, (2, 3)).sum(1).tolist()
    # On images of 8x8, 4x4 and 2x2, with a classifier of 12 inputs and 10 outputs; a cell of none has no more.
    stem, blocks = 9 * 3 * 64, (9 * 3 * 6 + 9 * 6 * 6 + 3 * 6) * 16 + (9 * 6 * 12 + 9 * 12 * 12 + 6 * 12) * 4
    assert found["flops"][0] == stem + blocks + 12 * 10 + 10


# ------------------------------------------------------------------------------------------- one compiled chunk


def equal(left: scoring.SCORES, right: scoring.SCORES) -> bool:
    """To the last bit, statuses as well."""
    return left.keys() == right.keys() and all(
        left[name][0].tobytes() == right[name][0].tobytes() and list(left[name][1]) == list(right[name][1])
        for name in left
    )


def part(scores: scoring.SCORES, rows) -> scoring.SCORES:
    return {
        name: (values[rows], [statuses[row] for row in rows]) for name, (values, statuses) in scores.items()
    }


def test_a_score_depends_on_the_architecture_alone(digits):
    proxies = ["regions", "swap", "convs", "naswot"]
    score = chunk_scorer(from_mapping(SMALL), proxies, digits)
    size = chunk_size(jax.local_devices())
    cells = np.random.default_rng(0).integers(0, 5, (size, 6)).astype(np.int32)
    cells[-1] = 0
    full = score(cells)
    assert list(full) == proxies
    for values, statuses in full.values():
        assert values.dtype == np.float64 and len(values) == len(statuses) == size
        assert [status == "ok" for status in statuses] == np.isfinite(values).tolist()
    assert len(set(full["naswot"][0])) > size // 2
    assert full["convs"][0].tolist() == np.isin(cells, (2, 3)).sum(1).tolist()

    # Not on the others in the chunk, nor on its place among them, nor on how many there are.
    order = np.random.default_rng(1).permutation(size)
    assert equal(score(cells[order]), part(full, order))
    assert equal(score(cells[3:5]), part(full, [3, 4]))
    # Nor on the other proxies of the same kind, nor on when it was compiled.
    alone = chunk_scorer(from_mapping(SMALL), ["naswot"], digits)(cells)
    assert equal(alone, {"naswot": full["naswot"]})


# ------------------------------------------------------------------------------------------- without a compiler


@dataclass
class Call:
    """One run of the stand-in's program."""

    key: Any
    edges: np.ndarray
    images: np.ndarray
    labels: np.ndarray
    width: int


@pytest.fixture
def measure(monkeypatch):
    """Puts a function of `Call` in the place of the network's compiled program; gives the list of its calls.

    `compile` is told the width before anything runs; an architecture takes `memory` bytes.
    """

    def install(function, compile=lambda width: None, memory=0):
        calls: list[Call] = []

        def lower(key, choices, images, labels, *, proxies, width, **options):
            def run(key, choices, images, labels):
                call = Call(key, *(np.asarray(array) for array in (choices[:, 0], images, labels)), width)
                calls.append(call)
                return dict.fromkeys(
                    (proxy.name for proxy in proxies), jnp.asarray(function(call), jnp.float32)
                )

            def compiled():
                compile(width)
                run.memory_analysis = lambda: SimpleNamespace(temp_size_in_bytes=memory * width)
                return run

            return SimpleNamespace(compile=compiled)

        monkeypatch.setattr(batch, "network_measurements", SimpleNamespace(lower=lower))
        return calls

    return install


def code(edges: np.ndarray) -> np.ndarray:
    """A number of its own for each cell."""
    return (edges @ 5 ** np.arange(6)).astype(np.float32)


CELLS = np.random.default_rng(3).permutation(SPACE.all())[:5]


def test_a_chunk_is_filled_up(digits, measure):
    calls = measure(lambda call: code(call.edges))
    size = chunk_size(jax.local_devices())
    score = chunk_scorer(from_mapping(SMALL), ["synflow", "params"], digits)
    for count in (1, 3, 5):
        values, statuses = score(CELLS[:count])["synflow"]
        assert values.tolist() == code(CELLS[:count]).tolist() and statuses == ["ok"] * count
    assert {call.edges.shape for call in calls} == {(size, 6)}


def test_as_many_as_promised_fit(digits, measure):
    measure(lambda call: code(call.edges))
    size = chunk_size(jax.local_devices())
    cells = SPACE.all()[1000 : 1000 + size]
    assert (
        chunk_scorer(from_mapping(SMALL), ["snip"], digits)(cells)["snip"][0].tolist() == code(cells).tolist()
    )


def test_repeats_have_images_of_their_own_and_are_averaged(digits, measure):
    calls = measure(lambda call: code(call.edges) + np.float32(call.images.sum() > 0))
    config = from_mapping({**SMALL, "network": {**NETWORK, "repeats": 3}})
    values, _ = chunk_scorer(config, ["synflow"], digits)(CELLS)["synflow"]
    drawn = [call.images for call in calls]
    assert len({str(jax.random.key_data(call.key)) for call in calls}) == 3
    assert len(drawn) == 3 and all((a != b).any() for a, b in itertools.combinations(drawn, 2))
    extra = np.mean([float(images.sum() > 0) for images in drawn])
    np.testing.assert_allclose(values, code(CELLS) + extra, rtol=1e-12)
    # The first is what a single repeat looks at.
    calls.clear()
    chunk_scorer(from_mapping(SMALL), ["synflow"], digits)(CELLS)
    np.testing.assert_array_equal(calls[0].images, drawn[0])


def test_only_zico_takes_two_batches_and_the_first_stays_the_same(digits, measure):
    calls = measure(lambda call: code(call.edges))
    chunk_scorer(from_mapping(SMALL), ["synflow"], digits)(CELLS)
    chunk_scorer(from_mapping(SMALL), ["zico"], digits)(CELLS)
    one, two = (call.images for call in calls)
    assert one.shape == (1, 4, 8, 8, 1) and two.shape == (2, 4, 8, 8, 1)
    np.testing.assert_array_equal(one[0], two[0])
    # Different images, all of them training images.
    rows = two.reshape(8, -1)
    assert len(np.unique(rows, axis=0)) == 8
    known = (digits.x_train - digits.mean) / digits.std
    distances = np.abs(rows[:, None] - known.reshape(1, len(known), -1)).max(-1).min(1)
    assert distances.max() < 1e-5


def test_weights_and_images_follow_the_seed(digits, measure):
    calls = measure(lambda call: code(call.edges))
    for seed in (0, 1, 0):
        chunk_scorer(from_mapping({**SMALL, "seed": seed}), ["snip"], digits)(CELLS)
    keys, images = [str(jax.random.key_data(call.key)) for call in calls], [call.images for call in calls]
    assert keys[0] == keys[2] != keys[1]
    np.testing.assert_array_equal(images[0], images[2])
    assert (images[0] != images[1]).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_failure_is_a_value_and_stays_one_through_repeats(digits, measure, bad):
    rounds = itertools.count()

    def function(call):
        values = code(call.edges)
        # One architecture fails in the second round alone.
        if next(rounds) == 1:
            values[1] = bad
        return values

    measure(function)
    config = from_mapping({**SMALL, "network": {**NETWORK, "repeats": 3}})
    values, statuses = chunk_scorer(config, ["snip"], digits)(CELLS)["snip"]
    assert statuses == ["ok", "not_finite", "ok", "ok", "ok"]
    np.testing.assert_array_equal(values[1], bad)
    assert values[[0, 2, 3, 4]].tolist() == code(CELLS)[[0, 2, 3, 4]].tolist()


# --------------------------------------------------------------------------------------------------------- memory


def exhausted():
    return jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 123456789 bytes.")


@pytest.mark.parametrize("error", [exhausted, MemoryError], ids=["device", "host"])
def test_too_many_side_by_side_are_tried_with_fewer(digits, measure, monkeypatch, caplog, error):
    """As on an accelerator: the width is halved until it fits, and stays there."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")

    def function(call):
        if call.width > 2:
            raise error()
        return code(call.edges)

    calls = measure(function)
    score = chunk_scorer(from_mapping(SMALL), ["synflow", "params"], digits)
    with caplog.at_level(logging.WARNING, "jnas"):
        first = score(CELLS)["synflow"]
    assert first[0].tolist() == code(CELLS).tolist() and first[1] == ["ok"] * 5
    assert any("out of memory" in record.message for record in caplog.records)
    tried = [call.width for call in calls]
    assert tried[0] > 2 >= tried[-1] and tried == sorted(tried, reverse=True)
    calls.clear()
    assert score(CELLS)["synflow"][0].tolist() == code(CELLS).tolist()
    assert {call.width for call in calls} == {tried[-1]}


def test_a_width_that_cannot_even_be_compiled_is_halved(digits, measure, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")

    def compile(width):
        if width > 2:
            raise exhausted()

    calls = measure(lambda call: code(call.edges), compile)
    values, statuses = chunk_scorer(from_mapping(SMALL), ["snip"], digits)(CELLS)["snip"]
    assert values.tolist() == code(CELLS).tolist() and statuses == ["ok"] * 5
    assert [call.width for call in calls] == [2]


def test_memory_that_another_process_lacks_is_lacking_here(digits, measure, monkeypatch):
    """Several processes run one program: they try again together, and with the least of their memory."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    calls = measure(lambda call: code(call.edges), memory=10**6)

    def everyone(said):
        if not isinstance(said, list):
            return [said, 0.016e9]
        # The other one's rows come after those here, and are none.
        return [said, None if calls[-1].width > 4 else []]

    score = chunk_scorer(from_mapping({**SMALL, "memory_gb": 0.064}), ["snip"], digits, everyone)
    assert score(CELLS)["snip"][0].tolist() == code(CELLS).tolist()
    assert [call.width for call in calls] == [16, 8, 4]


@pytest.mark.parametrize("memory_gb, width", [(0.05, 32), (0.064, 64), (0.001, 1), (0.0005, 1), (100, 256)])
def test_the_width_fits_the_memory_that_was_given(digits, measure, monkeypatch, memory_gb, width):
    """An architecture takes a megabyte; widths are powers of two up to the rows of a chunk."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    calls = measure(lambda call: code(call.edges), memory=10**6)
    score = chunk_scorer(from_mapping({**SMALL, "memory_gb": memory_gb}), ["snip"], digits)
    for _ in range(2):
        assert score(CELLS)["snip"][0].tolist() == code(CELLS).tolist()
    assert [call.width for call in calls] == [width] * 2


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_an_architecture_too_large_by_itself_is_recorded_and_the_others_are_not(
    digits, measure, monkeypatch, backend
):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    large = {tuple(CELLS[1]), tuple(CELLS[4])}

    def function(call):
        if any(tuple(row) in large for row in call.edges):
            raise exhausted()
        return code(call.edges)

    measure(function)
    score = chunk_scorer(from_mapping(SMALL), ["synflow", "snip", "convs"], digits)
    scores = score(CELLS)
    for name in ("synflow", "snip"):
        values, statuses = scores[name]
        assert statuses == ["ok", "out_of_memory", "ok", "ok", "out_of_memory"]
        assert np.isnan(values[[1, 4]]).all()
        assert values[[0, 2, 3]].tolist() == code(CELLS)[[0, 2, 3]].tolist()
    assert scores["convs"][1] == ["ok"] * 5


def test_where_nothing_fits_everything_is_recorded(digits, measure):
    def function(call):
        raise exhausted()

    measure(function)
    values, statuses = chunk_scorer(from_mapping(SMALL), ["snip"], digits)(CELLS)["snip"]
    assert statuses == ["out_of_memory"] * 5 and np.isnan(values).all()


@pytest.mark.parametrize(
    "error", [jax.errors.JaxRuntimeError("INTERNAL: a bug"), ZeroDivisionError("by zero")], ids=repr
)
def test_other_errors_are_not_taken_for_a_lack_of_memory(digits, measure, error):
    def function(call):
        raise error

    calls = measure(function)
    with pytest.raises(type(error), match=str(error)):
        chunk_scorer(from_mapping(SMALL), ["snip"], digits)(CELLS)
    assert len(calls) == 1


def test_every_proxy_belongs_to_a_program():
    assert {proxy.subject for proxy in PROXIES.values()} <= {"network", "kernel", "regions", "size"}
    for name, proxy in PROXIES.items():
        assert name == proxy.name and proxy.sign in (1, -1)
        assert (proxy.measure is not None) == (proxy.subject == "network")
