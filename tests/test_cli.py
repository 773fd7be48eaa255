import itertools
import math
import os
import re
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest
from measure import FakeProxies

import jnas
from jnas import cli
from jnas.commands import FAMILIES
from jnas.config.search import from_mapping
from jnas.errors import InputError, RunError
from jnas.store.folder import open_run

ROOT = Path(__file__).parents[1]


@pytest.fixture
def call(capsys):
    """Run the command line in this process: (status, stdout, stderr)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        status = cli.main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return status, out, err

    return run


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with a good configuration, a broken one, and runs in several states."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Path("good.yaml").write_text("strategy: pruning\n")
    Path("broken.yaml").write_text("estimator: {ntk: {batch: 3\n")
    Path("wrong.yaml").write_text("estimator: {ntk: {bach: 3}}\n")
    Path("a_file").write_text("")
    with open_run("unfinished", from_mapping({"seed": 5})):
        pass
    with open_run("damaged", from_mapping({})):
        pass
    Path("damaged/records.sqlite").write_bytes(b"garbage" * 100)
    Path("a_folder.csv").mkdir()
    Path("foreign.csv").write_text("numbers of somebody else\n")
    Path("damaged.csv.journal").write_bytes(b"garbage" * 100)
    return tmp_path


@pytest.fixture
def search(monkeypatch):
    """Put a stand-in for the search in place; the test sets what it does."""
    module = types.ModuleType("jnas.run.search")
    module.run = lambda config, out, progress: _open(config, out)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "jnas.run.search", module)
    return module


@pytest.fixture
def monkeypatch_signal():
    """Set a signal's handler until the test ends."""
    kept = {}

    def change(number, handler):
        kept.setdefault(number, signal.signal(number, handler))

    yield change
    for number, handler in kept.items():
        signal.signal(number, handler)


def _open(config, out):
    with open_run(out, config):
        raise AssertionError("a wrong call came through")


SCORE = ["score", "--proxies", "naswot", "--archs", "random:3", "--out", "x.csv"]
# arguments, and what the one line must say
WRONG_CALLS = [
    (["serch"], "unknown command 'serch'.*did you mean 'search'"),
    (["--verbose"], "unknown command '--verbose'"),
    (["search"], "jnas search needs a folder to write into"),
    (["search", "good.yaml"], "needs a folder to write into: add --out DIR"),
    (["search", "good.yaml", "--out"], "option '--out' has no value"),
    (["search", "good.yaml", "--out="], "needs a folder to write into"),
    (
        ["search", "good.yaml", "more.yaml", "--out", "x"],
        "one configuration file, given: 'good.yaml', 'more.yaml'",
    ),
    (["search", "absent.yaml", "--out", "x"], "no configuration file 'absent.yaml'"),
    (["search", ".", "--out", "x"], "cannot read '.'"),
    (["search", "broken.yaml", "--out", "x"], "broken.yaml, line 2: not valid YAML"),
    (["search", "wrong.yaml", "--out", "x"], "wrong.yaml: unknown key 'estimator.ntk.bach': did you mean"),
    (["search", "good.yaml", "-o", "x"], "unknown option '-o'"),
    (["search", "good.yaml", "--sed", "1", "--out", "x"], "unknown key '--sed': did you mean '--seed'"),
    (["search", "good.yaml", "--seed", "--out", "x"], "option '--seed' has no value"),
    (["search", "good.yaml", "--seed", "one", "--out", "x"], "'seed' is 'one': give a whole number"),
    (["search", "good.yaml", "--strategy", "agin", "--out", "x"], "'strategy' is 'agin': .*mean 'aging'"),
    (["search", "--ntk.batch", "8", "--out", "x"], "'--ntk.batch': did you mean '--estimator.ntk.batch'"),
    (["search", "good.yaml", "--out", "a_file"], "'a_file' is a file"),
    (["search", "good.yaml", "--out", "/dev/null/x"], "cannot make the folder '/dev/null/x'"),
    (["search", "good.yaml", "--out", "unfinished"], r"another configuration \(seed: 5 -> 0"),
    (["search", "good.yaml", "--out", "damaged"], "'damaged/records.sqlite' is damaged .* delete it"),
    (["score"], "needs --proxies: for example --proxies naswot,synflow"),
    ([*SCORE[:3]], "needs --archs: for example --archs random:1000"),
    ([*SCORE[:5]], "needs --out: for example --out scores.csv"),
    ([*SCORE[:5], "--out"], "option '--out' has no value"),
    ([*SCORE, "more"], "jnas score takes options only, not 'more'"),
    ([*SCORE, "-v"], "unknown option '-v'"),
    ([*SCORE, "--proxies", "naswott"], "unknown proxy 'naswott'.*did you mean 'naswot'"),
    ([*SCORE, "--proxies", "NASWOT"], "unknown proxy 'NASWOT'"),
    ([*SCORE, "--archs", "absent.txt"], "no file 'absent.txt': give a file of architectures, 'all' or"),
    ([*SCORE, "--archs", "random"], "no file 'random'"),
    ([*SCORE, "--archs", "random:many"], "'random:many' names no number: write random:1000"),
    ([*SCORE, "--archs", "random:²"], "'random:²' names no number"),
    ([*SCORE, "--archs", "random:20000"], "more than the 15,625 architectures"),
    ([*SCORE, "--archs", "a_file"], "no architectures"),
    ([*SCORE, "--archs", "good.yaml"], "is not a NAS-Bench-201 architecture"),
    ([*SCORE, "--archs", "unfinished"], "cannot read 'unfinished'"),
    ([*SCORE, "--out", "x.txt"], "--out 'x.txt': give a file ending in .csv or .parquet"),
    ([*SCORE, "--out", "a_folder.csv"], "'a_folder.csv' is a folder"),
    ([*SCORE, "--out", "foreign.csv"], "'foreign.csv' exists and is not an unfinished or finished scoring"),
    ([*SCORE, "--out", "damaged.csv"], "'damaged.csv.journal' is damaged .* delete it"),
    ([*SCORE, "--out", "/dev/null/x.csv"], "cannot write '/dev/null/x.csv'"),
    ([*SCORE, "--executor", "slurm"], "unknown executor 'slurm': choose one of local, ray"),
    ([*SCORE, "--space", "dartz"], "unknown search space 'dartz'"),
    ([*SCORE, "--data", "digitz"], "unknown data 'digitz'.*did you mean 'digits'"),
    ([*SCORE, "--seed", "x"], "'seed' is 'x': give a whole number"),
    ([*SCORE, "--network.chanels", "1"], "'--network.chanels': did you mean '--network.channels'"),
    ([*SCORE, "--batch", "8"], "unknown key '--batch': did you mean '--network.batch'"),
    ([*SCORE, "--network", "1"], "'--network' is a section"),
    ([*SCORE, "--network.batch", "5000"], "5000 images are needed, 'digits' has 1438"),
    (["report"], "jnas report takes one folder"),
    (["report", "a", "b"], "jnas report takes one folder, not 'a b'"),
    (["report", "absent"], "no run folder 'absent'"),
    (["report", "."], "no result.json in '.'.*give the folder"),
    (["report", "unfinished"], "the run is not finished"),
    (["list", "proxy"], "unknown family 'proxy'.*did you mean 'proxies'"),
]


