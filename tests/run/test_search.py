"""The search as a whole: once for real, on the table by the command line, and with stand-ins for compiled scores."""

import json
import math
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from measure import StandIns, diagonal, hundreds, weighed
from nasbench201_networks import sizes

import jnas
from jnas import cli, spaces
from jnas.config.search import from_mapping
from jnas.estimators.compact_table import open_table
from jnas.nets.sizes import Macro
from jnas.proxies.base import KERNEL, NETWORK, REGIONS
from jnas.report.report import write_report
from jnas.run import search, train
from jnas.run.progress import Progress
from jnas.run.score import score
from jnas.store.records import Records, read_records
from jnas.strategies import pruning

SPACE = spaces.get("nasbench201")
QUIET = Progress(quiet=True)
TIMES = ("seconds", "search_seconds")


def without_times(result: dict) -> dict:
    return {key: value for key, value in result.items() if key not in TIMES}


def stored_result(folder) -> dict:
    return json.loads((folder / "result.json").read_text())


def test_the_result_of_a_search(tiny_run, tiny):
    folder, result = tiny_run
    # JSON has no infinity.
    # JSON has no nan.
    assert stored_result(folder) == json.loads(json.dumps(result), parse_constant=lambda name: None)
    assert set(result) == {
        "kind", "format", "jnas", "space", "strategy", "estimator", "protocol", "seed", "data", "architecture",
        "seconds", "search_seconds", "evaluations", "paid", "rounds", "posterior", "scores", "training", "table",
    }  # fmt: skip
    assert result["jnas"] == jnas.__version__ and result["table"] is result["posterior"] is None
    assert [result[key] for key in ("space", "strategy", "estimator", "protocol", "seed", "data")] == [
        "nasbench201", "pruning", "ntk/0,regions/0", "paper", 0, "digits",
    ]  # fmt: skip
    assert 0 < result["search_seconds"] < result["seconds"]
    assert result["evaluations"] == 25 + 19 + 13
    assert SPACE.to_string(SPACE.from_string(result["architecture"])) == result["architecture"]


def test_the_rounds_of_a_search(tiny_run):
    _, result = tiny_run
    left = [set(SPACE.operations) - {"none"} for _ in SPACE.edges]
    assert [len(entry["candidates"]) for entry in result["rounds"]] == [24, 18, 12]
    for number, entry in enumerate(result["rounds"]):
        assert entry["round"] == number and set(entry) == {"round", "candidates", "supernet"}
        assert set(entry["supernet"]) == {"ntk/0", "regions/0"}
        for candidate in entry["candidates"]:
            assert set(candidate) == {
                "cell", "edge", "source", "target", "operation", "ntk_change", "regions_change", "ntk_rank",
                "regions_rank", "pruned",
            }  # fmt: skip
            assert (candidate["source"], candidate["target"]) == SPACE.edges[candidate["edge"]]
            assert candidate["operation"] in left[candidate["edge"]]
        for candidate in entry["candidates"]:
            if candidate["pruned"]:
                left[candidate["edge"]].remove(candidate["operation"])
    found = SPACE.from_string(result["architecture"])
    assert [names.pop() for names in left] == [SPACE.operations[choice] for choice in found]


def test_the_scores_and_the_training_of_a_search(tiny_run):
    _, result = tiny_run
    scores, training = result["scores"], result["training"]
    assert len(scores["random"]) == len(training["random"]) == 1 and training["epochs"] == 2
    assert scores["found"]["architecture"] == training["found"]["architecture"] == result["architecture"]
    assert scores["random"][0]["architecture"] == training["random"][0]["architecture"]
    for row in (scores["found"], *scores["random"]):
        assert set(row) == {"architecture", "ntk", "regions", "params", "flops", "convs"}
        cell, macro = SPACE.from_string(row["architecture"]), Macro(2, 1, 3, (8, 8, 1), 10)
        assert row["params"] == sizes(cell, macro).params / 1e6
        assert row["flops"] == sizes(cell, macro).flops / 1e6
        assert row["convs"] == sizes(cell).convs
        assert 1 <= row["regions"] <= 50 and (row["ntk"] is None or row["ntk"] >= 1)
    for row in (training["found"], *training["random"]):
        assert set(row) == {"architecture", "test_accuracy", "test_accuracy_by_epoch", "train_loss_by_epoch"}
        assert len(row["test_accuracy_by_epoch"]) == len(row["train_loss_by_epoch"]) == 2
        assert row["test_accuracy"] == row["test_accuracy_by_epoch"][-1]


