"""What every member of the family of proxies must keep to."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnas import proxies
from jnas.proxies import PROXIES, ntk, regions
from jnas.proxies.base import Proxy, architectures_at_once, map_first


@pytest.mark.parametrize("name", PROXIES)
def test_what_a_proxy_declares(name):
    proxy = PROXIES[name]
    assert isinstance(proxy, Proxy) and proxy.name == name
    assert re.fullmatch("[a-z][a-z0-9_]*", name)
    assert proxy.sign in (-1, 1) and proxy.needs_labels in (False, True)
    for text in (proxy.summary, proxy.reference):
        assert text.strip() == text != "" and "\n" not in text


def test_every_file_is_registered():
    files = {path.stem for path in Path(proxies.__file__).parent.glob("*.py")} - {"__init__", "base"}
    assert files <= set(PROXIES)
    assert PROXIES["ntk"] is ntk.PROXY and PROXIES["regions"] is regions.PROXY
    assert PROXIES["ntk"].sign == -1 and PROXIES["regions"].sign == 1


@pytest.mark.parametrize("chunk", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 4, 5])
def test_a_function_of_the_first_rows(chunk, count):
    xs = jnp.arange(10.0).reshape(5, 2)
    out = jax.ShapeDtypeStruct((2,), jnp.float32)
    squares = jax.jit(lambda count: map_first(lambda x: x**2, xs, count, chunk, out))(count)
    done = min(5, -(-count // chunk) * chunk)
    assert squares.shape == (5, 2) and squares.dtype == jnp.float32
    assert np.array_equal(squares[:done], xs[:done] ** 2) and not squares[done:].any()


def test_a_processor_takes_one_architecture_at_a_time(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert architectures_at_once() == 1
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert architectures_at_once() > 1
