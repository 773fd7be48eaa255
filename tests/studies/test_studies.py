"""Studies on small tables, by the command: what they leave, what they say, and what they refuse."""

import csv

import numpy as np
import pytest

from jnas import cli, spaces
from jnas.config.study import from_mapping
from jnas.errors import InputError
from jnas.estimators import compact_table
from jnas.estimators.compact_table import Table
from jnas.proxies import PROXIES
from jnas.studies import rank as rank_study
from jnas.studies import search as search_study

SPACE = spaces.get("nasbench201")
CELLS = SPACE.all()


@pytest.fixture(scope="module")
def hill(tmp_path_factory):
    """A table whose accuracy is how many convolutions of 3x3 a cell has, with noise; of half of the space."""
    generator = np.random.default_rng(0)
    kept = np.sort(generator.permutation(len(CELLS))[: len(CELLS) // 2])
    true = 60 + 5.0 * (CELLS[kept] == 3).sum(axis=1)
    accuracy = true[:, None, None] + generator.normal(0, 0.5, (len(kept), 3, 2))
    table = Table(
        "nasbench201", "digits", CELLS[kept], np.array([4, 12], np.int32), accuracy.astype(np.float32),
        (1.0 + (CELLS[kept] >= 2).sum(axis=1)).astype(np.float32),
    )  # fmt: skip
    path = tmp_path_factory.mktemp("table") / "hill.npz"
    path.write_bytes(compact_table.to_bytes(table, path))
    return path


def run(tmp_path, kind, *options):
    config, out = tmp_path / "study.yaml", tmp_path / "run"
    config.write_text(f"kind: {kind}\n")
    assert cli.main(["study", str(config), "--out", str(out), *map(str, options)]) == 0
    with (out / "study.csv").open() as stream:
        return out, list(csv.DictReader(stream))


def test_search(hill, tmp_path, capsys):
    out, rows = run(
        tmp_path, "search", "--table", hill, "--search.seeds", 40, "--search.evaluations", 120,
        "--search.epoch", 4,
    )  # fmt: skip
    text = capsys.readouterr().out
    final = {row["strategy"]: row for row in rows if row["evaluations"] == "120"}
    assert set(final) == {"random", "aging", "local"}
    accuracy = {name: float(row["accuracy"]) for name, row in final.items()}
    assert accuracy["aging"] > accuracy["random"] < accuracy["local"]
    assert "Aging evolution differs from random search: +" in text
    for row in rows:
        assert float(row["accuracy_low"]) <= float(row["accuracy"]) <= float(row["accuracy_high"])
    # Four of twelve epochs cost a third of between one and seven seconds.
    seconds = float(final["random"]["simulated_seconds"])
    assert 120 * 1 / 3 < seconds < 120 * 7 / 3
    for name in ("search.png", "search.svg", "report.html"):
        assert (out / name).stat().st_size > 5000
    page = (out / "report.html").read_text()
    assert "Aging evolution differs" in page and "nan" not in page.lower().replace("finance", "")


def test_the_same_study_again_is_the_same(hill, tmp_path):
    options = ["--table", hill, "--search.seeds", 5, "--search.evaluations", 40]
    out, _ = run(tmp_path, "search", *options)
    first = (out / "study.csv").read_bytes()
    page = (out / "report.html").read_bytes()
    run(tmp_path, "search", *options)
    assert (out / "study.csv").read_bytes() == first
    # The page is made of the files in the folder alone.
    (out / "report.html").unlink()
    assert cli.main(["report", str(out)]) == 0 and (out / "report.html").read_bytes() == page


def test_rank(hill, tmp_path, capsys):
    out, rows = run(
        tmp_path, "rank", "--table", hill, "--rank.cells", 25, "--rank.proxies", "regions", "--rank.resamples", 30,
        "--rank.variants", "regions.inputs=100; ntk.batch=4",
    )  # fmt: skip
    text = capsys.readouterr().out
    # Of a variant there is what it changes; the kernel's settings change nothing here.
    found = {(row["variant"], row["score"]) for row in rows if row["variant"] != "as configured"}
    assert found == {("regions.inputs=100", "regions")}
    plain = {row["score"]: row for row in rows if row["variant"] == "as configured"}
    assert set(plain) == {"regions", "params", "flops", "convs"}
    # The accuracy counts convolutions of 3x3, and so do parameters.
    assert float(plain["params"]["kendall"]) > 0.7 and "params ranks the 25" in text
    for row in rows:
        for name in ("kendall", "spearman", "precision", "regret"):
            assert float(row[f"{name}_low"]) <= float(row[f"{name}_high"])
    assert (out / "rank.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("name", "key", "changed"),
    [
        ("naswot", "network.batch", True), ("params", "network.channels", False), ("ntk", "network.batch", False),
        ("ntk", "ntk.batch", True), ("regions", "ntk.batch", False), ("regions", "ntk.initialisation", True),
        ("regions", "regions.inputs", True), ("convs", "regions.inputs", False), ("zen", "seed", True),
    ],
)  # fmt: skip
def test_what_a_variant_scores_again(name, key, changed):
    assert rank_study.is_changed(PROXIES[name], [(key, "1")]) is changed


def test_a_csv_is_a_table_too(tmp_path):
    lines = [
        f"{SPACE.to_string(cell)},{50 + place % 40},{50 + place % 40},"
        for place, cell in enumerate(CELLS[::25])
    ]
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["architecture,test_acc,test_acc_run0,test_acc_run1", *lines]) + "\n")
    table = compact_table.open_table(path)
    assert table.accuracy.shape == (625, 2, 1) and np.isnan(table.accuracy[:, 1]).all()
    _, rows = run(tmp_path, "search", "--table", path, "--search.seeds", 3, "--search.evaluations", 30)
    assert {row["simulated_seconds"] for row in rows} == {""}