def test_every_evaluation_is_recorded(tiny_run):
    folder, result = tiny_run
    records = read_records(folder / "records.sqlite")
    counts = {}
    for record in records:
        name = record.objective.partition("/")[0]
        counts[record.stage, name] = counts.get((record.stage, name), 0) + 1
    assert counts == {
        ("search", "ntk"): 57, ("search", "regions"): 57, ("compare", "ntk"): 2, ("compare", "regions"): 2,
        ("training", "test_accuracy"): 4, ("training", "train_loss"): 4,
    }  # fmt: skip
    # The pruned operations follow from the records alone.
    state = pruning.init(SPACE)
    while not pruning.finished(state):
        values = np.array(
            [
                [
                    r.value
                    for r in records
                    if (r.stage, r.round, r.objective) == ("search", state.round, f"{proxy}/0")
                ]
                for proxy in ("ntk", "regions")
            ]
        ).T
        state, _ = pruning.prune(state, pruning.improvements(values, ("ntk/0", "regions/0")))
    assert SPACE.to_string(pruning.result(state)) == result["architecture"]
    assert all(r.subject.startswith(f"round {r.round}, gates ") for r in records if r.stage == "search")
    assert result["seconds"] == pytest.approx(sum(r.seconds for r in records))


def test_the_files_of_a_search(tiny_run, tmp_path):
    folder = shutil.copytree(tiny_run[0], tmp_path / "run")
    report = write_report(folder)
    assert report == folder / "report.html" and report.stat().st_size > 1000
    names = {path.name for path in folder.iterdir()}
    assert {"config.yaml", "records.sqlite", "result.json", "report.html", "log.txt"} <= names


def test_a_finished_search_evaluates_nothing(tiny_run, tiny, tmp_path, monkeypatch):
    folder = shutil.copytree(tiny_run[0], tmp_path / "run")
    monkeypatch.setattr(Records, "add", None)
    monkeypatch.setattr(train, "train_network", None)
    assert search.run(from_mapping(tiny), folder, QUIET) == tiny_run[1]


@pytest.fixture
def stand_ins(monkeypatch):
    return StandIns(monkeypatch, {KERNEL: diagonal, REGIONS: hundreds, NETWORK: weighed})


SMALL = {"ntk": {"batch": 4}, "regions": {"inputs": 50}}


def run(folder, **sections):
    """A search without training, cheap but for its scores."""
    base = {"estimator": SMALL, "compare": {"random_cells": 2}}
    return search.run(from_mapping({**base, **sections}), folder, QUIET)


def draws(stand_ins, subject):
    """(key, images) of each draw, as bytes."""
    return [
        (np.asarray(jax.random.key_data(key)).tobytes(), np.asarray(arrays[0]).tobytes())
        for name, key, arrays, _ in stand_ins.calls
        if name == subject
    ]


def shapes(stand_ins, subject):
    return {arrays[0].shape for name, _, arrays, _ in stand_ins.calls if name == subject}


def initialisations(stand_ins):
    return {settings.ntk.initialisation for *_, settings in stand_ins.calls}


def test_the_paper_protocol_draws_new_weights_in_each_repeat(stand_ins, tmp_path):
    result = run(tmp_path)
    # Three rounds and the comparison, each with three repeats: no two share weights or images.
    for subject in (KERNEL, REGIONS):
        keys, images = zip(*draws(stand_ins, subject), strict=True)
        assert len(set(keys)) == len(set(images)) == len(keys) == 12
    assert initialisations(stand_ins) == {"kaiming_normal"}
    assert sum(count for name, count in stand_ins.rows if name == "ntk") == 3 * (25 + 19 + 13 + 3)
    assert shapes(stand_ins, KERNEL) == {(4, 8, 8, 1)} and shapes(stand_ins, REGIONS) == {(50, 3, 3, 1)}
    assert result["training"] is None and len(result["scores"]["random"]) == 2
    assert all({"ntk/0", "ntk/1", "ntk/2"} <= set(entry["supernet"]) for entry in result["rounds"])


