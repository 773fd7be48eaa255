"""What users get wrong in proxies and spaces of their own, and what they are told."""

from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest

import jnas
from jnas.errors import InputError
from jnas.proxies import PROXIES
from jnas.proxies.base import KERNEL, SIZE, Proxy

SMALL = {"network": {"cells_per_stage": 1, "channels": 1, "batch": 4}}
own = partial(Proxy, "own", 1, False, "of a user", "nobody")


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"sign": 0}, "sign is 0, give 1"),
        ({"subject": "net"}, "unknown subject 'net'"),
        ({"subject": KERNEL, "measure": len}, "measure is for the subject network"),
        ({"subject": SIZE, "measure": len}, "measure is for the subject network"),
        ({}, "measure is for the subject network, which needs it"),
    ],
)
def test_declarations(changes, fault):
    settings = {
        "name": "own",
        "sign": 1,
        "needs_labels": False,
        "summary": "of a user",
        "reference": "nobody",
    }
    with pytest.raises(InputError, match=fault):
        Proxy(**{**settings, **changes})


@pytest.mark.parametrize(
    ("proxy", "fault"),
    [
        (own(measure=lambda probe: None), "own measured nothing: return arrays"),
        (own(measure=lambda probe: jnp.zeros(3)), "own: its finish makes no value and status of arrays .*3,"),
        (
            own(measure=lambda probe: jnp.zeros(()), finish=lambda measured, labels: 1.0),
            "own: its finish makes no",
        ),
        (
            own(measure=lambda probe: {}["patterns of trees"]),
            "own reads 'patterns of trees', which the network",
        ),
    ],
    ids=["nothing", "a vector", "no status", "what is not sown"],
)
def test_measurements(proxy, fault, monkeypatch):
    monkeypatch.setitem(PROXIES, "own", proxy)
    with pytest.raises(InputError, match=fault):
        jnas.score("nasbench201", np.zeros((1, 6), np.int32), ["own"], "digits", settings=SMALL)


def test_defined_anew_it_is_compiled_anew(monkeypatch):
    found = []
    for value in (1.0, 2.0):
        monkeypatch.setitem(PROXIES, "own", own(measure=lambda probe, value=value: jnp.float32(value)))
        scores = jnas.score("nasbench201", np.zeros((1, 6), np.int32), ["own"], "digits", settings=SMALL)
        found += list(scores["own"])
    assert found == [1.0, 2.0]


def test_arrays_are_no_data():
    with pytest.raises(InputError, match="data is a ndarray: give a name or a path"):
        jnas.score("nasbench201", "random:1", ["swap"], np.zeros(3))
