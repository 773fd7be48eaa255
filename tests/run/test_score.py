"""The loop behind `jnas.score`: which architectures, which table, and what a call goes on from.

A stand-in takes the place of the compiled scores, so that every value is known in closed form; the real ones
are in estimators/test_proxies.py, and a real process is killed in test_score_kill.py.
"""

import csv
import math
import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from measure import FakeProxies

import jnas
from jnas import spaces
from jnas.errors import InputError
from jnas.run.evaluate import in_this_process
from jnas.run.progress import Progress
from jnas.run.score import read_architectures, score

ROOT = Path(__file__).parents[2]
SPACE = spaces.get("nasbench201")
# Each the representative of its class.
FIRST = "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|nor_conv_1x1~1|none~2|"
SECOND = "|none~0|+|none~0|none~1|+|nor_conv_1x1~0|none~1|none~2|"
# Node 1 is read by nobody, so that its incoming edge costs and does nothing.
TWINS = (
    "|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|",
    "|nor_conv_1x1~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|",
)
REPRESENTATIVE = "|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"
SMALL = {"network": {"channels": 1, "cells_per_stage": 1, "batch": 4}}
CHUNK = 4


def invented(architecture, proxy: str) -> tuple[float, str]:
    """What the stand-in says of one architecture int[6]: no two alike, some failed, none short in binary."""
    number = int(np.sum(np.asarray(architecture) * 5 ** np.arange(6)))
    if number % 7 == 3:
        return math.nan, "not_finite"
    return (number + 1) / (3 + len(proxy)), "ok"


@pytest.fixture
def scorer(monkeypatch):
    stand_in = FakeProxies(invented, CHUNK)
    monkeypatch.setattr("jnas.run.score.proxies", stand_in)
    return stand_in


def call(architectures, proxies=("naswot",), **options):
    options = {"settings": SMALL, "progress": Progress(quiet=True), **options}
    return score("nasbench201", architectures, list(proxies), **options)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def read(architectures, seed: int = 0) -> list[list[int]]:
    array = read_architectures(SPACE, architectures, seed)
    assert array.dtype == np.int32 and array.ndim == 2
    return array.tolist()


# ---------------------------------------------------------------------------------------------- architectures

FIRST_ROW, SECOND_ROW = [3, 0, 0, 0, 2, 0], [0, 0, 0, 2, 0, 0]
BOTH = [FIRST_ROW, SECOND_ROW]


@pytest.mark.parametrize(
    "given",
    [
        [FIRST, SECOND],
        (FIRST, SECOND),
        np.array([FIRST, SECOND]),
        BOTH,
        np.array(BOTH),
        np.array(BOTH, np.uint8),
        jnp.array(BOTH),
    ],
    ids=["list", "tuple", "array of text", "nested list", "int64", "uint8", "jax"],
)
def test_architectures_given_as_values(given):
    assert read(given) == BOTH


def test_one_architecture_as_an_array_is_a_table_of_one():
    assert read(np.array(FIRST_ROW)) == [FIRST_ROW]


@pytest.mark.parametrize(
    "text",
    [
        f"{FIRST}\n{SECOND}\n",
        f"{FIRST}\n\n  {SECOND}  ",
        f"{FIRST}\r\n{SECOND}\r\n",
        f"architecture\n{FIRST}\n{SECOND}\n",
        f"rank,architecture,accuracy\n1,{FIRST},90\n2,{SECOND},80\n",
        f'"rank","architecture"\n"1","{FIRST}"\n"2","{SECOND}"\n',
        f"\ufeffarchitecture\r\n{FIRST}\r\n{SECOND}\r\n",
    ],
    ids=["lines", "blanks", "windows", "one column", "csv", "quoted csv", "csv of a spreadsheet"],
)
@pytest.mark.parametrize("kind", [str, Path])
def test_architectures_in_a_file(tmp_path, text, kind):
    path = tmp_path / "cells"
    path.write_bytes(text.encode())
    assert read(kind(path)) == BOTH


