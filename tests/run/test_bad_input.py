"""Wrong calls, and machines that fail, through the whole command line: what a user sees, and what is left.

Calls that are wrong in what is written (options, keys, configuration files) are in tests/test_cli.py; here
everything is written well, and wrong only once it is read or run.
"""

import json
import pickle
import re
import resource
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import jax
import numpy as np
import pytest
import yaml
from measure import StandIns, diagonal, hundreds

from jnas import cli
from jnas.config import search as search_config
from jnas.config.read import from_file
from jnas.parallel import Program
from jnas.proxies.base import KERNEL, REGIONS
from jnas.report.report import write_report
from jnas.run import compilation_cache, search
from jnas.run.progress import Progress
from jnas.store.folder import open_run
from jnas.store.records import Records, read_records

CONFIG = "estimator: {ntk: {batch: 8}, regions: {inputs: 20}}\ncompare: {random_cells: 1}\n"


@pytest.fixture
def call(capsys):
    """Run the command line in this process: (status, stdout, lines of stderr)."""

    def run(*arguments: str) -> tuple[int, str, list[str]]:
        status = cli.main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return status, out, err.splitlines()

    return run


MEASURES = {KERNEL: diagonal, REGIONS: hundreds}


@pytest.fixture
def scores(monkeypatch):
    """Stand-ins for the two compiled scores."""
    return StandIns(monkeypatch, MEASURES)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a search of `CONFIG` that nothing interrupted."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patch:
        StandIns(patch, MEASURES)
        search.run(search_config.from_mapping(yaml.safe_load(CONFIG)), folder, Progress(quiet=True))
    write_report(folder)
    return folder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with a good configuration and bad data, tables and runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(compilation_cache, "enable_compilation_cache", lambda: None)
    Path("good.yaml").write_text(CONFIG)
    draw = np.random.default_rng(0)
    images, labels = draw.integers(0, 256, (12, 8, 8, 1), np.uint8), np.arange(12) % 3
    good = {"x_train": images, "y_train": labels, "x_test": images[:6], "y_test": labels[:6]}
    floats = images / np.float32(255)
    holed = floats.copy()
    holed[3, 0, 0, 0] = np.nan
    variants = {
        "few": {},
        "nan": {"x_train": holed, "x_test": floats[:6]},
        "one_class": {"y_train": np.zeros(12, int), "y_test": np.zeros(6, int)},
        "odd": {"x_train": images[:, :7, :6], "x_test": images[:6, :7, :6]},
        "tiny": {"x_train": images[:, :2, :2], "x_test": images[:6, :2, :2]},
        "short_labels": {"y_train": labels[:-1]},
        "float_labels": {"y_train": labels + 0.5},
        "foreign_label": {"y_test": labels[:6] + 5},
        "large": {"x_train": images.astype(int) + 1000},
        "first": {"x_train": np.zeros((12, 3, 8, 8), np.uint8), "x_test": np.zeros((6, 3, 8, 8), np.uint8)},
        "sizes": {"x_test": images[:6, :4, :4]},
        "empty": {"x_train": images[:0], "y_train": labels[:0]},
    }
    for name, change in variants.items():
        np.savez(f"{name}.npz", **{**good, **change})
    np.savez("no_test.npz", x_train=images, y_train=labels)
    Path("text.npz").write_text("not an archive")
    Path("half.npz").write_bytes(Path("few.npz").read_bytes()[:600])
    np.savez("pickled.npz", **{**good, "x_train": np.array([{}] * 12, object)})
    for name in ("empty_folder", "images/a", "images/b", "batches"):
        Path(name).mkdir(parents=True)
    Path("images/a/1.png").write_bytes(b"no image")
    Path("images/b/1.png").write_bytes(b"no image")
    for name in ("data_batch_1", "test_batch"):
        Path("batches", name).write_bytes(pickle.dumps({b"data": print}))
    Path("columns.csv").write_text("cell,accuracy\na,1\n")
    Path("words.csv").write_text("architecture,test_acc\na,high\n")
    Path("plain.csv.gz").write_text("architecture,test_acc\na,1\n")
    return tmp_path


