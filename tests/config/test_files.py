"""Every file in configs/ is read by the command that its head names; settings of a search."""

import re
from pathlib import Path

import pytest

from jnas.config import read
from jnas.config.search import from_mapping, kind
from jnas.config.study import StudyConfig
from jnas.config.train import TrainConfig
from jnas.errors import InputError
from jnas.estimators import ESTIMATORS
from jnas.oneshot import METHODS
from jnas.settings import Member
from jnas.strategies import STRATEGIES

FILES = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
KINDS = {"search": kind(), "train": TrainConfig, "study": StudyConfig}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_is_read_by_its_command(path):
    commands = re.findall(
        rf"^#   jnas (\w+) configs/{path.name}( .*)?$", path.read_text(), flags=re.MULTILINE
    )
    assert commands, f"{path.name} does not say its command"
    for command, flags in commands:
        options = [(key, text) for key, text in re.findall(r"--([\w.]+) (\S+)", flags) if key != "out"]
        config = read.from_file(KINDS[command], path, options)
        assert read.from_mapping(KINDS[command], read.to_mapping(config)) == config


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("oneshot", [None, *METHODS])
def test_every_member_is_chosen_by_its_name(strategy, estimator, oneshot):
    config = from_mapping({"strategy": strategy, "estimator": estimator, "oneshot": oneshot})
    chosen = (config.strategy, config.estimator, config.oneshot)
    families = (STRATEGIES[strategy], ESTIMATORS[estimator], METHODS.get(oneshot, type(None)))
    assert tuple(map(type, chosen)) == families


@pytest.mark.parametrize("family", [STRATEGIES, ESTIMATORS, METHODS])
def test_every_setting_has_its_help(family):
    for name, member in family.items():
        assert member.__struct_config__.tag == name and member.__doc__
        assert all(text for _, _, _, text in read.options(member()))


def test_a_protocol_sets_the_values_that_are_not_given():
    paper, released = (from_mapping({"protocol": name}) for name in ("paper", "released"))
    assert (paper.estimator.ntk.batch, paper.estimator.ntk.repeats, paper.estimator.regions.inputs) == (
        32,
        3,
        5000,
    )
    assert (released.estimator.ntk.batch, released.estimator.ntk.fresh_weights) == (72, False)
    assert (released.estimator.regions.inputs, released.strategy.decimals) == (3000, 3)
    darts = from_mapping({"space": "darts", "protocol": "released", "estimator": {"ntk": {"repeats": 1}}})
    assert darts.strategy == STRATEGIES["pruning"](operations_per_round=3, decimals=3)
    assert (darts.estimator.ntk.batch, darts.estimator.ntk.channels, darts.estimator.ntk.repeats) == (
        14,
        1,
        1,
    )
    # Other strategies score each architecture once.
    assert from_mapping({"strategy": "random"}).estimator.ntk.repeats == 1


def test_a_supernet_implies_that_its_weights_are_inherited():
    config = from_mapping({"oneshot": "posterior", "estimator": {"recalibrate": 5}})
    assert config.estimator == ESTIMATORS["inherited"](recalibrate=5)
    assert config.strategy == STRATEGIES["draw"]() and config.supernet is not None
    assert from_mapping({"oneshot": "uniform", "strategy": "aging"}).strategy == STRATEGIES["aging"]()


def test_a_member_that_is_registered_later_is_chosen_by_its_name(monkeypatch):
    before = from_mapping({})

    class Own(Member, frozen=True, kw_only=True, tag="own"):
        """Of a user."""

        step: int = 1

    monkeypatch.setitem(STRATEGIES, "own", Own)
    assert from_mapping({"strategy": {"name": "own", "step": 2}}).strategy == Own(step=2)
    monkeypatch.undo()
    # Nobody else's settings have changed.
    assert from_mapping({}) == before


def test_a_strategy_of_strategies_is_written_as_a_chain():
    chain = read.from_options(
        kind(), [("strategy", "distinct:preselect:local"), ("strategy.of.factor", "8"), ("strategy.of.of.initial", "3")]
    )  # fmt: skip
    written = {
        "name": "distinct",
        "of": {"name": "preselect", "factor": 8, "of": {"name": "local", "initial": 3}},
    }
    assert from_mapping({"strategy": written}) == chain
    assert from_mapping(read.to_mapping(chain)) == chain
    local = STRATEGIES["local"](initial=3)
    assert chain.strategy == STRATEGIES["distinct"](of=STRATEGIES["preselect"](factor=8, of=local))
    scored = from_mapping({"strategy": {"name": "warm_up", "proxy": "scores:a.csv", "of": "distinct:tpe"}})
    assert scored.strategy.proxy.path == "a.csv" and scored.strategy.of.of == STRATEGIES["tpe"]()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "distinct:locl"}, "'strategy.of' is 'locl': give one of .*; did you mean 'local'"),
        ({"strategy": "distinct:local", "strategy.of.batc": "2"}, "did you mean '--strategy.of.batch'"),
        ({"strategy": "distinct:local", "strategy.initial": "2"}, "it is a key of local"),
        ({"strategy": "preselect:tpe", "strategy.proxy": "train"}, "give one of proxies, scores"),
    ],
)
def test_errors_in_a_chain_name_the_place(options, message):
    with pytest.raises(InputError, match=message):
        read.from_options(kind(), list(options.items()))