def test_all_architectures():
    array = read_architectures(SPACE, "all", 0)
    assert array.shape == (5**6, 6) and array.dtype == np.int32
    # Lexicographic: row i is i written in base 5.
    assert [int("".join(map(str, row)), 5) for row in array[::997].tolist()] == list(range(5**6))[::997]


def test_random_architectures_differ_and_follow_the_seed():
    drawn = read("random:500", seed=3)
    assert len({tuple(row) for row in drawn}) == 500
    assert drawn == read("random:500", seed=3) != read("random:500", seed=4)
    # More of them begin with the same ones: asking for more goes on.
    assert read("random:700", seed=3)[:500] == drawn
    everything = read(f"random:{SPACE.size}", seed=3)
    assert sorted(everything) == SPACE.all().tolist() != everything


@pytest.mark.parametrize(
    "given, message",
    [
        ([], "no architectures given"),
        (np.zeros((0, 6), int), "no architectures given"),
        ([FIRST, SECOND.replace("none~0", "nine~0")], "unknown operation 'nine': .*; did you mean 'none'"),
        (["", FIRST], "is not a NAS-Bench-201 architecture"),
        ([FIRST_ROW, [0, 0, 0, 0, 0, 5]], "give 6 integers below"),
        ([FIRST_ROW, [0, 0, 0, 0, 0, -1]], "give 6 integers below"),
        ([[0] * 5], "give 6 integers below"),
        ([[0] * 6, [0] * 5], "architecture"),
        (np.zeros((2, 6)), "give 6 integers"),
        (np.zeros((2, 6), bool), "give 6 integers"),
        (np.zeros((1, 1, 6), int), "give one row for each"),
        ("random:0", "'random:0' names no number: write random:1000"),
        ("random:-5", "names no number"),
        ("random:", "names no number"),
        ("random:1e3", "names no number"),
        ("random:²", "names no number"),
        ("random:15626", "more than the 15,625 architectures of nasbench201"),
        ("absent.txt", "no file 'absent.txt': give a file of architectures, 'all' or 'random:N'"),
        ("folder", "cannot read 'folder'"),
        ("empty.txt", "no architectures"),
        ("header.csv", "no architectures"),
        ("holed.csv", "holed.csv|row 2|line 3"),
        ("bytes.txt", "cannot read 'bytes.txt'"),
        ("typo.txt", "unknown operation 'nine'"),
    ],
)
def test_bad_architectures(tmp_path, monkeypatch, given, message):
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("empty.txt").write_text("\n")
    Path("header.csv").write_text("rank,architecture\n")
    Path("holed.csv").write_text(f"rank,architecture\n1,{FIRST}\n2\n")
    Path("bytes.txt").write_bytes(b"\xff\xfe\x00")
    Path("typo.txt").write_text(f"{FIRST}\n{FIRST.replace('none~0', 'nine~0')}\n")
    with pytest.raises(InputError, match=message) as raised:
        read_architectures(SPACE, given, 0)
    assert "\n" not in str(raised.value)


# -------------------------------------------------------------------------------------------------- the table


def test_columns_rows_and_order(scorer):
    scores = call([FIRST, SECOND], ["synflow", "naswot"])
    assert list(scores.columns) == [
        "architecture", "synflow", "synflow_status", "naswot", "naswot_status", "params", "flops",
    ]  # fmt: skip
    assert len(scores) == 2 and all(len(values) == 2 for values in scores.columns.values())
    assert scores["architecture"].tolist() == [FIRST, SECOND]
    assert scores.architectures.tolist() == BOTH
    for name in ("synflow", "naswot"):
        expected = [invented(row, name) for row in BOTH]
        np.testing.assert_array_equal(scores[name], [value for value, _ in expected])
        assert scores[f"{name}_status"].tolist() == [status for _, status in expected]
    assert scores["naswot"].dtype == np.float64 and scores["params"].dtype.kind == "i"
    # The cells in reverse are the rows in reverse.
    swapped = call([SECOND, FIRST], ["synflow", "naswot"])
    for name, values in scores.columns.items():
        assert swapped[name].tolist() == values.tolist()[::-1]