# options besides CONFIG and --out, and what the one line must say
WRONG_SEARCHES = [
    ("--data digitz", "unknown data 'digitz'.*did you mean 'digits'"),
    ("--data absent.npz", "data 'absent.npz' does not exist: looked for"),
    ("--data no/such/folder", "data 'no/such/folder' does not exist"),
    ("--data nan.npz", "x_train holds NaN or infinity in 1 of 12 images, first in image 3"),
    ("--data one_class.npz", "every label in y_train is 0; give images of two classes or more"),
    ("--data odd.npz", "images of 7x6 do not fit a network of 3 stages.*multiples of 4"),
    ("--data tiny.npz --estimator.regions.crop 2", "images of 2x2 do not fit a network of 3 stages"),
    ("--data short_labels.npz", "y_train has 11 labels for 12 images"),
    ("--data float_labels.npz", "labels are integers"),
    ("--data foreign_label.npz", "y_test holds label .* allowed are 0..2"),
    ("--data large.npz", "allowed are 0..255, or floats"),
    ("--data first.npz", "channels first; transpose it"),
    ("--data sizes.npz", "images of x_train are 8x8x1 but those of x_test 4x4x1"),
    ("--data empty.npz", "x_train is empty"),
    ("--data no_test.npz", "has no x_test, y_test"),
    ("--data text.npz", "'text.npz' cannot be read"),
    ("--data half.npz", "'half.npz' cannot be read"),
    ("--data pickled.npz", "'pickled.npz' cannot be read"),
    ("--data empty_folder", "empty_folder"),
    ("--data images", "1.png"),
    ("--data batches", "batches"),
    (
        "--data few.npz --estimator.ntk.batch 13",
        "ntk.batch does not fit: 13 images are needed, 'few' has 12 for training; lower",
    ),
    (
        "--data few.npz --training.epochs 1 --training.batch 13",
        "training.batch 13 does not fit: 'few' has 12",
    ),
    (
        "--data few.npz --estimator.regions.crop 0",
        "regions.inputs does not fit: 20 images are needed, 'few' has 12 for training",
    ),
    ("--estimator.regions.crop 9", "regions.crop 9 does not fit into the images of 'digits'"),
    ("--space nasbench102", "unknown .*space 'nasbench102'.*nasbench201"),
    ("--strategy random", "strategy random does not end by itself: give a budget of evaluations"),
    ("--filter.factor 3", "filter chooses among draws: make strategy draw"),
    ("--final.candidates 3", "the strategy asks for gates: leave final out"),
    ("--tuning.epochs 3", "tuning is for a supernet, and this search trains none: add oneshot"),
    ("--table absent.csv", "no table 'absent.csv'"),
    ("--table .", "cannot read the table '.'"),
    ("--table columns.csv", "lacks the column architecture: it needs architecture, test_acc"),
    ("--table words.csv", "cannot read the table 'words.csv'.*high"),
    ("--table plain.csv.gz", "cannot read the table 'plain.csv.gz'.*gzipped if it ends in .gz"),
]


@pytest.mark.parametrize(
    ("options", "message"), WRONG_SEARCHES, ids=[options for options, _ in WRONG_SEARCHES]
)
def test_wrong_searches(call, folder, options, message):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    status, out, lines = call("search", "good.yaml", *options.split(), "--out", "run")
    assert status == 2 and out == ""
    assert len(lines) == 1 and lines[0].startswith("jnas: error: ")
    assert re.search(message, lines[0]), lines[0]
    # Nothing is written before the call is known to be good.
    assert not Path("run").exists()
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--estimator table:digits", "strategy pruning asks for gates, .* accuracy takes architectures and trainings"),
        ("--estimator train", "strategy pruning asks for gates, .* accuracy takes architectures and trainings"),
        ("--estimator proxies:naswot", "strategy pruning asks for gates, .* of naswot/0 takes architectures"),
        ("--estimator inherited --strategy draw", "inherited evaluates .*: write inherited:RUN with the folder"),
        ("--estimator inherited:absent --strategy draw", "no run folder 'absent'"),
        ("--estimator table:digits --strategy draw --space darts", "is of nasbench201, the search of darts"),
    ],
)  # fmt: skip
def test_parts_that_do_not_fit(call, folder, options, message):
    status, out, lines = call("search", *options.split(), "--out", "run")
    assert (status, out, len(lines)) == (2, "", 1) and re.search(message, lines[0]), lines
    assert not Path("run").exists()


@pytest.fixture
def run(folder, scores, finished):
    """A finished run."""
    return shutil.copytree(finished, Path("run"))


