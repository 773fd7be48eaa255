import json
import logging
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jnas.config.read import from_file
from jnas.config.search import from_mapping, kind
from jnas.errors import InputError, RunError
from jnas.store import folder as run_folder
from jnas.store.folder import FORMAT, open_run, read_run, write_file
from jnas.store.records import Evaluation


def attempt(path: str | Path, mapping: dict | None = None) -> None:
    with open_run(path, from_mapping(mapping or {})):
        pass


def test_a_run_is_written_and_read(tmp_path):
    config = from_mapping({"seed": 3})
    with open_run(tmp_path / "a" / "run", config) as run:
        run.records.add([Evaluation("search", "all", "ntk", 0, 0, 1.5, "ok", 0.1)])
        whole = {"kind": "search", "format": FORMAT}
        run.write_result({**whole, "kappa": math.inf, "list": [1, math.nan]})
    result, stored = read_run(run.path)
    assert result == {**whole, "kappa": None, "list": [1, None]}
    assert stored["seed"] == 3
    assert {"jnas", "python", "jax", "jaxlib", "flax", "neural-tangents"} <= set(
        stored["environment"]["versions"]
    )
    assert stored["environment"]["device"]
    assert from_file(kind(), run.path / "config.yaml") == config
    assert not [name for name in os.listdir(run.path) if "tmp" in name]


def test_resuming_keeps_what_is_there(tmp_path):
    config = from_mapping({})
    with open_run(tmp_path, config) as run:
        run.records.add([Evaluation("search", "all", "ntk", 0, 0, 1.5, "ok", 0.1)])
    before = (tmp_path / "config.yaml").read_text()
    with open_run(tmp_path, config) as run:
        assert [entry.value for entry in run.records.all()] == [1.5]
    assert (tmp_path / "config.yaml").read_text() == before


def test_another_configuration_is_refused_and_nothing_is_lost(tmp_path):
    with open_run(tmp_path, from_mapping({"seed": 1, "estimator": {"ntk": {"batch": 8}}})) as run:
        run.records.add([Evaluation("search", "all", "ntk", 0, 0, 1.5, "ok", 0.1)])
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError, match=r"\(estimator.ntk.batch: 8 -> 32; seed: 1 -> 2\).*another --out"):
        attempt(tmp_path, {"seed": 2})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files
    # The records know it too, should config.yaml be gone.
    (tmp_path / "config.yaml").unlink()
    with pytest.raises(InputError, match="another configuration"):
        attempt(tmp_path)


def test_a_broken_config_of_a_run_is_named(tmp_path):
    (tmp_path / "config.yaml").write_text("seed: [")
    with pytest.raises(InputError, match=r"config\.yaml, line 1: not valid YAML"):
        attempt(tmp_path)


def test_a_run_of_another_format_is_refused(tmp_path):
    (tmp_path / "config.yaml").write_text("nkt: 1\n")
    with pytest.raises(
        InputError, match=r"config\.yaml' was written by another version .* give another --out"
    ):
        attempt(tmp_path)


def test_one_writer(tmp_path):
    with open_run(tmp_path, from_mapping({})), pytest.raises(InputError, match="another run is writing"):
        attempt(tmp_path)
    attempt(tmp_path)


HOLD_AND_DIE = """
import os, sys
from jnas.config.search import from_mapping
from jnas.store.records import Evaluation
from jnas.store.folder import open_run
with open_run(sys.argv[1], from_mapping({})) as run:
    run.records.add([Evaluation("search", "all", "ntk", 0, 0, 1.5, "ok", 0.1)])
    os.kill(os.getpid(), 9)
"""


def test_a_killed_run_leaves_no_lock(tmp_path):
    command = [sys.executable, "-c", HOLD_AND_DIE, str(tmp_path)]
    assert subprocess.run(command, cwd=Path(__file__).parents[2]).returncode == -9
    with open_run(tmp_path, from_mapping({})) as run:
        assert [entry.value for entry in run.records.all()] == [1.5]


@pytest.mark.parametrize("out", ["/dev/null", "/dev/null/run", "/proc/run"])
def test_folders_that_cannot_be(out):
    with pytest.raises(InputError, match=out):
        attempt(out)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match=r"cannot write into.*Permission denied"):
        attempt(tmp_path)


def test_files_are_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    write_file(path, "old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_folder.os, "fsync", full)
    with pytest.raises(RunError, match="No space left"):
        write_file(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["result.json"]


def test_what_happens_goes_to_the_log(tmp_path):
    log = logging.getLogger("jnas")
    with pytest.raises(KeyboardInterrupt), open_run(tmp_path, from_mapping({})):
        log.info("round 1")
        raise KeyboardInterrupt
    log.info("not of this run")
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == ["INFO round 1", "WARNING interrupted"]
    assert not log.handlers


def test_folders_without_a_finished_run(tmp_path):
    with pytest.raises(InputError, match="no run folder"):
        read_run(tmp_path / "absent")
    with pytest.raises(InputError, match=r"no result\.json.*give the folder"):
        read_run(tmp_path)
    attempt(tmp_path)
    with pytest.raises(InputError, match=r"no result\.json.*not finished"):
        read_run(tmp_path)
    (tmp_path / "result.json").write_text(json.dumps({"a": 1})[:-2])
    with pytest.raises(InputError, match=r"cannot read .*result\.json"):
        read_run(tmp_path)
    for content, fault in (
        ({"a": 1}, "format 1, this jnas reads format 2"),
        ({"kind": "x"}, "not the result of a run"),
    ):
        (tmp_path / "result.json").write_text(json.dumps(content))
        with pytest.raises(InputError, match=fault):
            read_run(tmp_path)