def test_the_released_protocol_keeps_its_weights(stand_ins, tmp_path):
    result = run(tmp_path, protocol="released")
    for subject in (KERNEL, REGIONS):
        keys, images = zip(*draws(stand_ins, subject), strict=True)
        assert [len(set(keys[start : start + 3])) for start in range(0, 12, 3)] == [1, 1, 1, 1]
        assert len(set(images)) == 12
    assert initialisations(stand_ins) == {"pytorch_default"}
    changes = [c["ntk_change"] for entry in result["rounds"] for c in entry["candidates"]]
    # Means of three changes with three decimals.
    assert all(abs(3000 * change - round(3000 * change)) < 0.1 for change in changes)


def test_another_seed_is_another_search(stand_ins, tmp_path):
    runs = [run(tmp_path / str(name), seed=seed) for name, seed in enumerate((1, 1, 2))]
    assert without_times(runs[0]) == without_times(runs[1])
    assert runs[0]["rounds"] != runs[2]["rounds"]
    assert runs[0]["scores"]["random"] != runs[2]["scores"]["random"]


def test_repeats_operations_and_whole_images(stand_ins, tmp_path):
    result = run(
        tmp_path,
        estimator={"ntk": {"batch": 4, "repeats": 1}, "regions": {"inputs": 50, "repeats": 2, "crop": 0}},
        strategy={"operations_per_round": 2},
        compare={"random_cells": 0},
    )
    assert [len(entry["candidates"]) for entry in result["rounds"]] == [24, 12]
    assert [sum(c["pruned"] for c in entry["candidates"]) for entry in result["rounds"]] == [12, 6]
    assert len(draws(stand_ins, KERNEL)) == 3 and len(draws(stand_ins, REGIONS)) == 6
    assert shapes(stand_ins, REGIONS) == {(50, 8, 8, 1)}
    assert result["scores"]["random"] == [] and result["training"] is None


def test_scores_that_are_no_numbers_stop_nothing(monkeypatch, tmp_path):
    def some_bad(row, draw, image):
        # Without a 3x3 convolution on the first edge the kernel is singular, on the second it is not finite.
        kernel = diagonal(row, draw, image)
        row = row.reshape(-1)
        kernel = jnp.where(row[3] > 0, kernel, 0.0)
        return jnp.where(row[8] > 0, kernel, jnp.nan)

    StandIns(monkeypatch, {KERNEL: some_bad, REGIONS: hundreds})
    result = run(tmp_path)
    first = result["rounds"][0]["candidates"]
    # Without these the condition number fails: they are the last to go.
    needed = [c["ntk_rank"] for c in first if c["ntk_change"] == -math.inf]
    assert len(needed) == 2 and set(needed) == {max(c["ntk_rank"] for c in first)}
    records = read_records(tmp_path / "records.sqlite")
    assert {r.status for r in records if r.objective == "ntk/0"} == {"ok", "singular", "not_finite"}
    assert all(r.value == -math.inf for r in records if r.status != "ok")
    stored = stored_result(tmp_path)
    run(tmp_path)
    assert stored_result(tmp_path) == stored


def test_the_found_cell_is_looked_up(stand_ins, tmp_path):
    found = run(tmp_path / "a")["architecture"]
    table, (better, worse) = tmp_path / "table.csv", map(SPACE.to_string, SPACE.all()[[9000, 15000]])
    table.write_text(f"architecture,test_acc\n{found},90.5\n{better},93\n{worse},10\n")
    result = run(tmp_path / "b", table=str(table))
    assert result["table"] == {"test_accuracy": 90.5, "better": 1, "size": 3, "best": 93.0}
    table.write_text(f"architecture,test_acc\n{better},93\n")
    assert run(tmp_path / "b", table=str(table))["table"] is None
    assert f"the table does not hold the best architecture, {found}" in (tmp_path / "b/log.txt").read_text()


