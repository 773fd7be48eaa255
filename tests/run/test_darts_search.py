"""TE-NAS and scoring on the DARTS space, end to end on the embedded digits at their smallest."""

import numpy as np
import pytest

from jnas import cli, score, spaces
from jnas.config.search import from_mapping
from jnas.errors import InputError
from jnas.run.progress import Progress
from jnas.run.search import run
from jnas.store.records import read_records

SMALL = {
    "space": "darts",
    "estimator": {"ntk": {"batch": 2, "repeats": 1}, "regions": {"inputs": 40, "repeats": 1}},
    "compare": {"random_cells": 1},
}
QUIET = Progress(quiet=True)


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    out = tmp_path_factory.mktemp("darts") / "run"
    return out, run(from_mapping({**SMALL, "protocol": "released"}), out, QUIET)


def test_both_phases(searched):
    out, result = searched
    # Operations go three at a time and then one, at last whole edges: 332 candidates.
    assert [len(entry["candidates"]) for entry in result["rounds"]] == [196, 112, 24]
    assert result["evaluations"] == 332 + 3
    darts = spaces.get("darts")
    architecture = darts.from_string(result["architecture"])
    assert np.asarray(darts.gates(architecture))[..., 1:].sum() == 16
    assert result["scores"]["found"]["params"] > 0
    edges = result["rounds"][-1]["candidates"]
    assert sum(candidate["pruned"] for candidate in edges) == 12
    assert len([e for e in read_records(out / "records.sqlite") if e.stage == "search"]) == 2 * 335


def test_the_report_draws_both_cells(searched, capsys):
    out, _ = searched
    assert cli.main(["report", str(out)]) == 0
    page = (out / "report.html").read_text()
    assert "Normal cell" in page and "Reduction cell" in page and "12 of 24 edges pruned" in page


def test_any_architectures_are_scored(tmp_path):
    settings = {"regions": {"inputs": 40}}
    scores = score("darts", "random:3", ["regions", "convs"], settings=settings)
    assert (scores["regions"] > 1).all() and (scores["convs"] <= 16).all()
    again = score("darts", scores["architecture"].tolist(), ["regions"], settings=settings)
    np.testing.assert_array_equal(again["regions"], scores["regions"])
    with pytest.raises(InputError, match="random:1000"):
        score("darts", "all", ["convs"])
