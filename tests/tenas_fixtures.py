"""The weights in files of the TE-NAS authors' released code, as parameters of jnas's networks."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from jnas.spaces import darts, nasbench201

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
    flat, edges = {}, {}
    for name, value in of_network(arrays, network).items():
        *group, place = _nasbench201_path(name)
        if isinstance(place, tuple):
            edges.setdefault(tuple(group), {})[place] = value
        else:
            flat[(*group, place)] = value
    # One cell a stage, and its edges in their order.
    stacked = {path: np.stack([own[edge] for edge in nasbench201.EDGES])[None] for path, own in edges.items()}
    return _nested(flat | stacked)


def darts_params(arrays: Mapping[str, np.ndarray], network: str) -> dict:
    """Parameters of `jnas.nets.two_inputs.TwoInputs`."""
    flat = of_network(arrays, network)
    params = {
        _outer_path(name) or _input_path(name): value for name, value in flat.items() if ".edges." not in name
    }
    cells = sorted({name.split(".")[1] for name in flat if ".edges." in name})
    for cell in cells:

        def stacked(part, edges=darts.EDGES, cell=cell):
            return np.stack(
                [flat[f"cells.{cell}.edges.{target - 2}<-{source}._ops.{part}"] for source, target in edges]
            )

        for index, name in enumerate(darts.OPERATIONS):
            place = (f"cell_{cell}", name)
            for round, prefix in enumerate(("op_a.", "op_b.") if name.startswith("sep") else ("",)):
                if "conv" in name:
                    base = f"{index}.{prefix}op"
                    params[(*place, f"depthwise_{round}")] = stacked(f"{base}.1.weight")
                    params[(*place, f"pointwise_{round}")] = stacked(f"{base}.2.weight")
                    for theirs, ours in LEAVES.items():
                        params[(*place, f"norms_{round}", ours)] = stacked(f"{base}.3.{theirs}")
            if cell == "1" and name == "skip_connect":
                halving = [edge for edge in darts.EDGES if edge[0] < 2]
                params[(*place, "plain")] = stacked("1.convs.0.weight", halving)
                params[(*place, "shifted")] = stacked("1.convs.1.weight", halving)
                for theirs, ours in LEAVES.items():
                    params[(*place, "norm", ours)] = stacked(f"1.bn.{theirs}", halving)
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
    module = f"cell_{cell}_{ {'preprocess0': 'older', 'preprocess1': 'younger'}[kind] }"
    return (module, "kernel") if place == "1" else (module, "norm", LEAVES[last])


def _nasbench201_path(name: str) -> tuple:
    """The path of a parameter; of those of an edge with (source, target) at its end."""
    outer = _outer_path(name)
    if outer:
        return outer
    _, *rest, last = name.split(".")
    leaf = LEAVES[last]
    # cells.I.edges.T<-S.O.op.(1 convolution, 2 normalisation), or cells.I.conv_x.op.(1, 2) of residual blocks
    index, kind = int(rest[0]), rest[1]
    if kind == "edges":
        target, source = rest[2].split("<-")
        group = (f"cells_{index // 2}", NASBENCH201[rest[3]])
        path = (*group, "kernel") if rest[-1] == "1" else (*group, "norm", leaf)
        return (*path, (int(source), int(target)))
    elif kind == "downsample":
        return (f"residual_{(index + 1) // 2}", "downsample")
    else:
        group = (f"residual_{(index + 1) // 2}", kind)
    return (*group, "kernel") if rest[-1] == "1" else (*group, "norm", leaf)
