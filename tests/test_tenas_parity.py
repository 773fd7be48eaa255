"""What the TE-NAS authors' released code computes, jnas computes: from the same weights and images.

The files are read from the folder named by `JNAS_TENAS_FIXTURES`; each holds weights by the authors' names,
inputs, and what their code returned for them.
"""

import os
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from jnas.nets.modules import Build
from jnas.nets.nasbench201 import Network
from jnas.proxies import ntk, regions
from jnas.theory import empirical_ntk

DEFAULT = Path(__file__).parents[2] / "shared" / "fixtures" / "tenas"
FOLDER = Path(os.environ.get("JNAS_TENAS_FIXTURES") or DEFAULT)
FILES = sorted(FOLDER.glob("nasbench201_*.npz"))
OPERATIONS = {"2": "nor_conv_1x1", "3": "nor_conv_3x3"}

# Compiled only to run once.
compiled = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

if FILES:
    over_files = pytest.mark.parametrize("fixture", FILES, ids=lambda path: path.stem, indirect=True)
else:
    over_files = pytest.mark.parametrize(
        "fixture", [pytest.param(None, marks=pytest.mark.skip(reason=f"no nasbench201_*.npz in '{FOLDER}'"))]
    )


def our_path(name: str) -> tuple[str, ...]:
    """Where jnas keeps the parameter that the authors call `name`."""
    first, *rest, last = name.split(".")
    leaf = {"weight": "scale", "bias": "offset"}[last]
    if first == "classifier":
        return ("classifier_kernel" if last == "weight" else "classifier_bias",)
    if first == "lastact":
        return ("last_norm", leaf)
    if first == "stem":
        return ("stem", "kernel") if rest == ["0"] else ("stem", "norm", leaf)
    # cells.I.edges.T<-S.O.op.(1 convolution, 2 normalisation), or cells.I.conv_x.op.(1, 2) of residual blocks
    index, kind = int(rest[0]), rest[1]
    if kind == "edges":
        target, source = rest[2].split("<-")
        group = (f"cell_{index // 2}_0", f"edge_{source}_{target}_{OPERATIONS[rest[3]]}")
    elif kind == "downsample":
        return (f"residual_{(index + 1) // 2}", "downsample")
    else:
        group = (f"residual_{(index + 1) // 2}", kind)
    return (*group, "kernel") if rest[-1] == "1" else (*group, "norm", leaf)


def our_params(arrays: dict[str, np.ndarray], network: str) -> dict:
    """The authors' weights as parameters of `Network`: convolutions [O, C, k, k] to [k, k, C, O]."""
    params: dict = {}
    for key, value in arrays.items():
        if key.startswith(f"{network}/"):
            *groups, leaf = our_path(key.partition("/")[2])
            place = params
            for group in groups:
                place = place.setdefault(group, {})
            place[leaf] = jnp.asarray(value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T)
    return params


@pytest.fixture(scope="module")
def fixture(request):
    with np.load(request.param) as archive:
        arrays = dict(archive)
    for name in ("images", "crops"):
        arrays[name] = arrays[name].transpose(0, 2, 3, 1)
    return arrays


@pytest.fixture(scope="module")
def kernel_function():
    """(params, images, gates) to logits and kernel of either build; each compiles once for all files."""

    def make(planes):
        network = Network(3, 10, Build(planes=planes))

        def evaluate(params, images, gates):
            def apply(params, images):
                return network.apply({"params": params}, images, gates)

            if planes:
                kernel = ntk.kernel_function(
                    params, images, lambda build: network.clone(build=build), normalisation="train",
                    logits="sum", parameters="weights", implementation="jnas",
                )(gates)  # fmt: skip
            else:
                counted, rest = empirical_ntk.split(params, "weights")

                def summed(counted):
                    return apply(traverse_util.unflatten_dict({**counted, **rest}), images).sum(-1)

                _, pullback = jax.vjp(summed, counted)
                (rows,) = jax.lax.map(pullback, jnp.eye(len(images)))
                flat = jnp.concatenate([row.reshape(len(images), -1) for row in rows.values()], axis=1)
                kernel = flat @ flat.T
            return apply(params, images), kernel

        return jax.jit(evaluate)

    return {planes: make(planes) for planes in (False, True)}


@over_files
@pytest.mark.parametrize("planes", [False, True], ids=["plain", "planes"])
def test_kernel(fixture, kernel_function, planes):
    params = our_params(fixture, "ntk_net")
    logits, kernel = kernel_function[planes](
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


@over_files
@pytest.mark.parametrize("planes", [False, True], ids=["plain", "planes"])
def test_regions(fixture, planes):
    params = our_params(fixture, "region_net")
    network = Network(1, 10, Build(planes=planes), stages=1, stem=False)

    @compiled
    def patterns(params, crops, gates):
        _, sown = network.apply({"params": params}, crops, gates, mutable=["patterns"])
        # On planes images come second: [C, N, H, W].
        axis = network.build.layout.index("N")
        return [
            jnp.moveaxis(leaf, axis, 0).reshape(len(crops), -1) for leaf in jax.tree.leaves(sown["patterns"])
        ]

    signs = patterns(params, jnp.asarray(fixture["crops"]), jnp.asarray(fixture["gates"]))
    assert int(regions.count_distinct(jnp.concatenate(signs, axis=1))) == round(float(fixture["n_regions"]))
