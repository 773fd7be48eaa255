"""The search as a whole: once for real, and many times with stand-ins for the two compiled scores."""

import json
import math
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jnas
from jnas import spaces
from jnas.config.old_search import from_mapping
from jnas.nets import cost
from jnas.proxies import ntk, regions
from jnas.report.report import write_report
from jnas.run import search
from jnas.run import training as study_training
from jnas.run.progress import Progress
from jnas.store.records import Records, read_records
from jnas.strategies import old_pruning as pruning

SPACE = spaces.get("nasbench201")
QUIET = Progress(quiet=True)
TIMES = ("seconds", "search_seconds")


def without_times(result: dict) -> dict:
    return {key: value for key, value in result.items() if key not in TIMES}


def stored_result(folder) -> dict:
    return json.loads((folder / "result.json").read_text())


def test_the_result_of_a_search(tiny_run, tiny):
    folder, result = tiny_run
    assert stored_result(folder) == result
    assert set(result) == {
        "jnas", "space", "strategy", "protocol", "seed", "data", "architecture", "seconds", "search_seconds",
        "evaluations", "rounds", "generations", "posterior", "scores", "training", "table",
    }  # fmt: skip
    assert result["jnas"] == jnas.__version__ and result["table"] is None
    assert [result[key] for key in ("space", "strategy", "protocol", "seed", "data")] == [
        "nasbench201", "pruning", "paper", 0, "digits",
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
        cell, macro = SPACE.from_string(row["architecture"]), cost.Macro(2, 1, 3, (8, 8, 1), 10)
        assert row["params"] == cost.params(cell, macro) / 1e6
        assert row["flops"] == cost.flops(cell, macro) / 1e6
        assert row["convs"] == cost.convs(cell)
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
        counts[record.stage, record.proxy] = counts.get((record.stage, record.proxy), 0) + 1
    assert counts == {
        ("search", "ntk"): 57, ("search", "regions"): 57, ("compare", "ntk"): 2, ("compare", "regions"): 2,
        ("training", "test_accuracy"): 4, ("training", "train_loss"): 4,
    }  # fmt: skip
    # What was pruned follows from the records alone.
    state = pruning.init(SPACE)
    while not pruning.finished(state):
        scores = {
            proxy: np.array(
                [[r.value for r in records if (r.stage, r.round, r.proxy) == ("search", state.round, proxy)]]
            )
            for proxy in ("ntk", "regions")
        }
        state, _ = pruning.tell(state, scores["ntk"], scores["regions"])
    assert SPACE.to_string(pruning.result(state)) == result["architecture"]
    assert {r.subject for r in records if r.stage == "search" and r.candidate == 0} == {"supernet"}
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
    monkeypatch.setattr(study_training, "trainer", None)
    assert search.run(from_mapping(tiny), folder, QUIET) == tiny_run[1]


def test_an_interrupted_search_ends_as_if_it_had_not_been(tiny_run, tiny, tmp_path, monkeypatch):
    """Interrupted while scoring, then in the second epoch of a training, from which a checkpoint leads on."""
    folder, add = tmp_path / "run", Records.add
    monkeypatch.setattr(study_training, "CHECKPOINT_SECONDS", 0.0)
    config = from_mapping(tiny)
    for stops_at in (("search", 1, "regions"), ("training", 1, "train_loss")):

        def add_or_stop(records, evaluations, stops_at=stops_at):
            evaluations = list(evaluations)
            if (evaluations[0].stage, evaluations[0].round, evaluations[0].proxy) == stops_at:
                raise KeyboardInterrupt
            add(records, evaluations)

        monkeypatch.setattr(Records, "add", add_or_stop)
        with pytest.raises(KeyboardInterrupt):
            search.run(config, folder, QUIET)
        assert not (folder / "result.json").exists()
    monkeypatch.setattr(Records, "add", add)
    assert without_times(search.run(config, folder, QUIET)) == without_times(tiny_run[1])


@pytest.fixture
def stand_ins(monkeypatch):
    """Scores that are a function of key, gates and inputs; the calls that the search made."""
    calls = {"ntk": [], "regions": []}
    weights = np.random.default_rng(0).standard_normal((1, 6, 5))

    def note(proxy, key, gates, count, inputs, options):
        calls[proxy].append(
            {
                "key": jax.random.key_data(key).tolist(), "gates": np.asarray(gates), "count": int(count),
                "inputs": np.asarray(inputs), "options": options,
            }
        )  # fmt: skip
        spread = np.sin(np.asarray(gates) @ weights[0].T).sum((1, 2, 3)) + np.asarray(inputs).mean()
        return 2 + np.sin(spread + float(jax.random.uniform(key)))

    def kernels(key, gates, count, images, **options):
        values = note("ntk", key, gates, count, images, options)
        return jnp.asarray([np.diag([value, 1.0]) for value in values])

    def counts(key, gates, count, inputs, **options):
        return jnp.asarray(np.round(100 * note("regions", key, gates, count, inputs, options)))

    monkeypatch.setattr(ntk, "kernels", kernels)
    monkeypatch.setattr(regions, "counts", counts)
    return calls


def untrained(**sections) -> dict:
    """A configuration without training, cheap but for its scores."""
    base = {"ntk": {"batch": 4}, "regions": {"inputs": 50}, "training": {"epochs": 0, "random_cells": 2}}
    return {key: {**base.get(key, {}), **value} if isinstance(value, dict) else value
            for key, value in {**base, **sections}.items()}  # fmt: skip


def test_the_paper_protocol_draws_new_weights_in_each_repeat(stand_ins, tmp_path):
    result = search.run(from_mapping(untrained()), tmp_path, QUIET)
    # Three rounds and the comparison, each with three repeats: no two share weights or images.
    for proxy in ("ntk", "regions"):
        calls = stand_ins[proxy]
        assert len({str(call["key"]) for call in calls}) == len(calls) == 12
        assert len({call["inputs"].tobytes() for call in calls}) == 12
        assert {call["options"]["initialisation"] for call in calls} == {"kaiming_normal"}
        # One shape in all rounds: the programs compile once.
        assert {call["gates"].shape for call in calls} == {(25, 1, 6, 5)}
        assert [call["count"] for call in calls[::3]] == [25, 19, 13, 3]
    assert {call["inputs"].shape for call in stand_ins["ntk"]} == {(4, 8, 8, 1)}
    assert {call["inputs"].shape for call in stand_ins["regions"]} == {(50, 3, 3, 1)}
    assert result["training"] is None and len(result["scores"]["random"]) == 2
    assert all({"ntk/0", "ntk/1", "ntk/2"} <= set(entry["supernet"]) for entry in result["rounds"])


def test_the_released_protocol_keeps_its_weights(stand_ins, tmp_path):
    result = search.run(from_mapping(untrained(protocol="released")), tmp_path, QUIET)
    for proxy in ("ntk", "regions"):
        calls = stand_ins[proxy]
        keys = [str(call["key"]) for call in calls]
        assert [len(set(keys[start : start + 3])) for start in range(0, 12, 3)] == [1, 1, 1, 1]
        assert len({call["inputs"].tobytes() for call in calls}) == 12
        assert {call["options"]["initialisation"] for call in calls} == {"pytorch_default"}
    changes = [c["ntk_change"] for entry in result["rounds"] for c in entry["candidates"]]
    # Means of three changes with three decimals.
    assert all(abs(3000 * change - round(3000 * change)) < 0.1 for change in changes)


def test_another_seed_is_another_search(stand_ins, tmp_path):
    runs = [
        search.run(from_mapping(untrained(seed=seed)), tmp_path / str(name), QUIET)
        for name, seed in enumerate((1, 1, 2))
    ]
    assert without_times(runs[0]) == without_times(runs[1])
    assert runs[0]["rounds"] != runs[2]["rounds"]
    assert runs[0]["scores"]["random"] != runs[2]["scores"]["random"]


def test_repeats_operations_and_whole_images(stand_ins, tmp_path):
    config = untrained(
        ntk={"repeats": 1}, regions={"repeats": 2, "crop": 0}, prune={"operations_per_round": 2}
    )
    result = search.run(from_mapping(config), tmp_path, QUIET)
    assert [len(entry["candidates"]) for entry in result["rounds"]] == [24, 12]
    assert [sum(c["pruned"] for c in entry["candidates"]) for entry in result["rounds"]] == [12, 6]
    assert len(stand_ins["ntk"]) == 3 and len(stand_ins["regions"]) == 6
    assert {call["inputs"].shape for call in stand_ins["regions"]} == {(50, 8, 8, 1)}


def test_more_cells_than_one_program_takes(stand_ins, tmp_path):
    result = search.run(from_mapping(untrained(training={"random_cells": 30})), tmp_path, QUIET)
    assert len(result["scores"]["random"]) == 30
    assert [call["count"] for call in stand_ins["ntk"][-6:]] == [25, 6] * 3


def test_no_random_cells(stand_ins, tmp_path):
    result = search.run(from_mapping(untrained(training={"random_cells": 0})), tmp_path, QUIET)
    assert result["scores"]["random"] == []


def test_scores_that_are_no_numbers_stop_nothing(stand_ins, tmp_path, monkeypatch):
    kernels = ntk.kernels

    def some_bad(key, gates, count, images, **options):
        found = kernels(key, gates, count, images, **options)
        return found.at[1::3].set(0.0).at[2::3].set(jnp.nan)

    monkeypatch.setattr(ntk, "kernels", some_bad)
    result = search.run(from_mapping(untrained()), tmp_path, QUIET)
    assert result["scores"]["random"][0]["ntk"] == math.inf
    assert [row["ntk"] for row in stored_result(tmp_path)["scores"]["random"]] == [None, None]
    first = result["rounds"][0]["candidates"]
    # Without these the condition number fails: they are the last to go.
    needed = [c["ntk_rank"] for c in first if c["ntk_change"] == -math.inf]
    assert len(needed) == 16 and set(needed) == {max(c["ntk_rank"] for c in first)}
    statuses = {
        record.status for record in read_records(tmp_path / "records.sqlite") if record.proxy == "ntk"
    }
    assert statuses == {"ok", "inf", "nan"}
    stored = stored_result(tmp_path)
    search.run(from_mapping(untrained()), tmp_path, QUIET)
    assert stored_result(tmp_path) == stored


def test_the_found_cell_is_looked_up(stand_ins, tmp_path):
    found = search.run(from_mapping(untrained()), tmp_path / "a", QUIET)["architecture"]
    table = tmp_path / "table.csv"
    table.write_text(f"architecture,test_acc\n{found},90.5\nbetter,93\nworse,10\n")
    result = search.run(from_mapping(untrained(table=str(table))), tmp_path / "b", QUIET)
    assert result["table"] == {"test_accuracy": 90.5, "better": 1, "size": 3, "best": 93.0}
    table.write_text("architecture,test_acc\nbetter,93\n")
    assert search.run(from_mapping(untrained(table=str(table))), tmp_path / "b", QUIET)["table"] is None
    assert f"the table '{table}' does not hold the found cell" in (tmp_path / "b" / "log.txt").read_text()
