"""A trained network as files that outlive jnas's checkpoints: weights with their description, and a compiled program.

    network.safetensors   params and batch_stats; in its header, as text, the architecture, the sizes of the network and
                          the preprocessing; nothing in it can run code
    network.stablehlo     the network from any number of stored images to logits, by jax.export;
                          `jax.export.deserialize` runs it without jnas

`load` reads the first.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax import Array
from jax import export as jax_export

from jnas.data import transforms
from jnas.errors import InputError
from jnas.estimators.training import State
from jnas.nets import trainable
from jnas.store.checkpoints import last_state
from jnas.store.folder import read_run, write_file

WEIGHTS, PROGRAM = "network.safetensors", "network.stablehlo"
FORMAT = "jnas network 1"
# Platforms of the program.
PLATFORMS = ("cpu", "cuda", "tpu")


@dataclass(frozen=True)
class Loaded:
    """A trained network.

    apply: compiled function of images as they are stored, uint8 or float32 [N, H, W, C], to logits float32[N, O];
      raises `InputError` for images of another size.
    params, batch_stats: weights and running statistics.
    space, architecture: names of the space and text of the architecture.
    image: (H, W, C).
    classes: O.
    mean, std: of the channels, by which `apply` standardises images.
    """

    apply: Any
    params: Any
    batch_stats: Any
    space: str
    architecture: str
    image: tuple[int, int, int]
    classes: int
    mean: np.ndarray
    std: np.ndarray


def export(run: str | Path, out: str | Path) -> Path:
    """Write the network of a finished training into the folder `out` and return the path of its weights.

    Writes the averaged weights where the training has an average. Raises `InputError` where `run` is no finished
    training or `out` cannot be written, `RunError` when the disk is full or the state cannot be read.
    """
    safetensors = _safetensors()
    result, config = read_run(run)
    if result["kind"] != "training":
        raise InputError(f"'{run}' holds a {result['kind']}, not a training: export what jnas train wrote")
    state = _last_state(Path(run))
    params = state["average"] or state["params"]
    params = {name: value for name, value in params.items() if name != "auxiliary_head"}
    statistics = {name: value for name, value in state["batch_stats"].items() if name != "auxiliary_head"}
    network = {name: result[name] for name in ("image", "classes")}
    network |= {name: config[name] for name in ("channels", "cells_per_stage")}
    header = {
        "format": FORMAT,
        "space": result["space"],
        "architecture": result["architecture"],
        "network": json.dumps(network),
        "preprocessing": json.dumps({"mean": result["mean"], "std": result["std"], "uint8_divided_by": 255}),
        "test_accuracy": f"{result['test_accuracy']:.4f}",
    }
    arrays = {
        "/".join((kind, *path)): np.asarray(value)
        for kind, tree in (("params", params), ("batch_stats", statistics))
        for path, value in traverse_util.flatten_dict(tree).items()
    }
    out = Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder '{out}' ({error.strerror}): give another --out") from error
    write_file(out / WEIGHTS, safetensors.numpy.save(arrays, metadata=header))
    loaded = load(out / WEIGHTS)
    (count,) = jax_export.symbolic_shape("n")
    images = jax.ShapeDtypeStruct((count, *loaded.image), jnp.float32)
    write_file(out / PROGRAM, bytes(jax_export.export(loaded.apply, platforms=PLATFORMS)(images).serialize()))
    return out / WEIGHTS


def load(path: str | Path) -> Loaded:
    """Read the network that `export` wrote, from its weights' file or the folder that holds it.

    Raises `InputError` where there is none, the file is truncated or no network of jnas's, or its weights do not fit
    its architecture.
    """
    safetensors = _safetensors()
    path = Path(path)
    path = path / WEIGHTS if path.is_dir() else path
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read '{path}' ({error.strerror}): give what jnas export wrote") from error
    try:
        arrays = safetensors.numpy.load(content)
        size = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + size])["__metadata__"]
        network, preprocessing = json.loads(header["network"]), json.loads(header["preprocessing"])
        if header["format"] != FORMAT:
            raise KeyError(header["format"])
        sizes = (network["image"], network["classes"], network["channels"], network["cells_per_stage"])
    except (KeyError, ValueError, TypeError, safetensors.SafetensorError) as error:
        raise InputError(
            f"'{path}' is truncated or no network of jnas's ({type(error).__name__}): export it again"
        ) from error
    space, text = header["space"], header["architecture"]
    image = tuple(sizes[0])
    built = trainable.of_architecture(space, text, image, *sizes[1:])
    flat = {tuple(name.split("/")): jnp.asarray(value) for name, value in arrays.items()}
    variables = traverse_util.unflatten_dict(flat)
    params, statistics = variables.get("params", {}), variables.get("batch_stats", {})
    expected, stored = (
        {key: leaf.shape for key, leaf in traverse_util.flatten_dict({"p": tree[0], "s": tree[1]}).items()}
        for tree in (trainable.shapes(built), (params, statistics))
    )
    wrong = [key for key in expected | stored if expected.get(key) != stored.get(key)]
    if wrong:
        raise InputError(
            f"'{path}' does not hold the weights of its architecture: {len(wrong)} arrays are missing, too many or of "
            f"another shape, such as {'/'.join(wrong[0][1:])}; export it again"
        )
    mean, std = (np.asarray(preprocessing[name], np.float32) for name in ("mean", "std"))

    @jax.jit
    def apply(images: Array) -> Array:
        if images.ndim != 4 or images.shape[1:] != image:
            expected, given = ("x".join(map(str, shape)) for shape in (("N", *image), images.shape))
            raise InputError(f"images {given} do not fit: '{path}' was trained on images {expected}")
        return built.evaluate(params, statistics, transforms.standardise(images, mean, std))

    return Loaded(apply, params, statistics, space, text, image, sizes[1], mean, std)


def _last_state(run: Path) -> dict[str, Any]:
    """The state of the training itself: a `jnas.estimators.training.State` as a mapping."""
    state = last_state(run / "checkpoints")["state"]
    # Named tuples come back as mappings, or as lists by orbax's version.
    return state if isinstance(state, dict) else dict(zip(State._fields, state, strict=False))


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise InputError("exported networks take safetensors: pip install 'jnas[train]'") from error
    return safetensors