def damage(path: Path, kind: str) -> None:
    records = path / "records.sqlite"
    if kind == "half of the records":
        content = records.read_bytes()
        records.write_bytes(content[: len(content) // 2])
    elif kind == "records of another format":
        with closing(sqlite3.connect(records)) as connection, connection:
            connection.execute("UPDATE meta SET value='99' WHERE key='format'")
    elif kind == "records of another configuration":
        with closing(sqlite3.connect(records)) as connection, connection:
            connection.execute("""UPDATE meta SET value='{"seed": 9}' WHERE key='settings'""")
    elif kind == "records are a folder":
        records.unlink()
        records.mkdir()
    elif kind == "config of the run is broken":
        (path / "config.yaml").write_text("ntk: [")
    elif kind == "config of the run is of another format":
        (path / "config.yaml").write_text("nkt: 1\n")
    elif kind == "lock is a folder":
        (path / ".lock").unlink()
        (path / ".lock").mkdir()
    elif kind == "log is a folder":
        (path / "log.txt").unlink()
        (path / "log.txt").mkdir()


DAMAGES = {
    "half of the records": "records.sqlite' is damaged",
    "records of another format": "is in format 99, not 2: use the jnas that wrote it, or choose another --out",
    "records of another configuration": "holds results of another configuration .*seed: 9 -> 0",
    "records are a folder": "cannot use 'run/records.sqlite'",
    "config of the run is broken": "run/config.yaml, line 1: not valid YAML",
    "config of the run is of another format": "written by another version of jnas: give another --out",
    "lock is a folder": "cannot write into 'run'",
    "log is a folder": "log.txt",
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_run(call, run, kind):
    damage(run, kind)
    result = (run / "result.json").read_bytes()
    status, out, lines = call("search", "good.yaml", "--out", "run")
    assert (status, out) == (2, "")
    assert len(lines) == 1 and re.search(DAMAGES[kind], lines[0]), lines
    assert (run / "result.json").read_bytes() == result


def test_another_configuration_of_a_finished_run(call, run):
    files = {path: path.read_bytes() for path in run.iterdir() if path.suffix not in (".txt", "")}
    status, out, lines = call("search", "good.yaml", "--estimator.ntk.batch", "9", "--out", "run")
    assert (status, out) == (2, "")
    assert len(lines) == 1 and re.search(r"another configuration \(estimator.ntk.batch: 8 -> 9\)", lines[0])
    assert {path: path.read_bytes() for path in run.iterdir() if path.suffix not in (".txt", "")} == files


@pytest.mark.parametrize("content", ['{"architecture": ', "", "[1, 2"])
def test_a_truncated_result(call, run, content):
    whole = (run / "result.json").read_text()
    (run / "result.json").write_text(content)
    status, out, lines = call("report", "run")
    assert (status, out) == (2, "")
    assert len(lines) == 1 and re.search(
        "cannot read 'run/result.json'.*run its search command again", lines[0]
    )
    # The mend works, and evaluates nothing.
    assert call("search", "good.yaml", "--out", "run")[0] == 0
    assert (run / "result.json").read_text() == whole


@pytest.mark.parametrize("content", ["{}", "[]", "3"])
def test_a_foreign_result(call, run, content):
    (run / "result.json").write_text(content)
    status, out, lines = call("report", "run")
    assert (status, out) == (2, "") and len(lines) == 1 and "result.json" in lines[0]


def test_a_report_of_a_run_that_lost_its_configuration(call, run):
    (run / "config.yaml").unlink()
    status, out, lines = call("report", "run")
    assert (status, out) == (2, "") and len(lines) == 1 and "config.yaml" in lines[0]


def test_a_report_that_cannot_be_written(call, run):
    (run / "report.html").unlink()
    (run / "report.html").mkdir()
    status, out, lines = call("report", "run")
    assert (status, out) == (1, "") and len(lines) == 1 and "cannot write 'run/report.html'" in lines[0]


def without_times(path: Path) -> dict:
    result = json.loads((path / "result.json").read_text())
    return {key: value for key, value in result.items() if not key.endswith("seconds")}


def fail_at(monkeypatch, module, name, call_number, error):
    """Let call number `call_number` of a function raise `error`."""
    function, calls = getattr(module, name), []

    def failing(*arguments, **options):
        calls.append(None)
        if len(calls) == call_number:
            raise error
        return function(*arguments, **options)

    monkeypatch.setattr(module, name, failing)
    return lambda: monkeypatch.setattr(module, name, function)


RESOURCES = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 99999999999 bytes.\nMore.\nMore."
FAILURES = {
    "interruption while scoring": (
        Program, "__call__", 9, KeyboardInterrupt(), 130, "to resume run again: jnas search",
    ),
    "interruption while storing": (Records, "add", 3, KeyboardInterrupt(), 130, "nothing finished is lost"),
    "another failure of the device": (
        Program, "__call__", 9, jax.errors.JaxRuntimeError("INTERNAL: a\nb"), 1, "INTERNAL: a b",
    ),
    "a mistake of ours": (Program, "__call__", 9, ZeroDivisionError("x"), 1, "ZeroDivisionError: x .*log.txt"),
}  # fmt: skip


@pytest.mark.parametrize("failure", FAILURES)
def test_failures_in_the_middle(call, folder, scores, finished, monkeypatch, failure):
    module, name, number, error, expected_status, message = FAILURES[failure]
    restore = fail_at(monkeypatch, module, name, number, error)
    status, out, lines = call("search", "good.yaml", "--out", "run")
    assert (status, out) == (expected_status, "")
    complaints = [line for line in lines if line.startswith("jnas: ")]
    assert complaints == lines[-1:] and re.search(message, complaints[0]), lines
    stored = read_records(Path("run/records.sqlite"))
    assert stored and not Path("run/result.json").exists()
    if status == 1:
        assert "Traceback" in Path("run/log.txt").read_text()
    restore()
    assert call("search", "good.yaml", "--out", "run")[0] == 0
    assert without_times(Path("run")) == without_times(finished)
    assert stored == [record for record in read_records(Path("run/records.sqlite")) if record in stored]


@pytest.mark.parametrize(
    "error", [jax.errors.JaxRuntimeError(RESOURCES), MemoryError()], ids=["device", "host"]
)
def test_a_search_that_does_not_fit_into_memory(call, folder, scores, monkeypatch, error):
    """From the middle of the first round on, however few candidates there are at a time."""
    function, calls = Program._compiled, []

    def failing(*arguments):
        calls.append(None)
        if len(calls) > 6:
            raise error
        return function(*arguments)

    monkeypatch.setattr(Program, "_compiled", failing)
    status, out, lines = call("search", "good.yaml", "--out", "run")
    assert (status, out) == (1, "") and re.search(
        "out of memory: lower the batch of .* another --out", lines[-1]
    )
    statuses = {(r.round, r.status) for r in read_records(Path("run/records.sqlite"))}
    assert statuses == {(0, "ok"), (0, "out_of_memory"), (1, "out_of_memory")}
    assert not Path("run/result.json").exists()


def test_a_full_disk(call, folder, scores, finished, monkeypatch):
    """Files cannot grow: the system's own limit stands in for a disk without room."""
    limits, before = resource.getrlimit(resource.RLIMIT_FSIZE), len(scores.rows)

    def full_later():
        if len(scores.rows) - before == 8:
            size = sum(Path("run", name).stat().st_size for name in ("records.sqlite-wal",))
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))

    scores.before = full_later
    try:
        status, out, lines = call("search", "good.yaml", "--out", "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    # Values that cannot be stored are shown.
    assert status == 1 and out.startswith("stage,subject,objective,")
    assert re.search("cannot write 'run/records.sqlite'.*then run the same command again", lines[-1]), lines
    scores.before = lambda: None
    stored = read_records(Path("run/records.sqlite"))
    assert stored
    assert call("search", "good.yaml", "--out", "run")[0] == 0
    assert without_times(Path("run")) == without_times(finished)
    assert stored == [record for record in read_records(Path("run/records.sqlite")) if record in stored]


def test_a_disk_full_at_the_last_file(call, folder, scores, finished, monkeypatch):
    with open_run("run", from_file(search_config.kind(), "good.yaml")):
        pass
    restore = fail_at(monkeypatch, shutil.os, "fsync", 1, OSError(28, "No space left on device"))
    status, out, lines = call("search", "good.yaml", "--out", "run")
    assert (status, out) == (1, "")
    assert re.search("cannot write 'run/result.json' .No space left on device", lines[-1])
    assert not Path("run/result.json").exists() and len(read_records(Path("run/records.sqlite"))) > 100
    restore()
    assert call("search", "good.yaml", "--out", "run")[0] == 0
    assert without_times(Path("run")) == without_times(finished)
