"""What the TE-NAS authors' released code computes, jnas computes: from the same weights and images.

The files are read from the folder named by `JNAS_TENAS_FIXTURES`; each holds weights by the authors' names,
inputs, and what their code returned for them.
"""

import os
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from tenas_fixtures import darts_params, nasbench201_params

from jnas import spaces
from jnas.estimators.settings import NtkConfig
from jnas.nets import networks
from jnas.nets.modules import Build
from jnas.nets.sizes import Macro
from jnas.proxies import ntk, regions
from jnas.theory import empirical_ntk

DEFAULT = Path(__file__).parents[2] / "shared" / "fixtures" / "tenas"
FOLDER = Path(os.environ.get("JNAS_TENAS_FIXTURES") or DEFAULT)
FILES = sorted(FOLDER.glob("*.npz"))


def over_files(plain):
    """Parameters `fixture` and `planes`: on planes all files, without planes those that `plain` takes."""
    cases = [
        pytest.param(path, planes, id=f"{'planes' if planes else 'plain'}-{path.stem}")
        for path in FILES
        for planes in (False, True)
        if planes or plain(path.stem)
    ]
    absent = pytest.param(None, False, marks=pytest.mark.skip(reason=f"no files in '{FOLDER}'"))
    return pytest.mark.parametrize(("fixture", "planes"), cases or [absent], indirect=["fixture"])


def network_of(fixture, planes, **kwargs):
    """The masked network of the file's space."""
    channels, stages = (1, 1) if fixture["darts"] or kwargs else (3, 3)
    space = spaces.get("darts" if fixture["darts"] else "nasbench201")
    return networks.build(space, Macro(channels, 1, stages), Build(planes=planes), search=True, **kwargs)


def our_params(fixture, network):
    return (darts_params if fixture["darts"] else nasbench201_params)(fixture["arrays"], network)


@pytest.fixture(scope="module")
def fixture(request):
    with np.load(request.param) as archive:
        arrays = dict(archive)
    for name in ("images", "crops"):
        arrays[name] = arrays[name].transpose(0, 2, 3, 1)
    own = {name: value for name, value in arrays.items() if "/" not in name}
    return {**own, "arrays": arrays, "darts": request.param.stem.startswith("darts")}


@pytest.fixture(scope="module")
def kernel_function():
    """(params, images, gates) to logits and kernel of a build; each compiles once for all files of a space."""

    @cache
    def make(is_darts, planes):
        network = network_of({"darts": is_darts}, planes)

        def evaluate(params, images, gates):
            def apply(params, images):
                return network.apply({"params": params}, images, gates)

            if planes:
                kernel = ntk.kernel(
                    params, images, lambda build: network.clone(build=build), gates, NtkConfig()
                )
            else:
                counted, rest = empirical_ntk.split(params, "weights")

                def summed(counted):
                    logits = apply(traverse_util.unflatten_dict({**counted, **rest}), images)
                    return logits.sum(-1), logits

                _, pullback, logits = jax.vjp(summed, counted, has_aux=True)
                (rows,) = jax.lax.map(pullback, jnp.eye(len(images)))
                flat = jnp.concatenate([row.reshape(len(images), -1) for row in rows.values()], axis=1)
                return logits, flat @ flat.T
            return apply(params, images), kernel

        return jax.jit(evaluate)

    return make


@pytest.fixture(scope="module")
def sign_function():
    """(params, crops, gates) to the signs of a build, in the same way."""

    @cache
    def make(is_darts, planes):
        network = network_of({"darts": is_darts}, planes, stem=False)

        def signs(params, crops, gates):
            _, sown = network.apply({"params": params}, crops, gates, mutable=["patterns"])
            return [leaf.reshape(len(crops), -1) for leaf in jax.tree.leaves(sown["patterns"])]

        return jax.jit(signs)

    return make


# Without planes a kernel takes ten seconds whatever the gates: the whole supernets have everything in them.
@over_files(plain=lambda name: name.endswith("full"))
def test_kernel(fixture, kernel_function, planes):
    params = our_params(fixture, "ntk_net")
    logits, kernel = kernel_function(fixture["darts"], planes)(
        params, jnp.asarray(fixture["images"]), jnp.asarray(fixture["gates"])
    )
    np.testing.assert_allclose(logits, fixture["logits"], rtol=1e-3, atol=1e-4)
    expected = fixture["ntk"]
    largest = np.abs(expected).max()
    assert np.abs(kernel - expected).max() <= 1e-3 * largest
    # Small entries too: the authors' single precision keeps them to 2e-3 of what their images' norms allow.
    norms = np.sqrt(np.diag(expected))
    assert (np.abs(kernel - expected) <= 3e-3 * np.outer(norms, norms)).all()
    value, status = ntk.condition_number(np.asarray(kernel))
    assert status == "ok" and value == pytest.approx(float(fixture["condition_number"]), rel=1e-2)


@over_files(plain=lambda name: True)
def test_regions(fixture, sign_function, planes):
    params = our_params(fixture, "region_net")
    function = sign_function(fixture["darts"], planes)
    signs = function(params, jnp.asarray(fixture["crops"]), jnp.asarray(fixture["gates"]))
    assert int(regions.count_distinct(jnp.concatenate(signs, axis=1))) == round(float(fixture["n_regions"]))