def test_sizes_as_proxies_need_no_scorer_and_appear_once(scorer, tmp_path):
    scores = call([FIRST, SECOND], ["flops", "convs"], out=tmp_path / "sizes.csv")
    assert list(scores.columns) == [
        "architecture", "flops", "flops_status", "convs", "convs_status", "params",
    ]  # fmt: skip
    assert scorer.asked == []
    assert scores["convs"].tolist() == [2, 1]
    assert scores["convs_status"].tolist() == ["ok", "ok"]
    assert [row["convs"] for row in rows_of(tmp_path / "sizes.csv")] == ["2", "1"]


def test_twins_share_the_value_of_their_representative_and_keep_their_own_sizes(scorer):
    scores = call([TWINS[0], FIRST, TWINS[1], REPRESENTATIVE, TWINS[0]])
    assert [names for _, names in scorer.asked] == [[REPRESENTATIVE, FIRST]]
    value, status = invented([0, 0, 0, 1, 0, 0], "naswot")
    for row in (0, 2, 3, 4):
        assert (scores["naswot"][row], scores["naswot_status"][row]) == (value, status)
    assert scores["architecture"].tolist() == [TWINS[0], FIRST, TWINS[1], REPRESENTATIVE, TWINS[0]]
    # A 3x3 convolution has 9 weights where a 1x1 has one, in three stages of 1, 2 and 4 channels, on images
    # of 8x8, 4x4 and 2x2; beside none it has the two parameters of its normalisation as well.
    params, flops = scores["params"], scores["flops"]
    assert params[0] - params[2] == 8 * (1 + 4 + 16)
    assert params[2] - params[3] == (1 + 4 + 16) + 2 * (1 + 2 + 4)
    assert flops[0] - flops[2] == 8 * (1 * 64 + 4 * 16 + 16 * 4)
    assert params[0] == params[4]


def test_a_proxy_named_twice_is_one(scorer, tmp_path):
    scores = call([FIRST], ["naswot", "synflow", "naswot"], out=tmp_path / "scores.csv")
    assert list(scores.columns) == [
        "architecture", "naswot", "naswot_status", "synflow", "synflow_status", "params", "flops",
    ]  # fmt: skip
    assert (tmp_path / "scores.csv").read_text().splitlines()[0] == ",".join(scores.columns)


def test_the_seed_chooses_random_architectures(scorer):
    assert call("random:9", seed=5).architectures.tolist() == read("random:9", seed=5)
    assert call("random:9", seed=6).architectures.tolist() != read("random:9", seed=5)


def test_the_table_in_a_notebook_shows_its_head(scorer):
    shown = call("random:30")._repr_html_()
    assert shown.count("<tr>") == 11 and "30 architectures" in shown and "<th>naswot</th>" in shown


def test_as_a_data_frame(scorer):
    pytest.importorskip("pandas")
    frame = call([FIRST, SECOND]).to_pandas()
    assert frame["architecture"].tolist() == [FIRST, SECOND]


