"""The study of search: strategies of both kinds, signals, a cost, and curves counted by hand."""

import csv

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jnas import cli, spaces
from jnas.errors import InputError
from jnas.estimators import compact_table
from jnas.estimators.compact_table import Table
from jnas.estimators.tabular import tabular
from jnas.run import loop
from jnas.strategies import STRATEGIES, pareto
from jnas.studies import objectives, search_text, searching

SPACE = spaces.get("nasbench201")
CELLS = SPACE.all()
CONVOLUTIONS = (CELLS == 3).sum(axis=1)


@pytest.fixture(scope="module")
def hill(tmp_path_factory):
    """A CSV of the whole space: accuracy counts convolutions of 3x3, three runs differ, `early` is its negative."""
    path = tmp_path_factory.mktemp("table") / "hill.csv"
    lines = ["architecture,test_acc,test_acc_run0,test_acc_run1,test_acc_run2,early,latency"]
    for cell, count in zip(CELLS, CONVOLUTIONS, strict=True):
        accuracy = 60 + 5 * count
        runs = ",".join(str(accuracy + change) for change in (-1, 0, 1))
        lines.append(f"{SPACE.to_string(cell)},{accuracy},{runs},{90 - accuracy / 2},{1 + count}")
    path.write_text("\n".join(lines) + "\n")
    return path


def study(hill, out, *options):
    command = ["study", "--table", str(hill), "--out", str(out), *map(str, options)]
    code = cli.main([part if not part.startswith("--S.") else f"--search.{part[4:]}" for part in command])
    tables = []
    for name in ("study", "comparison"):
        if (out / f"{name}.csv").exists():
            with (out / f"{name}.csv").open() as stream:
                tables.append(list(csv.DictReader(stream)))
    return code, *tables


def test_strategies_with_settings_and_of_one_search_at_a_time(hill, tmp_path, capsys):
    code, rows, compared = study(
        hill, tmp_path / "run", "--S.strategies", "local,local initial=5,evolution children=8,draw candidates=6",
        "--S.seeds", 60, "--S.slow_seeds", 4, "--S.evaluations", 24,
    )  # fmt: skip
    assert code == 0
    names = {"random", "local", "local initial=5", "evolution children=8", "draw candidates=6"}
    assert {row["strategy"] for row in compared} == names and len(rows) == 5 * 24
    found = {row["strategy"]: row for row in compared}
    assert [found[name]["searches"] for name in ("random", "local", "evolution children=8")] == [
        "60",
        "60",
        "4",
    ]
    # The best has no chance against itself; ranks of all sum to 1 + ... + 5.
    assert [row["p_against_best"] == "" for row in compared] == [True, False, False, False, False]
    assert sum(float(row["rank"]) for row in compared) == pytest.approx(15)
    # Evolution asks for canonical cells, each once. Six cells are drawn, and then the search has ended.
    assert float(found["evolution children=8"]["distinct"]) == 24
    assert float(found["draw candidates=6"]["distinct"]) <= 6
    text = capsys.readouterr()
    assert "over 4 searches with equal keys" in text.out and "local search initial=5" in text.out
    assert "no significant difference" in text.out or "differs significantly" in text.out
    assert "searching: 188 done" in text.err


def test_a_list_of_strategies_in_yaml(hill, tmp_path):
    config = tmp_path / "study.yaml"
    config.write_text(
        "search:\n  seeds: 4\n  evaluations: 12\n  strategies:\n"
        "    - aging\n    - {name: aging, population: 4, tournament: 2, label: small}\n"
    )
    out = tmp_path / "run"
    assert cli.main(["study", str(config), "--table", str(hill), "--out", str(out)]) == 0
    with (out / "comparison.csv").open() as stream:
        assert {row["strategy"] for row in csv.DictReader(stream)} == {"random", "aging", "small"}
    assert "small" in (out / "report.html").read_text()


def test_signals(hill, tmp_path):
    """A search that sees the negative of the accuracy ends with bad cells, by its incumbent's true accuracy."""
    ends = {}
    for signal in ("training", "mean", "early"):
        code, _, compared = study(
            hill, tmp_path / signal, "--S.strategies", "random", "--S.seeds", 8, "--S.evaluations", 40,
            "--S.signal", signal,
        )  # fmt: skip
        assert code == 0
        ends[signal] = float(compared[0]["accuracy"])
    assert ends["mean"] > 70 and ends["training"] > 70 and ends["early"] == 60


def test_accuracy_against_a_cost(hill, tmp_path, capsys):
    code, *_ = study(
        hill, tmp_path / "run", "--S.strategies", "random", "--S.seeds", 6, "--S.evaluations", 40,
        "--S.cost", f"{hill}:latency",
    )  # fmt: skip
    assert code == 0
    with (tmp_path / "run" / "objectives.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["strategy"] for row in rows} == {
        "random search", "NSGA-II", "LEMONADE", "scalarised aging evolution"
    }  # fmt: skip
    for row in rows:
        assert 0 < float(row["hypervolume_low"]) <= float(row["hypervolume"]) <= 100 + 1e-6
    assert (tmp_path / "run" / "objectives.png").stat().st_size > 5000
    assert "hypervolume of accuracy against latency" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--S.strategies", "agings"], "did you mean 'aging'"),
        (["--S.strategies", "pruning"], "asks for gates"),
        (["--S.signal", "earli"], "lacks the column earli"),
        (["--S.cost", "latency"], "or FILE.csv:column"),
        (["--S.cost", "absent.csv:latency"], "no table 'absent.csv'"),
    ],
)
def test_faults(hill, options, fault, tmp_path, capsys):
    assert study(hill, tmp_path / "run", *options)[0] == 2
    assert fault in capsys.readouterr().err