def values(folder, stage, objective):
    """Value of each subject of a stage, higher is better."""
    return {
        r.subject: r.value
        for r in read_records(folder / "records.sqlite")
        if (r.stage, r.objective) == (stage, objective)
    }


def test_an_architecture_has_the_value_that_scoring_gives_it(stand_ins, tmp_path):
    """With one seed, in the search and in its comparison."""
    result = run(
        tmp_path, seed=5, compare={"random_cells": 1}, strategy={"name": "draw", "candidates": 6},
        estimator={"name": "proxies", "proxies": "ntk,grad_norm", **SMALL},
    )  # fmt: skip
    for name, direction in (("ntk", -1), ("grad_norm", 1)):
        known = values(tmp_path, "search", name)
        scores = score("nasbench201", list(known), [name], seed=5, settings=SMALL, progress=QUIET)
        assert len(known) == 6
        np.testing.assert_array_equal(direction * scores[name], list(known.values()))
    rows = [result["scores"]["found"], *result["scores"]["random"]]
    cells = [row["architecture"] for row in rows]
    scores = score("nasbench201", cells, ["ntk", "regions"], seed=5, settings=SMALL, progress=QUIET)
    for name in ("ntk", "regions"):
        np.testing.assert_array_equal(scores[name], [row[name] for row in rows])


def test_a_final_evaluates_the_best_again(stand_ins, tmp_path):
    result = run(
        tmp_path,
        strategy={"name": "evolution", "children": 4, "parents": 2},
        budget=8,
        estimator={"name": "proxies", "proxies": "ntk", **SMALL},
        final={"candidates": 3, "repeats": 2, "estimator": {"proxies": "grad_norm"}},
        compare="none",
    )
    first = values(tmp_path, "search", "ntk")
    repeats = [values(tmp_path, "final", f"grad_norm/{repeat}") for repeat in range(2)]
    assert set(repeats[0]) == set(sorted(first, key=first.get)[-3:])
    # Each repeat has weights and images of its own.
    assert set(repeats[0].values()).isdisjoint(repeats[1].values())
    assert result["architecture"] == max(repeats[0], key=lambda text: repeats[0][text] + repeats[1][text])
    assert result["evaluations"] == 8 + 2 * 3 and result["scores"] is None
    assert "best of the final" in write_report(tmp_path).read_text()


def test_a_filter_chooses_among_draws(stand_ins, tmp_path):
    result = run(
        tmp_path, compare="none", strategy={"name": "draw", "candidates": 3}, estimator="table:digits",
        filter={"proxies": "grad_norm", "factor": 2},
    )  # fmt: skip
    scores, accuracy = values(tmp_path, "filter", "grad_norm"), values(tmp_path, "search", "accuracy")
    chosen = {SPACE.to_string(SPACE.canonical(SPACE.from_string(text))) for text in accuracy}
    assert len(scores) == 6 and chosen == set(sorted(scores, key=scores.get)[-3:])
    assert result["architecture"] == max(accuracy, key=accuracy.get) and result["evaluations"] == 3


def test_the_command_line_needs_no_file(tmp_path, capsys):
    words = ["search", "--strategy", "random", "--estimator", "table:digits", "--budget", "20", "--out"]
    assert cli.main([*words, str(tmp_path)]) == 0
    out, result = capsys.readouterr().out, stored_result(tmp_path)
    known, table = values(tmp_path, "search", "accuracy"), open_table("digits")
    assert result["architecture"] == max(known, key=known.get) and result["architecture"] in out
    assert (result["strategy"], result["estimator"], result["evaluations"]) == ("random", "accuracy", 20)
    for text, value in known.items():
        (row,) = table.rows(SPACE.from_string(text)[None])
        assert value in table.accuracy[row, :, -1]
    before = read_records(tmp_path / "records.sqlite")
    assert cli.main([*words, str(tmp_path)]) == 0
    assert capsys.readouterr().out == out and read_records(tmp_path / "records.sqlite") == before