@pytest.mark.parametrize(
    "proxies, options, message",
    [
        (["naswott"], {}, "unknown proxy 'naswott'.*did you mean 'naswot'"),
        ([], {}, "no proxy given"),
        (["naswot"], {"data": "digitz"}, "unknown data 'digitz'"),
        (["naswot"], {"executor": "slurm"}, "unknown executor 'slurm': choose one of local, ray"),
        (["naswot"], {"seed": -1}, "'seed' is -1"),
        (["naswot"], {"out": "scores.xlsx"}, "give a file ending in .csv or .parquet"),
        (["naswot"], {"settings": {"netwrk": {}}}, "unknown key 'netwrk'"),
        (["naswot"], {"settings": {"network": 3}}, "'network' is 3"),
        (["naswot"], {"settings": {"network": {"batch": 1500}}}, "1500 images are needed, 'digits' has 1438"),
        (["zico"], {"settings": {"network": {"batch": 720}}}, "1440 images are needed"),
        (["ntk"], {"settings": {"ntk": {"batch": 1439}}}, "ntk.batch does not fit: 1439"),
        (["regions"], {"settings": {"regions": {"crop": 0}}}, "regions.inputs does not fit: 5000"),
        (["regions"], {"settings": {"regions": {"crop": 9}}}, "regions.crop 9 does not fit"),
    ],
)
def test_bad_calls_compute_nothing(scorer, tmp_path, monkeypatch, proxies, options, message):
    monkeypatch.chdir(tmp_path)
    options = {"settings": SMALL, "out": "scores.csv", "progress": Progress(quiet=True), **options}
    with pytest.raises(InputError, match=message):
        score("nasbench201", [FIRST], proxies, **options)
    assert scorer.asked == [] and list(tmp_path.iterdir()) == []


def test_a_lone_name_instead_of_a_list_of_proxies(scorer):
    """Read as that name, or refused as what it is; but not letter by letter."""
    try:
        scores = score("nasbench201", [FIRST], "naswot", settings=SMALL, progress=Progress(quiet=True))
    except InputError as error:
        assert "'naswot'" in str(error)
    else:
        assert "naswot" in scores.columns


def test_an_unknown_space():
    with pytest.raises(InputError, match="unknown search space 'dartz'"):
        score("dartz", "all", ["naswot"])


# ------------------------------------------------------------------------------------- what a call goes on from


def test_the_csv_grows_with_the_chunks(scorer, tmp_path):
    path, seen = tmp_path / "scores.csv", []
    scorer.before = lambda: seen.append(rows_of(path))
    scores = call("random:11", out=path)
    representatives = [SPACE.to_string(a) for a in np.asarray(SPACE.canonical(scores.architectures))]
    assert len(seen) == math.ceil(len(set(representatives)) / CHUNK) >= 2
    for number, rows in enumerate(seen):
        known = {name for _, names in scorer.asked[:number] for name in names}
        expected = next((i for i, name in enumerate(representatives) if name not in known), 11)
        assert [row["architecture"] for row in rows] == scores["architecture"][:expected].tolist()
    final = rows_of(path)
    assert [float(row["naswot"]) for row in final] == pytest.approx(scores["naswot"], rel=0, nan_ok=True)
    assert [row["naswot_status"] for row in final] == scores["naswot_status"].tolist()
    assert [row["params"] for row in final] == [str(value) for value in scores["params"]]


def test_out_of_order_chunks_keep_the_rows_in_order(scorer, tmp_path, monkeypatch):
    """As the workers of a cluster finish them."""

    def backwards(estimator, key, chunks):
        for number in reversed(range(len(chunks))):
            assert len(rows_of(tmp_path / "scores.csv")) == 0
            yield number, estimator.evaluate(key, chunks[number])

    expected = call("random:20", out=tmp_path / "other.csv")
    monkeypatch.setattr("jnas.run.score.runner", lambda executor, make: backwards)
    scores = call("random:20", out=tmp_path / "scores.csv")
    assert scores["architecture"].tolist() == expected["architecture"].tolist()
    assert (tmp_path / "scores.csv").read_bytes() == (tmp_path / "other.csv").read_bytes()


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_shards_give_the_table_of_one_machine(scorer, tmp_path, suffix):
    """Each distinct architecture is scored in one of them; merging scores nothing."""
    call("random:30", ["naswot", "params"], out=tmp_path / f"alone{suffix}")
    alone = {name for _, names in scorer.asked for name in names}
    scorer.asked.clear()
    parts = [tmp_path / f"{number}.csv" for number in (1, 2, 3)]
    for number, part in enumerate(parts, start=1):
        call("random:30", ["naswot", "params"], out=part, shard=f"{number}/3")
    names = [name for _, names in scorer.asked for name in names]
    assert sorted(names) == sorted(alone) and sum(len(rows_of(part)) for part in parts) == 30
    scorer.fail_at = len(scorer.asked)
    call("random:30", ["naswot", "params"], out=tmp_path / f"merged{suffix}", merge=parts)
    merged, expected = (tmp_path / f"{name}{suffix}" for name in ("merged", "alone"))
    assert merged.read_bytes() == expected.read_bytes()


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "x/2", "1/x", "/"])
def test_wrong_shards(scorer, shard):
    with pytest.raises(InputError, match=f"--shard is '{shard}': give 1/N to N/N"):
        call([FIRST], shard=shard)