def test_strategies_of_short_trainings_have_as_many_epochs(hill, tmp_path):
    """Trainings of 4 of the 12 epochs count a third."""
    _, rows = run(
        tmp_path, "search", "--table", hill, "--search.seeds", 20, "--search.evaluations", 40,
        "--search.strategies", "asha",
    )  # fmt: skip
    last = {row["strategy"]: row for row in rows if row["evaluations"] == "40"}
    assert len(rows) == 80 and float(last["asha"]["accuracy"]) > 75
    # Forty whole trainings cost between one and seven seconds each, whatever their parts.
    assert 40 < float(last["asha"]["simulated_seconds"]) < 7 * 40


def test_what_was_reached_by_the_time_that_trainings_were_paid():
    used = np.array([[0.5, 1, 2, 2.5, 4]])
    assert search_study.at_evaluations(np.arange(5)[None], used, 4).tolist() == [[1, 2, 3, 4]]


def test_a_table_of_one_epoch_has_no_short_trainings(tmp_path, capsys):
    lines = "".join(f"{SPACE.to_string(cell)},{50 + place}\n" for place, cell in enumerate(CELLS[:4]))
    (tmp_path / "t.csv").write_text("architecture,test_acc\n" + lines)
    (tmp_path / "study.yaml").write_text("{}\n")
    command = [
        "study",
        str(tmp_path / "study.yaml"),
        "--out",
        str(tmp_path / "run"),
        "--table",
        str(tmp_path / "t.csv"),
    ]
    assert cli.main([*command, "--search.strategies", "asha"]) == 2
    assert "a table of several epochs" in capsys.readouterr().err


def test_values_at_every_number_of_the_space():
    cells = CELLS[[0, 700, 9000]]
    table = Table(
        "nasbench201", "x", cells, np.ones(1, np.int32), np.zeros((3, 1, 1), np.float32), np.ones(3, np.float32)
    )  # fmt: skip
    found = search_study.on_space(table, np.array([1.0, 2.0, 3.0]))
    values = {cell.tobytes(): value for cell, value in zip(cells, (1.0, 2.0, 3.0), strict=True)}
    canonical = np.asarray(SPACE.canonical(CELLS))
    expected = [
        values.get(cell.tobytes(), values.get(other.tobytes(), np.nan))
        for cell, other in zip(CELLS, canonical, strict=True)
    ]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--table", "absent.npz"], "no table 'absent.npz'"),
        (["--table", "absent.csv"], "no table 'absent.csv'"),
        (["--kind", "ranks", "--table", "x"], "kind"),
        (["--search.seed", "3"], "did you mean"),
    ],
)
def test_wrong_studies(options, fault, tmp_path, capsys):
    (tmp_path / "study.yaml").write_text("{}\n")
    command = ["study", str(tmp_path / "study.yaml"), "--out", str(tmp_path / "run"), *options]
    assert cli.main(command) == 2
    assert fault in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_unknown_names(hill, tmp_path, capsys):
    (tmp_path / "study.yaml").write_text("{}\n")
    command = ["study", str(tmp_path / "study.yaml"), "--out", str(tmp_path / "run"), "--table", str(hill)]
    assert cli.main([*command, "--search.strategies", "agings"]) == 2
    assert "did you mean 'aging'" in capsys.readouterr().err
    for text in ("network.batch", "network.bat=3", "network.batch=many"):
        with pytest.raises(InputError, match=r"rank\.variants"):
            rank_study.variants(text)
    assert from_mapping({"kind": "rank"}).rank.top == 0.05