@pytest.mark.parametrize("arguments, message", WRONG_CALLS, ids=[" ".join(a) for a, _ in WRONG_CALLS])
def test_wrong_calls(call, folder, search, arguments, message):
    before = sorted(path for path in folder.rglob("*") if "cache" not in path.parts)
    status, out, err = call(*arguments)
    assert status == 2
    assert out == ""
    assert err.count("\n") == 1 and err.startswith("jnas: error: ")
    assert re.search(message, err), err
    after = sorted(path for path in folder.rglob("*") if "cache" not in path.parts)
    assert [path for path in after if path.suffix not in (".sqlite-wal", ".sqlite-shm")] == before


def test_input_errors_of_the_search(call, folder, search):
    def run(config, out, progress):
        raise InputError("no\nsuch data")

    search.run = run
    assert call("search", "good.yaml", "--out", "x") == (2, "", "jnas: error: no\\nsuch data\n")


def test_a_folder_in_use(call, folder, search):
    with open_run("x", from_mapping({})):
        status, _, err = call("search", "good.yaml", "--out", "x")
    assert status == 2 and "another run is writing into 'x'" in err


def test_what_the_search_is_given(call, folder, search, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr("jnas.report.report.write_report", lambda out: out / "report.html")
    monkeypatch.setattr("jnas.report.terminal.print_summary", lambda result, path: print(result, path))
    search.run = lambda config, out, progress: seen.append((config, out)) or {"found": 1}
    status, out, _ = call(
        "search", "--seed=4", "good.yaml", "--data", "my images", "--out", "x", "--estimator.ntk.batch", "8"
    )
    assert (status, out) == (0, "{'found': 1} x/report.html\n")
    assert seen == [
        (
            from_mapping({"seed": 4, "data": "my images", "estimator": {"ntk": {"batch": 8}}}),
            Path("x"),
        )
    ]


def test_failures_leave_their_traceback_in_the_log(call, folder, search):
    def run(config, out, progress):
        with open_run(out, config):
            raise ZeroDivisionError("by\nzero")

    search.run = run
    status, out, err = call("search", "good.yaml", "--out", "x")
    assert (status, out) == (1, "")
    assert err == "jnas: failed: ZeroDivisionError: by zero (traceback in x/log.txt)\n"
    assert "Traceback" in Path("x/log.txt").read_text()


def test_a_failing_machine_is_said_in_one_line(call, folder, search):
    def run(config, out, progress):
        with open_run(out, config):
            raise RunError("cannot write 'x' (disk full)")

    search.run = run
    status, _, err = call("search", "good.yaml", "--out", "x")
    assert (status, err) == (1, "jnas: failed: cannot write 'x' (disk full) (traceback in x/log.txt)\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interruptions(call, folder, search, monkeypatch_signal, number):
    def run(config, out, progress):
        with open_run(out, config):
            os.kill(os.getpid(), number)
            signal.pause()

    search.run = run
    # A shell that started the tests in the background has left SIGINT ignored.
    monkeypatch_signal(signal.SIGINT, signal.default_int_handler)
    before = signal.getsignal(signal.SIGTERM)
    status, out, err = call("search", "good.yaml", "--data", "my images", "--out", "x")
    assert (status, out) == (130, "")
    assert err.count("\n") == 1
    assert err.endswith("run again: jnas search good.yaml --data 'my images' --out x\n")
    assert "interrupted" in Path("x/log.txt").read_text()
    assert signal.getsignal(signal.SIGTERM) is before
    # The folder is free again.
    with open_run("x", from_mapping({"data": "my images"})):
        pass


CELLS = [
    "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|nor_conv_1x1~1|none~2|",
    "|none~0|+|none~0|none~1|+|nor_conv_1x1~0|none~1|none~2|",
    "|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|",
    "|none~0|+|none~0|none~1|+|avg_pool_3x3~0|none~1|none~2|",
]


@pytest.fixture
def scorer(monkeypatch):
    """Put a stand-in for the compiled scores in place: cells get 1, 2, 3, ... in the order in which they come."""
    places = itertools.count(1)
    stand_in = FakeProxies(lambda row, name: (float(next(places)), "ok"), 2)
    monkeypatch.setattr("jnas.run.score.proxies", stand_in)
    return stand_in


def test_a_scoring(call, folder, scorer):
    from jnas.config import score as scoring_config

    Path("cells.txt").write_text("\n".join(CELLS))
    arguments = [
        "score",
        "--archs=cells.txt",
        "--proxies",
        "zen,naswot,zen",
        "--network.channels",
        "4",
        "--seed=2",
    ]
    status, out, err = call(*arguments, "--out", "new/x.csv")
    assert status == 0
    assert "scoring 4 architectures, 4 distinct, by zen, naswot on" in err
    rows = [line.split(",") for line in Path("new/x.csv").read_text().splitlines()]
    assert rows[0] == ["architecture", "zen", "zen_status", "naswot", "naswot_status", "params", "flops"]
    assert [row[0] for row in rows[1:]] == CELLS
    assert [float(row[1]) for row in rows[1:]] == [1, 3, 5, 7]
    assert scorer.made == [scoring_config.from_mapping({"network": {"channels": 4}, "seed": 2})]
    # What was found, on stdout: each proxy, the cell it likes most, and where the table is.
    assert "4 architectures" in out and "new/x.csv" in out.splitlines()[-1]
    for name in ("zen", "naswot"):
        assert CELLS[3] in next(line for line in out.splitlines() if name in line)

    # Again: from the journal, and the same.
    before = Path("new/x.csv").read_bytes()
    assert call(*arguments, "--out", "new/x.csv")[:2] == (0, out)
    assert Path("new/x.csv").read_bytes() == before and len(scorer.asked) == 2


def test_a_scoring_of_cells_of_equal_size(call, folder, scorer):
    """Where sizes do not differ there is no correlation with them, which is nothing to warn of."""
    Path("cells.txt").write_text("\n".join(CELLS[2:]))
    status, out, err = call("score", "--proxies", "naswot", "--archs", "cells.txt", "--out", "x.csv")
    assert (status, "nan" in out) == (0, False), err


def test_a_scoring_in_which_everything_failed(call, folder, scorer, monkeypatch):
    scorer.value = lambda row, name: (math.nan, "out_of_memory")
    status, out, _ = call("score", "--proxies", "naswot", "--archs", "random:3", "--out", "x.csv")
    assert status == 0 and "naswot" in out
    lines = Path("x.csv").read_text().splitlines()[1:]
    assert [line.split(",")[1:3] for line in lines] == [["nan", "out_of_memory"]] * 3


def test_a_scoring_that_fails(call, folder, scorer):
    def fail():
        if scorer.asked:
            raise ZeroDivisionError("by\nzero")

    scorer.before = fail
    status, out, err = call(*SCORE)
    assert (status, out) == (1, "")
    assert err.splitlines()[-1] == "jnas: failed: ZeroDivisionError: by zero (traceback above)"
    assert "Traceback" in err
    scorer.before = lambda: None
    assert call(*SCORE)[0] == 0
    assert len(scorer.asked) == 2


def test_a_scoring_on_a_full_disk_shows_what_it_could_not_store(call, folder, scorer, monkeypatch):
    from jnas.store.records import Records

    def full(self, rows):
        raise RunError("cannot write 'x.csv.journal' (disk full)")

    monkeypatch.setattr(Records, "add", full)
    status, out, err = call(*SCORE)
    assert status == 1
    assert next(line for line in err.splitlines() if line.startswith("jnas: ")).startswith(
        "jnas: failed: cannot write 'x.csv.journal' (disk full)"
    )
    lines = [line.split(",") for line in out.splitlines()]
    assert lines[0][:3] == ["stage", "subject", "objective"] and lines[0][5:7] == ["value", "status"]
    assert [line[2] for line in lines[1:]] == ["naswot"] * 2
    assert [line[5:7] for line in lines[1:]] == [["1.0", "ok"], ["2.0", "ok"]]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interruptions_of_a_scoring(call, folder, scorer, monkeypatch_signal, number):
    def interrupt():
        if scorer.asked:
            os.kill(os.getpid(), number)
            signal.pause()

    scorer.before = interrupt
    monkeypatch_signal(signal.SIGINT, signal.default_int_handler)
    status, out, err = call(*SCORE[:-1], "my x.csv")
    assert (status, out) == (130, "")
    assert err.splitlines()[-1].endswith(
        "run again: jnas score --proxies naswot --archs random:3 --out 'my x.csv'"
    )
    assert len(Path("my x.csv").read_text().splitlines()) == 3
    scorer.before = lambda: None
    assert call(*SCORE[:-1], "my x.csv")[0] == 0
    assert len(Path("my x.csv").read_text().splitlines()) == 4


def test_version_and_help(call):
    assert call("--version") == (0, f"jnas {jnas.__version__}\n", "")
    for arguments in ([], ["--help"], ["-h"]):
        assert call(*arguments)[:2] == (0, cli.HELP)
    for command in ("search", "score", "report", "list"):
        status, out, err = call(command, "--help")
        assert (status, err) == (0, "")
        assert f"jnas {command}" in out and "Example" in out
    # The present value of the keys of the chosen members.
    text = call("search", "--strategy", "aging", "--protocol", "released", "--help")[1]
    assert "--estimator.ntk.batch  [72]  a whole number >= 2" in text and "--strategy.tournament" in text
    text = call("score", "--help")[1]
    assert "--network.batch  [64]  a whole number >= 2" in text and "--ntk.repeats  [1]" in text


@pytest.mark.parametrize("family", FAMILIES)
def test_list(call, family):
    status, out, err = call("list", family)
    lines = out.splitlines()
    assert (status, err) == (0, "")
    assert lines[0] == family and len(lines) > 1
    # Every member has a name and a line on what it is, of its own.
    assert all(len(line.split()) > 1 for line in lines[1:])
    assert len({line.split(maxsplit=1)[1] for line in lines[1:]}) == len(lines) - 1


def test_list_all(call):
    out = call("list")[1]
    assert all(f"{family}\n" in out for family in FAMILIES)
    # A strategy that asks for gates needs an estimator that takes them.
    _, _, table = out.partition("strategies x estimators\n")
    rows = {row.split()[0]: row.split()[1:] for row in table.splitlines()[1:]}
    assert rows["pruning"] == ["gates", "yes", "-", "-", "-", "yes"]
    assert rows["random"] == ["architectures", "yes", "yes", "yes", "yes", "yes"]
    assert "nasbench201" in out and "15,625 cells" in out and "digits" in out


def python(*arguments: str, **options) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment, timeout=120, **options
    )


def test_help_is_light():
    code = (
        "import sys; from jnas import cli; cli.main(['--help']);"
        "[cli.main([name, '--help']) for name in ('search', 'score', 'train', 'study')];"
        "heavy = {'jax', 'flax', 'matplotlib', 'sklearn', 'tensorflow', 'neural_tangents', 'scipy', 'numpy'};"
        "print(*sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = python("-c", code)
    assert (done.returncode, done.stderr.strip()) == (0, "")


def test_as_a_module(tmp_path):
    done = python("-m", "jnas", "search", "absent.yaml", "--out", "x", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "jnas: error: no configuration file 'absent.yaml': give an existing YAML file\n"


def test_a_reader_that_has_seen_enough():
    command = f"{sys.executable} -m jnas search --help | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, cwd=ROOT, env={**os.environ}, timeout=120
    )
    assert done.stderr == ""
    assert done.stdout.splitlines()[0].startswith("jnas search") and done.stdout.splitlines()[-1] == "0"