def test_a_column_of_a_table_that_is_no_csv(tmp_path, capsys):
    assert study("digits", tmp_path / "run", "--S.signal", "early")[0] == 2
    assert "columns are those of a table that is a CSV" in capsys.readouterr().err


def test_searches_in_parts_are_those_of_the_loop(monkeypatch):
    """Seven searches, three at a time, by the compiled program and one after another."""
    monkeypatch.setattr(searching, "AT_ONCE", 3)
    accuracy = np.stack([60 + 5.0 * CONVOLUTIONS, 61 + 4.0 * CONVOLUTIONS], axis=1)[:, :, None]
    table = Table(
        SPACE.name, "x", CELLS, np.ones(1, np.int32), accuracy.astype(np.float32), np.ones(len(CELLS), np.float32)
    )  # fmt: skip
    estimator = tabular(table)
    strategy = STRATEGIES["local"](batch=2).make(SPACE, estimator.objectives, 15)
    keys = jax.random.split(jax.random.key(0), 7)
    counted = []
    found = [
        searching.searches(
            SPACE, make, estimator, keys, 15, lambda steps, preparing=False: counted.append(steps)
        )
        for make in (lambda budget: strategy, lambda budget: strategy._replace(jittable=False))
    ]
    assert counted == [3, 3, 1] + [1] * 7
    np.testing.assert_array_equal(found[0].numbers, found[1].numbers)
    np.testing.assert_array_equal(found[0].told, found[1].told)
    best = loop.run(strategy, lambda number, c: estimator.evaluate(keys[4], c), keys[4], budget=15).best
    assert SPACE.index(best) == found[0].numbers[4, found[0].told[4].argmax()]


def test_distinct_architectures_are_counted():
    counts = searching.distinct(np.array([[5, 5, 2, 5, 1], [3, 4, -1, -1, -1]]))
    np.testing.assert_array_equal(counts, [[1, 1, 2, 2, 3], [1, 2, 2, 2, 2]])
    values = np.array([[1.0, 2, 3, 4, 5], [6, 7, 7, 7, 7]])
    # The last value with one different architecture, with two; the median search met two.
    np.testing.assert_array_equal(searching.by_distinct(values, counts), [[2, 4], [6, 7]])


def test_shares_of_the_hypervolume():
    values = np.array([[0.0, 0], [1, 3], [3, 1], [2, 2]], np.float32)
    # The front is the last three, its corner (1, 1) moved to (0.8, 0.8).
    np.testing.assert_array_equal(objectives.front(values), [[3, 1], [2, 2], [1, 3]])
    np.testing.assert_allclose(objectives.reference(objectives.front(values)), [0.8, 0.8], rtol=1e-6)
    found = objectives.shares(values, np.array([[3, 0, 1, 2], [0, 0, 2, 2]]), np.array([1, 4]))
    whole = 2.2 * 0.2 + 1.2 * 1.0 + 0.2 * 1.0
    np.testing.assert_allclose(
        found, 100 / whole * np.array([[1.44, whole], [0, 2.2 * 0.2]]), rtol=1e-5, atol=1e-5
    )


@limits(deadline=None, max_examples=40)
@given(arrays(np.float32, st.tuples(st.integers(1, 12), st.just(2)), elements=st.integers(0, 4).map(float)))
def test_the_front_by_a_sort_is_that_by_all_pairs(values):
    expected = np.unique(values[np.asarray(pareto.front(jnp.asarray(values)))], axis=0)
    np.testing.assert_array_equal(objectives.front(values)[::-1], expected)


def test_costs_of_sizes_and_of_columns(hill, tmp_path):
    counted = objectives.costs(SPACE, "params", np.ones(len(CELLS), bool))
    # More convolutions, more parameters.
    few, many = (counted[count == CONVOLUTIONS].mean() for count in (0, 6))
    assert few < many and counted.shape == (len(CELLS),)
    np.testing.assert_array_equal(
        objectives.costs(SPACE, f"{hill}:latency", CELLS[:, 0] > 0), 1.0 + CONVOLUTIONS
    )
    part = tmp_path / "part.csv"
    part.write_text("".join(hill.read_text().splitlines(keepends=True)[:11]))
    with pytest.raises(InputError, match=r"lacks \d+ architectures"):
        objectives.costs(SPACE, f"{part}:latency", np.ones(len(CELLS), bool))
    table = compact_table.from_csv(hill, SPACE.name, "early")
    assert table.accuracy.shape == (len(CELLS), 1, 1)


def test_what_is_said_of_differences():
    accuracy = {"a": np.array([[80.0, 90], [81, 92]]), "b": np.array([[80.0, 91], [81, 91]])}
    text = search_text.differences({**accuracy, "c": np.array([[90.0, 95], [91, 96]])}, "b", 97.0, 2)
    assert text.startswith("After 2 evaluations c is at 95.50 % (of 97.00 %")
    assert (
        "From b differ, in percentage points, c by +4.50 ± 0.98 (where that ends after 2 evaluations)."
        in text
    )
    assert "Within their 95 % intervals of it are a by +0.00 ± 1.96." in text
    text = search_text.tests({"NSGA-II": (1.2, None), "b": (2.1, 0.0001), "c": (2.7, 0.3)}, 0.004, 30)
    assert "over 30 searches with equal keys are NSGA-II 1.20, b 2.10, c 2.70" in text
    assert "differ by more than chance (Friedman, p = 0.004)" in text
    assert "NSGA-II differs significantly from b (" in text and "correction, p < 0.001)" in text
    assert text.endswith("It cannot be told from c (p = 0.3): no significant difference.")
    assert "may differ by chance alone" in search_text.tests({"a": (1.0, None), "b": (2.0, 0.9)}, 0.5, 3)