def test_shards_that_cannot_be_merged(scorer, tmp_path):
    call([FIRST], out=tmp_path / "part.csv", seed=1)
    with pytest.raises(
        InputError, match=r"part.csv.journal: holds results of another configuration \(seed: 1 -> 0"
    ):
        call([FIRST], out=tmp_path / "whole.csv", merge=[tmp_path / "part.csv"])
    with pytest.raises(
        InputError, match=r"no '.*absent.csv.journal': --merge takes the --out of finished shards"
    ):
        call([FIRST], out=tmp_path / "other.csv", merge=[tmp_path / "absent.csv"])
    with pytest.raises(InputError, match="--merge needs --out"):
        call([FIRST], merge=[tmp_path / "part.csv"])


@pytest.mark.parametrize("error", [RuntimeError("the machine burns"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("chunks", [0, 1, 3])
def test_the_same_call_after_an_interruption_gives_the_same_file(scorer, tmp_path, chunks, error):
    expected = call("random:20", ["naswot", "params", "synflow"], out=tmp_path / "expected.csv")
    every = sorted(name for _, names in scorer.asked for name in names)
    scorer.asked.clear()

    path = tmp_path / "scores.csv"
    scorer.fail_at, scorer.error = chunks, error
    with pytest.raises(type(error)):
        call("random:20", ["naswot", "params", "synflow"], out=path)
    kept = path.read_bytes()
    assert (tmp_path / "expected.csv").read_bytes().startswith(kept)
    assert len(rows_of(path)) >= CHUNK * chunks

    scorer.fail_at = None
    scores = call("random:20", ["naswot", "params", "synflow"], out=path)
    assert path.read_bytes() == (tmp_path / "expected.csv").read_bytes()
    # Every architecture was computed once, before or after.
    assert sorted(name for _, names in scorer.asked for name in names) == every
    for name, values in expected.columns.items():
        np.testing.assert_array_equal(scores[name], values)

    # And a finished one computes nothing.
    scorer.fail_at = len(scorer.asked)
    again = call("random:20", ["naswot", "params", "synflow"], out=path)
    np.testing.assert_array_equal(again["naswot"], expected["naswot"])
    assert path.read_bytes() == (tmp_path / "expected.csv").read_bytes()


def test_more_architectures_go_on_from_what_is_there(scorer, tmp_path):
    call("random:20", out=tmp_path / "scores.csv")
    first = {name for _, names in scorer.asked for name in names}
    scorer.asked.clear()
    scores = call("random:40", out=tmp_path / "scores.csv")
    later = [name for _, names in scorer.asked for name in names]
    assert later and not first & set(later) and len(later) == len(set(later))
    call("random:40", out=tmp_path / "fresh.csv")
    assert (tmp_path / "scores.csv").read_bytes() == (tmp_path / "fresh.csv").read_bytes()
    # Fewer of them are a table of their own, for nothing.
    scorer.fail_at = len(scorer.asked)
    assert len(call([scores["architecture"][7]], out=tmp_path / "scores.csv")) == 1
    assert len(rows_of(tmp_path / "scores.csv")) == 1


def test_more_proxies_compute_the_new_ones_alone(scorer, tmp_path):
    call("random:20", ["naswot"], out=tmp_path / "scores.csv")
    scorer.asked.clear()
    call("random:20", ["synflow", "naswot"], out=tmp_path / "scores.csv")
    assert {proxies for proxies, _ in scorer.asked} == {("synflow",)}
    scorer.fail_at = len(scorer.asked)
    call("random:20", ["naswot", "flops", "synflow"], out=tmp_path / "scores.csv")
    scorer.fail_at = None
    call("random:20", ["naswot", "flops", "synflow"], out=tmp_path / "fresh.csv")
    assert (tmp_path / "scores.csv").read_bytes() == (tmp_path / "fresh.csv").read_bytes()


def test_what_failed_for_good_is_not_computed_again(scorer, tmp_path):
    """A status is a result: nan would otherwise be computed anew by every call."""
    failed = [row for row in SPACE.all()[:200] if invented(row, "naswot")[1] != "ok"]
    failed = np.asarray(SPACE.canonical(np.array(failed)))
    before = call(failed, out=tmp_path / "scores.csv")
    scorer.fail_at = len(scorer.asked)
    after = call(failed, out=tmp_path / "scores.csv")
    np.testing.assert_array_equal(before["naswot"], after["naswot"])
    assert "not_finite" in after["naswot_status"]


@pytest.mark.parametrize(
    "change, difference",
    [
        ({"seed": 1}, "seed: 0 -> 1"),
        (
            {"settings": {"network": {**SMALL["network"], "batch": 5}, "memory_gb": 2.0}},
            "network.batch: 4 -> 5",
        ),
    ],
    ids=str,
)
def test_another_configuration_needs_another_file(scorer, tmp_path, change, difference):
    path = tmp_path / "scores.csv"
    call([FIRST, SECOND], out=path)
    kept = path.read_bytes()
    with pytest.raises(InputError, match=rf"another configuration \({difference}\): choose another --out"):
        call([FIRST, SECOND], out=path, **change)
    assert path.read_bytes() == kept


def test_memory_is_no_part_of_what_scores_depend_on(scorer, tmp_path):
    call([FIRST], out=tmp_path / "scores.csv")
    scorer.fail_at = len(scorer.asked)
    call([FIRST], out=tmp_path / "scores.csv", settings={**SMALL, "memory_gb": 3.0})


def test_progress_says_what_is_computed(scorer, tmp_path, capsys):
    call([*TWINS, FIRST], out=tmp_path / "scores.csv", progress=Progress())
    assert "scoring 3 architectures, 2 distinct, by naswot on" in capsys.readouterr().err
    call([*TWINS, FIRST, SECOND], out=tmp_path / "scores.csv", progress=Progress())
    assert "scoring 4 architectures, 3 distinct, 2 of them done before" in capsys.readouterr().err


def test_chunks_go_to_the_executor_that_was_named(scorer, monkeypatch):
    named = []
    monkeypatch.setattr(
        "jnas.run.score.runner", lambda executor, make: named.append(executor) or in_this_process
    )
    call([FIRST], executor="ray")
    call([FIRST])
    assert named == ["ray", "local"]


def test_score_is_imported_when_it_is_asked_for():
    code = (
        "import sys, jnas; heavy = {'jax', 'flax', 'numpy', 'ray', 'pyarrow', 'pandas'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules);"
        "assert not hasattr(jnas, 'scores');"
        "jnas.score; assert 'jax' in sys.modules and not {'ray', 'pyarrow', 'pandas'} & set(sys.modules);"
        "from jnas.run.score import score; assert jnas.score is score"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert jnas.score is score


def test_the_stand_in_tells_architectures_apart():
    values = [invented(row, "naswot") for row in SPACE.all()[:700]]
    good = [value for value, status in values if status == "ok"]
    assert len(set(good)) == len(good) < len(values)
