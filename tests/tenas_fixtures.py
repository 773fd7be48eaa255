"""The weights in files of the TE-NAS authors' released code, as parameters of jnas's networks."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from jnas.spaces import darts

LEAVES = {"weight": "scale", "bias": "offset"}
NASBENCH201 = {"2": "nor_conv_1x1", "3": "nor_conv_3x3"}


def of_network(arrays: Mapping[str, np.ndarray], network: str) -> dict[str, np.ndarray]:
    """What belongs to `network`, by the authors' names; convolutions [O, C, k, k] as [k, k, C, O]."""
    return {
        key.partition("/")[2]: value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
        for key, value in arrays.items()
        if key.startswith(f"{network}/")
    }


def nasbench201_params(arrays: Mapping[str, np.ndarray], network: str) -> dict:
    """Parameters of `jnas.nets.nasbench201.Network`."""
    return _nested({_nasbench201_path(name): value for name, value in of_network(arrays, network).items()})


def darts_params(arrays: Mapping[str, np.ndarray], network: str) -> dict:
    """Parameters of `jnas.nets.darts.Network`: the edges from one node stand side by side."""
    flat = of_network(arrays, network)
    params = {
        _outer_path(name) or _input_path(name): value for name, value in flat.items() if ".edges." not in name
    }
    cells = sorted({name.split(".")[1] for name in flat if ".edges." in name})
    for cell in cells:
        for source in range(5):
            targets = [target for start, target in darts.EDGES if start == source]

            def side_by_side(part, targets=targets, cell=cell, source=source):
                own = [flat[f"cells.{cell}.edges.{target - 2}<-{source}._ops.{part}"] for target in targets]
                return np.stack(own) if own[0].shape[:2] == (1, 1) else np.concatenate(own, axis=-1)

            place = (f"cell_{cell}", f"from_{source}")
            for index, name in enumerate(darts.OPERATIONS):
                for round, prefix in enumerate(("op_a.", "op_b.") if name.startswith("sep") else ("",)):
                    if "conv" in name:
                        key, base = f"{name}_{round}", f"{index}.{prefix}op"
                        params[(*place, f"{key}_depthwise")] = side_by_side(f"{base}.1.weight")
                        params[(*place, f"{key}_pointwise")] = side_by_side(f"{base}.2.weight")
                        for theirs, ours in LEAVES.items():
                            params[(*place, f"norms_{key}", ours)] = side_by_side(f"{base}.3.{theirs}")
            if cell == "1" and source < 2:
                params[(*place, "skip_plain")] = side_by_side("1.convs.0.weight")
                params[(*place, "skip_shifted")] = side_by_side("1.convs.1.weight")
                for theirs, ours in LEAVES.items():
                    params[(*place, "norms_skip_connect", ours)] = side_by_side(f"1.bn.{theirs}")
    return _nested(params)


def _nested(flat: Mapping[tuple[str, ...], np.ndarray]) -> dict:
    params: dict = {}
    for (*groups, leaf), value in flat.items():
        place = params
        for group in groups:
            place = place.setdefault(group, {})
        place[leaf] = jnp.asarray(value)
    return params


def _outer_path(name: str) -> tuple[str, ...]:
    """Of what stands outside the cells; empty for what does not."""
    first, *rest, last = name.split(".")
    if first == "classifier":
        return ("classifier_kernel" if last == "weight" else "classifier_bias",)
    if first == "lastact":
        return ("last_norm", LEAVES[last])
    if first == "stem":
        return ("stem", "kernel") if rest == ["0"] else ("stem", "norm", LEAVES[last])
    return ()


def _input_path(name: str) -> tuple[str, ...]:
    _, cell, kind, _, place, last = name.split(".")
    module = (f"cell_{cell}", {"preprocess0": "older", "preprocess1": "younger"}[kind])
    return (*module, "kernel") if place == "1" else (*module, "norm", LEAVES[last])


def _nasbench201_path(name: str) -> tuple[str, ...]:
    outer = _outer_path(name)
    if outer:
        return outer
    _, *rest, last = name.split(".")
    leaf = LEAVES[last]
    # cells.I.edges.T<-S.O.op.(1 convolution, 2 normalisation), or cells.I.conv_x.op.(1, 2) of residual blocks
    index, kind = int(rest[0]), rest[1]
    if kind == "edges":
        target, source = rest[2].split("<-")
        group = (f"cell_{index // 2}_0", f"edge_{source}_{target}_{NASBENCH201[rest[3]]}")
    elif kind == "downsample":
        return (f"residual_{(index + 1) // 2}", "downsample")
    else:
        group = (f"residual_{(index + 1) // 2}", kind)
    return (*group, "kernel") if rest[-1] == "1" else (*group, "norm", leaf)
