"""Samplers of optuna: named, told everything, deterministic in the key."""

import sys

import jax
import numpy as np
import pytest

from jnas import spaces
from jnas.errors import InputError
from jnas.strategies import observations
from jnas.strategies.optuna import _study, optuna
from jnas.strategies.settings.bayesian import Optuna
from jnas.types import Candidates, Values

SPACE = spaces.get("nasbench201")


def test_one_line_says_that_it_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match="pip install 'jnas"):
        optuna(SPACE, Optuna(), 1)


def test_a_sampler_that_is_none_is_refused():
    pytest.importorskip("optuna", reason="optuna is not installed: pip install 'jnas[optuna]'")
    with pytest.raises(InputError, match=r"no sampler 'Tpe': choose one of .*TPESampler"):
        optuna(SPACE, Optuna(sampler="Tpe"), 1)
    with pytest.raises(InputError, match="from a seed alone"):
        optuna(SPACE, Optuna(sampler="GridSampler"), 1)


def test_a_study_holds_what_was_told():
    library = pytest.importorskip("optuna", reason="optuna is not installed: pip install 'jnas[optuna]'")
    rows = np.asarray(SPACE.sample(jax.random.key(0), 3))
    values = np.array([[1.0], [-np.inf], [2.5]])
    state = observations.add(
        observations.nothing(SPACE, 1), Candidates(rows), Values(values, values > 9, values[:, 0])
    )
    study, _ = _study(library.samplers.RandomSampler(), state, SPACE, [f"d{place}" for place in range(6)])
    assert [list(trial.params.values()) for trial in study.trials] == rows.tolist()
    assert [trial.value for trial in study.trials] == [1.0, None, 2.5]
    assert study.best_trial.number == 2


@pytest.mark.parametrize("sampler", ["TPESampler", "RandomSampler", "NSGAIISampler"])
def test_asks_are_new_different_and_those_of_the_key(sampler):
    pytest.importorskip("optuna", reason="optuna is not installed: pip install 'jnas[optuna]'")
    strategy = optuna(SPACE, Optuna(sampler=sampler, batch=4), 1)
    rows = np.asarray(SPACE.sample(jax.random.key(0), 15))
    values = (rows == 3).sum(1).astype(float)[:, None]
    state, _ = strategy.tell(
        strategy.init(jax.random.key(0)), Candidates(rows), Values(values, values > 9, values[:, 0])
    )
    asked, again, other = (strategy.ask(jax.random.key(seed), state)[0].architectures for seed in (1, 1, 2))
    assert asked.tolist() == again.tolist() != other.tolist()
    codes = {tuple(row) for row in np.asarray(SPACE.canonical(np.concatenate([asked, rows]))).tolist()}
    assert len(codes) == 4 + len({tuple(row) for row in np.asarray(SPACE.canonical(rows)).tolist()})
