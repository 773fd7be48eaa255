"""Strategies of a comparison, as text and as a list."""

import pytest

from jnas.config.entrants import entrants
from jnas.errors import InputError
from jnas.strategies.settings.evolution import Aging, Local
from jnas.strategies.settings.sampling import Random


def test_names_and_settings():
    text = entrants("random, aging ,aging population=100 removal=worst,local,aging")
    assert [entrant.key for entrant in text] == [
        "random",
        "aging",
        "aging population=100 removal=worst",
        "local",
    ]
    assert [entrant.settings for entrant in text] == [
        Random(), Aging(), Aging(population=100, removal="worst"), Local()
    ]  # fmt: skip
    assert text[2].title == "aging evolution population=100 removal=worst"


def test_a_list_says_the_same_and_has_labels():
    given = ["random", {"name": "aging", "population": 100}, {"name": "aging", "rate": 0.5, "label": "wild"}]
    found = entrants(given)
    assert [entrant.key for entrant in found] == ["random", "aging population=100", "wild"]
    assert found[1] == entrants("aging population=100")[0]
    assert found[2].settings == Aging(rate=0.5) and found[2].title == "wild"


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ("agings", "did you mean 'aging'"),
        ("aging populaton=3", "did you mean 'strategy.population'"),
        ("aging population=many", "whole number >= 1"),
        ("aging large", "'large' behind aging is no setting"),
        ([{"population": 3}], "has no name"),
        ([{"name": "aging", "label": 3}], "has no name"),
        ([{"name": "aging", "label": "a"}, {"name": "local", "label": "a"}], "give one another label"),
    ],
)
def test_faults_are_one_line(given, fault):
    with pytest.raises(InputError, match=fault) as raised:
        entrants(given)
    assert "search.strategies" in str(raised.value) and "\n" not in str(raised.value)
