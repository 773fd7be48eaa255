"""Values from the records, otherwise from the estimator: what is asked for, what is stored, and when."""

import jax
import numpy as np
import pytest

from jnas import spaces
from jnas.errors import RunError
from jnas.run.evaluate import Evaluator
from jnas.settings import Settings
from jnas.store.records import Records, open_records
from jnas.types import STATUSES, Candidates, Estimator, Values

SPACE = spaces.get("nasbench201")
KEY = jax.random.key(0)
CELLS = np.asarray(SPACE.canonical(np.random.default_rng(3).permutation(SPACE.all())[:7]))
TWINS = np.array([[3, 0, 0, 1, 0, 0], [2, 0, 0, 1, 0, 0]], np.int32)


class Fake:
    """An estimator whose every third value fails; keeps the candidates of each call."""

    def __init__(self, *objectives, batch=3):
        self.asked, self.fail_at = [], None
        self.estimator = Estimator(objectives, self.evaluate, ("architectures", "gates"), batch=batch)

    def evaluate(self, key, candidates):
        if len(self.asked) == self.fail_at:
            raise KeyboardInterrupt
        self.asked.append(candidates)
        rows = np.asarray(candidates.architectures if candidates.gates is None else candidates.gates)
        number = rows.reshape(len(rows), -1) @ np.arange(rows[0].size) / 3
        value = np.stack([number * (1 + place) for place in range(len(self.estimator.objectives))], axis=1)
        failed = value.round() % 3 == 2
        status = np.where(failed, STATUSES.index("singular"), 0).astype(np.int8)
        return Values(np.where(failed, -np.inf, value), status, np.full(len(rows), 0.25))

    @property
    def counts(self):
        return [len(c.architectures if c.gates is None else c.gates) for c in self.asked]


@pytest.fixture
def records(tmp_path):
    with open_records(tmp_path / "records", Settings()) as records:
        yield records


def assert_same(left, right):
    for one, other in zip(left, right, strict=True):
        np.testing.assert_array_equal(one, other)


def test_values_are_those_of_the_estimator_and_known_afterwards(records):
    fake, advanced = Fake("accuracy", "latency"), []
    evaluate = Evaluator(fake.estimator, SPACE, records, "search")
    values = evaluate(KEY, 0, Candidates(architectures=CELLS), lambda n, preparing=False: advanced.append(n))
    direct = fake.estimator.evaluate(KEY, Candidates(architectures=CELLS))
    assert_same(values, direct)
    # Even chunks of at most three.
    assert fake.counts[:-1] == advanced == [3, 2, 2] and np.isinf(values.value).any()
    fake.asked.clear()
    again = Evaluator(fake.estimator, SPACE, records, "search")
    assert_same(again(KEY, 5, Candidates(architectures=CELLS[::-1])), Values(*(x[::-1] for x in values)))
    assert fake.asked == []
    # Another stage is another part of the run.
    Evaluator(fake.estimator, SPACE, records, "final")(KEY, 0, Candidates(architectures=CELLS[:2]))
    assert fake.counts == [2]


def test_a_chunk_is_stored_before_the_next(records):
    fake = Fake("accuracy", batch=2)
    fake.fail_at = 2
    with pytest.raises(KeyboardInterrupt):
        Evaluator(fake.estimator, SPACE, records, "search")(KEY, 3, Candidates(architectures=CELLS))
    assert [(entry.round, entry.place) for entry in records.all()] == [(3, place) for place in range(4)]
    fake.fail_at = None
    Evaluator(fake.estimator, SPACE, records, "search")(KEY, 3, Candidates(architectures=CELLS))
    assert sum(fake.counts) == 7 and len(records.all()) == 7


def test_equal_candidates_are_asked_for_once():
    fake = Fake("accuracy")
    evaluate = Evaluator(fake.estimator, SPACE, None, "search")
    values = evaluate(KEY, 0, Candidates(architectures=CELLS[[0, 1, 0, 0, 1]]))
    assert fake.counts == [2] and values.value[[0, 1, 0, 0, 1]].tolist() == values.value.tolist()


def test_equivalent_architectures_share_proxies_and_neither_sizes_nor_accuracies():
    for objective, asked in (("naswot", 1), ("naswot/1", 1), ("params", 2), ("accuracy/0/12", 2)):
        fake = Fake(objective)
        Evaluator(fake.estimator, SPACE, None, "search")(KEY, 0, Candidates(architectures=TWINS))
        assert fake.counts == [asked], objective


def test_gates_belong_to_their_round():
    fake, gates = Fake("ntk/0"), np.asarray(SPACE.gates(CELLS))
    evaluate = Evaluator(fake.estimator, SPACE, None, "search")
    evaluate(KEY, 0, Candidates(gates=gates))
    evaluate(KEY, 0, Candidates(gates=gates[2:]))
    evaluate(KEY, 1, Candidates(gates=gates[:1]))
    assert fake.counts == [3, 2, 2, 1]


def test_fidelity_and_parents_are_part_of_the_question():
    fake = Fake("accuracy", batch=10)
    evaluate = Evaluator(fake.estimator, SPACE, None, "search")
    cells = CELLS[[0, 0, 0]]
    # Parents are among what was asked for before.
    evaluate(KEY, 0, Candidates(architectures=CELLS[1:4]))
    evaluate(
        KEY,
        0,
        Candidates(architectures=cells, fidelity=np.array([0.5, 1.0, 0.5]), parent=np.array([1, 1, 2])),
    )
    assert fake.counts == [3, 3] and fake.asked[1].fidelity.tolist() == [0.5, 1.0, 0.5]
    evaluate(KEY, 0, Candidates(architectures=cells[:1], fidelity=np.array([0.5]), parent=np.array([1])))
    assert fake.counts == [3, 3]


def test_nothing_is_asked_for_nothing():
    fake = Fake("accuracy", "params")
    values = Evaluator(fake.estimator, SPACE, None, "search")(
        KEY, 0, Candidates(architectures=np.zeros((0, 6), np.int32))
    )
    assert values.value.shape == values.status.shape == (0, 2) and fake.asked == []


def test_values_that_cannot_be_stored_are_shown(records, monkeypatch, capsys):
    def full(self, evaluations):
        raise RunError("disk full")

    monkeypatch.setattr(Records, "add", full)
    with pytest.raises(RunError):
        Evaluator(Fake("accuracy").estimator, SPACE, records, "search")(
            KEY, 0, Candidates(architectures=CELLS)
        )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("stage,subject,objective,") and len(lines) == 4
