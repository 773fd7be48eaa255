"""Searches by short trainings: refused where shares mean nothing, resumed, and compared at one length alone."""

import jax
import numpy as np
import pytest

import jnas
from jnas import spaces
from jnas.config.search import from_mapping
from jnas.errors import InputError
from jnas.estimators.settings import Table
from jnas.report.evaluations import incumbents
from jnas.report.report import write_report
from jnas.run import search
from jnas.run.progress import Progress
from jnas.settings import Settings
from jnas.store.records import open_records, qualified, read_records, unqualified
from jnas.strategies import STRATEGIES

SPACE = spaces.get("nasbench201")
KEY = jax.random.key(0)
QUIET = Progress(quiet=True)
NAMES = ("successive_halving", "hyperband", "asha", "bohb")
TABLE = Table(path="digits").make(SPACE, None)


@pytest.mark.parametrize(
    "sections",
    [
        {"estimator": "proxies:naswot"},
        {"oneshot": "uniform"},
        {"estimator": {"name": "table", "path": "digits", "epoch": 1}},
    ],
    ids=["proxies", "a supernet", "the first epoch of a table"],
)
@pytest.mark.parametrize("name", NAMES)
def test_what_has_no_epochs_is_refused_at_the_start(name, sections, tmp_path):
    config = from_mapping({"strategy": name, "budget": 20, "data": "digits", **sections})
    with pytest.raises(InputError, match="trainings") as error:
        search.run(config, tmp_path / "run", QUIET)
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", NAMES)
def test_a_killed_search_goes_on_from_its_records(name, tmp_path):
    def explored(path, estimator=TABLE):
        members = search.within(SPACE, estimator)
        strategy = STRATEGIES[name](batch=4).make(members, estimator.objectives, 32)
        with open_records(path, Settings()) as records:
            return search.explore(members, strategy, estimator, KEY, budget=32, records=records)

    calls = []

    def dies(key, candidates):
        calls.append(len(candidates.architectures))
        if len(calls) == 6:
            raise KeyboardInterrupt
        return TABLE.evaluate(key, candidates)

    whole = explored(tmp_path / "whole.sqlite")
    with pytest.raises(KeyboardInterrupt):
        explored(tmp_path / "killed.sqlite", TABLE._replace(evaluate=dies))
    again = explored(tmp_path / "killed.sqlite")
    for one, other in zip(again, whole, strict=True):
        assert np.array_equal(one, other)
    assert read_records(tmp_path / "killed.sqlite") == read_records(tmp_path / "whole.sqlite")
    assert whole.paid == round(float(whole.fidelity.sum()), 4) < 32 == whole.evaluations


def test_the_result_the_final_and_the_page_go_by_the_longest_trainings(tmp_path):
    config = from_mapping(
        {
            "strategy": {"name": "hyperband", "eta": 5, "rungs": 2},
            "estimator": "table:digits",
            "budget": 48,
            "final": {
                "candidates": 3,
                "repeats": 1,
                "estimator": {"proxies": "regions", "regions": {"inputs": 20}},
            },
        }
    )
    result = search.run(config, tmp_path, QUIET)
    records = read_records(tmp_path / "records.sqlite")
    # A proxy's subject is the canonical cell.
    short, full = (
        {
            SPACE.to_string(SPACE.canonical(SPACE.from_string(text)))
            for text, found in (unqualified(r.subject) for r in records if r.stage == "search")
            if round(found, 3) == share
        }
        for share in (0.2, 1)
    )
    final = {record.subject for record in records if record.stage == "final"}
    assert short - full and len(final) == 3 and final <= full
    # Two cycles and more of (5 short, 1 full) and 2 full.
    assert result["evaluations"] == 48 + 3 and result["paid"] == pytest.approx(30 * 0.2 + 18)
    page = write_report(tmp_path).read_text()
    assert "a share of the full training" in page and "in full" in page


def test_a_frame_shows_fidelities():
    result = jnas.search("nasbench201", "hyperband", "table:digits", budget=26, seed=0, progress=QUIET)
    found, share = result.evaluations, result.evaluations.fidelity
    assert set(np.round(9 * share)) == {1, 3, 9}
    best = found.architectures[int(np.argmax(found.fitness))]
    assert result.architecture == best and result.value == found.values[share == 1, 0].max()
    assert np.isinf(found.fitness[share < 1]).all()


def test_subjects():
    for parent in (None, -1, 12):
        for share in (None, 1 / 9, 1.0):
            text, found = unqualified(qualified("a, b fidelity", parent, share))
            assert text == "a, b fidelity" and found == pytest.approx(share or 1, rel=1e-5)


def test_the_incumbent_is_of_the_longest_so_far():
    values = np.array([[3.0, 5, 4, 9, np.nan, 2], [-np.inf, 1, 7, 7, 8, 8]])
    fidelity = np.array([[0.5, 0.5, 1, 0.5, 1, 1], [1, 0.5, 0.5, 0.5, 1, 1]])
    assert incumbents(values, fidelity).tolist() == [[0, 1, 2, 2, 2, 2], [0, 1, 2, 2, 4, 4]]
