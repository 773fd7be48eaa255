"""The rows of `peers.py`: the same work for jnas and for plain PyTorch, with the same weights and images."""

import itertools
import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import peers_networks
import peers_scores
import torch
from msgspec.structs import replace
from train import DARTS_V2, RESIDUAL_CELL

from jnas import data as datasets
from jnas import spaces
from jnas.config.score import from_mapping
from jnas.estimators import training
from jnas.estimators.proxies import proxies
from jnas.estimators.settings import NASBENCH201, NtkConfig, Recipe
from jnas.nets import macro, networks, trainable, two_inputs
from jnas.nets.modules import Build, initial_parameters
from jnas.nets.sizes import Macro
from jnas.parallel import Program
from jnas.proxies import PROXIES, proxy_value, subjects
from jnas.spaces import genotype
from jnas.spaces.base import Graph
from jnas.strategies import pruning
from jnas.types import Candidates

CLASSES, CELLS_PER_STAGE, CHANNELS, IMAGES = 10, 5, 16, 64
# Relative: sums of float32 in another order. The eigenvalues of jacob_cov and the second derivative amplify them. Both
# sides' grasp agree to 1e-12 in float64; of the first four cells one has gradients of norm 161 and no skip connection,
# where float32 is 1e-3 (PyTorch) and 3e-2 (jnas) from that.
TOLERANCES = {
    "synflow": 1e-5, "snip": 1e-3, "grad_norm": 1e-3, "fisher": 1e-3, "jacob_cov": 1e-3, "grasp": 5e-2,
}  # fmt: skip
# Units that a compilation is spread over in the column `200`.
MANY = 200


class Row(NamedTuple):
    """One comparison.

    pytorch, jnas: one call each. The first calls, jnas's before PyTorch's, give arrays to compare; the first of jnas
      compiles, the first of PyTorch builds its networks. jnas's next calls must not find their results.
    tolerances: of each array.
    units: kernels, cells or steps of one call.
    programs: how many programs `MANY` units need, in units of those that a call compiles; None: no such number.
    """

    work: str
    pytorch: Callable[[], list[Any]]
    jnas: Callable[[], list[Any]]
    tolerances: Sequence[float]
    units: int = 1
    programs: float | None = 1


def peer_graph(graph: Graph, gates: np.ndarray | None = None) -> Any:
    """A cell for PyTorch, each operation that an edge may carry weighed by gates [E, K], or as it is."""
    edges = [
        (*graph.edges[edge], graph.stride_of(edge), {
            graph.operations[k]: 1.0 if gates is None else float(gates[edge, k])
            for k in graph.choices[edge] if graph.operations[k] != "none"
        })
        for edge in range(len(graph.edges))
    ]  # fmt: skip
    return peers_networks.Graph(edges, graph.outputs or (graph.nodes - 1,))


def arrays(tree: Any) -> Any:
    return jax.tree.map(np.asarray, tree)


def kernel(name: str, batch: int, normalisation: str, channels: int) -> Row:
    """The tangent kernel of the whole supernet of a space, as the first round of TE-NAS scores it."""
    space = spaces.get(name)
    gates = pruning.ask(pruning.init(space))[:1]
    functions = subjects.kernel(name, NtkConfig(channels=channels, normalisation=normalisation), CLASSES)
    key, images = jax.random.key(0), jax.random.normal(jax.random.key(1), (batch, 32, 32, 3))
    program = Program("kernel", functions.measure)

    @cache
    def peer() -> tuple[Any, Any]:
        params = arrays(functions.init(key, images)[0])
        graphs = [peer_graph(graph, rows) for graph, rows in zip(space.graphs, gates[0], strict=True)]
        network = (
            peers_networks.residual(graphs[0], params, 1)
            if name == "nasbench201"
            else peers_networks.TwoInputs(graphs, params, (0, 1))
        )
        return network, peers_networks.images_of(images)

    return Row(
        f"kernel, {name}, {normalisation}, batch {batch}",
        lambda: [peers_scores.kernel(*peer(), normalisation == "frozen")],
        lambda: program(functions.init(key, images), gates),
        [1e-3],
    )


def some_cells(count: int) -> np.ndarray:
    """Cells of NAS-Bench-201, no two equivalent, in which something reaches the output: int32[B, D]."""
    space = spaces.get("nasbench201")
    drawn = np.asarray(space.canonical(space.sample(jax.random.key(0), 4 * count)))
    distinct = {row.tobytes(): row for row in drawn if row.any()}
    return np.stack(list(distinct.values())[:count])


def restricted(params: Any, choices: np.ndarray) -> tuple[Any, Any]:
    """Cell and parameters of one architecture int[1, E] of the network to be trained, for PyTorch."""
    space = spaces.get("nasbench201")
    size = Macro(CHANNELS, CELLS_PER_STAGE, classes=CLASSES)
    own = macro.restricted_params(networks.build(space, size, Build()), params, choices)
    return peer_graph(space.graphs[0].restricted([(int(k),) for k in choices[0]])), arrays(own)


def network_sizes() -> dict[str, int]:
    """Settings of the network that scores look at."""
    return {"channels": CHANNELS, "cells_per_stage": CELLS_PER_STAGE, "batch": IMAGES}


def scores(names: Sequence[str], cells: np.ndarray, data: str) -> tuple[Row, Callable[[], dict[str, Any]]]:
    """Scores of cells, and the contents of the file that PyTorch scores from in a process of its own."""
    space, dataset = spaces.get("nasbench201"), datasets.load(data)
    config = from_mapping({"data": data, "network": network_sizes()})
    estimator = proxies(space, names, dataset, config)
    # Another key draws weights and images anew, so that nothing is known of the cells. The first is that of `--seed 0`.
    seeds = itertools.count()

    def jnas() -> list[Any]:
        values = estimator.evaluate(jax.random.key(next(seeds)), Candidates(architectures=cells)).value
        return [proxy_value(name, value) for row in values for name, value in zip(names, row, strict=True)]

    @cache
    def peer() -> dict[str, Any]:
        """Weights and images of the first call."""
        members, subject = tuple(PROXIES[name] for name in names), subjects.SUBJECTS["network"]
        functions = subjects.network(space, config.network, members, CLASSES)
        ((key, sample),) = subjects.samples(subject, jax.random.key(0), dataset, config, members)
        params = functions.init(key, *sample.arrays)[0]
        images, labels = arrays((sample.arrays[0][0], sample.arrays[1][0]))
        parts = [restricted(params, choices) for choices in np.asarray(space.choices(cells))]
        return {
            "networks": [(tuple(graph), own) for graph, own in parts],
            "images": images,
            "labels": labels,
            "cells_per_stage": CELLS_PER_STAGE,
        }

    @cache
    def built() -> Any:
        return peers_scores.read(peer())

    def pytorch() -> list[Any]:
        built_networks, x, y = built()
        return [peers_scores.PROXIES[name](network, x, y) for network in built_networks for name in names]

    row = Row(
        names[0] if len(names) == 1 else f"{len(names)} scores together",
        pytorch,
        jnas,
        [TOLERANCES[name] for name in names] * len(cells),
        len(cells),
    )
    return row, peer


def peaks(cells: np.ndarray, data: str, folder: Path, threads: int) -> str:
    """The largest memory of the six scores together, each side in a process of its own."""
    space, file, listed = spaces.get("nasbench201"), folder / "work.pickle", folder / "cells.txt"
    work = scores(list(TOLERANCES), cells, data)[1]()
    file.write_bytes(pickle.dumps({**work, "threads": threads}))
    listed.write_text("\n".join(space.to_string(row) for row in cells))
    peer = str(Path(__file__).with_name("peers_scores.py"))
    output = subprocess.run(
        [sys.executable, peer, str(file)], capture_output=True, text=True, check=True
    ).stdout
    # jnas's command does not tell its memory: read it while the process lives.
    command = ["-m", "jnas", "score", "--archs", str(listed), "--proxies", ",".join(TOLERANCES)]
    command += ["--data", data, "--out", str(folder / "scores.csv")]
    for name, value in network_sizes().items():
        command += [f"--network.{name}", str(value)]
    process = subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "0"},
    )
    peak = 0.0
    while process.poll() is None:
        time.sleep(0.05)
        text = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
        if "VmHWM:" in text:
            peak = int(text.partition("VmHWM:")[2].split()[0]) / 2**20
    if process.returncode:
        raise RuntimeError("jnas score failed")
    return (
        f"largest memory of row 11, {len(cells)} cells: PyTorch {json.loads(output)['peak_gb']:.2f} GB, "
        f"jnas {peak:.2f} GB, compilation included"
    )


def summary(loss: Any, gradient: Any) -> list[Any]:
    """The loss, the norm of the gradient of all parameters and the part of the stem."""
    return [loss, optax.global_norm(gradient), gradient["stem"]["kernel"]]


def whole_networks(cells: np.ndarray) -> Iterator[Row]:
    """Loss and gradient of the networks to be trained, compiled one by one and as one program."""
    space, key = spaces.get("nasbench201"), jax.random.key(0)
    images = jax.random.normal(jax.random.key(1), (IMAGES, 32, 32, 3))
    labels = jnp.arange(IMAGES) % CLASSES
    choices = np.asarray(space.choices(cells), np.int32)
    supernet = networks.build(space, Macro(CHANNELS, CELLS_PER_STAGE, classes=CLASSES), Build(loops=True))
    params = initial_parameters(supernet, key, images[:1], choices[0])
    parts = [restricted(params, row) for row in choices]

    # PyTorch.
    built = [peers_networks.residual(graph, own, CELLS_PER_STAGE) for graph, own in parts]
    x, y = peers_networks.images_of(images), torch.tensor(np.asarray(labels)).long()

    def pytorch() -> list[Any]:
        out: list[Any] = []
        for network in built:
            network.zero_grad()
            loss = torch.nn.functional.cross_entropy(network(x), y)
            loss.backward()
            gradients = [w.grad for w in network.parameters() if w.grad is not None]
            stem = network[0][0].weight.grad.permute(2, 3, 1, 0)
            norm = sum(gradient.square().sum() for gradient in gradients) ** 0.5
            out += [loss.detach().numpy(), norm.numpy(), stem.numpy()]
        return out

    # A program for each cell, as its training compiles.
    def of_cell(row: np.ndarray) -> Callable[..., list[Any]]:
        text = space.to_string(row)
        network = trainable.of_architecture(
            "nasbench201", text, (32, 32, 3), CLASSES, CHANNELS, CELLS_PER_STAGE
        )
        statistics = network.init(key)[1]

        def loss_of(params: Any, images: Any, labels: Any) -> tuple[Any, Any]:
            logits, _, updated = network.train(params, statistics, images, 0.0, None)
            return training.cross_entropy(logits, labels), updated

        def run(params: Any, images: Any, labels: Any) -> tuple[Any, Any]:
            (loss, updated), gradient = jax.value_and_grad(loss_of, has_aux=True)(params, images, labels)
            return summary(loss, gradient), updated

        return jax.jit(run)

    compiled = [(of_cell(row), own) for row, (_, own) in zip(cells, parts, strict=True)]

    def apart() -> list[Any]:
        return [
            value for run, own in compiled for value in jax.block_until_ready(run(own, images, labels))[0]
        ]

    # One program for all.
    def measure(shared: Any, row: Any) -> list[Any]:
        params, images, labels = shared

        def loss_of(params: Any) -> Any:
            return training.cross_entropy(supernet.apply({"params": params}, images, row), labels)

        return summary(*jax.value_and_grad(loss_of)(params))

    program, shared = Program("loss", measure), (params, images, labels)
    together = lambda: [value for out in program(shared, choices) for value in out]  # noqa: E731
    # In float64 both sides agree to 2e-12; the fourth cell's gradient, of norm 200, amplifies rounding.
    tolerances, count = [1e-4, 5e-3, 5e-2] * len(cells), len(cells)
    yield Row("loss and gradient, each compiled", pytorch, apart, tolerances, count, MANY / count)
    yield Row("loss and gradient, one program", pytorch, together, tolerances, count)


def step(space: str, text: str, batch: int, cells_per_stage: int, recipe: Recipe) -> Row:
    """A step of training: three steps of each call go on from where the last call stopped."""
    steps, total = 3, 1000
    network = trainable.of_architecture(space, text, (32, 32, 3), CLASSES, CHANNELS, cells_per_stage)
    trainer = training.trainer(network, recipe, steps=total, normalise=lambda images: images)
    images = jax.random.normal(jax.random.key(1), (batch, 32, 32, 3))
    labels = jnp.arange(batch) % CLASSES
    init, run, known = jax.jit(trainer.init), jax.jit(trainer.step), spaces.get(space)
    state: Any = None

    def jnas() -> list[Any]:
        nonlocal state
        state = init(jax.random.key(0)) if state is None else state
        losses = []
        for _ in range(steps):
            state, info = run(state, jax.random.key(0), (images, labels), None)
            losses.append(float(info["train_loss"]))
        jax.block_until_ready(state)
        return losses

    @cache
    def peer() -> tuple[Any, ...]:
        params = arrays(init(jax.random.key(0)).params)
        if space == "darts":
            graphs = [peer_graph(graph) for graph in two_inputs.graphs_of(genotype.parse(text))]
            kinds = networks.build(known, Macro(CHANNELS, cells_per_stage, classes=CLASSES), Build()).kinds
            module: Any = peers_networks.TwoInputs(graphs, params, kinds)
        else:
            (choices,) = np.asarray(known.choices(known.from_string(text)))
            graph = known.graphs[0].restricted([(int(k),) for k in choices])
            module = peers_networks.residual(peer_graph(graph), params, cells_per_stage)
        optimizer = torch.optim.SGD(
            module.parameters(), recipe.learning_rate, recipe.momentum, weight_decay=recipe.weight_decay,
            nesterov=recipe.nesterov,
        )  # fmt: skip
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
        x, y = peers_networks.images_of(images), torch.tensor(np.asarray(labels)).long()
        return schedule, (module, optimizer, x, y, recipe.clip)

    def pytorch() -> list[Any]:
        schedule, arguments = peer()
        losses = []
        for _ in range(steps):
            losses.append(peers_scores.training_step(*arguments))
            schedule.step()
        return losses

    name = f"training step, {space}, batch {batch}"
    return Row(name, pytorch, jnas, [1e-4, 1e-3, 1e-2], steps, None)


def rows_of(number: int, cells: np.ndarray, data: str) -> Iterator[Row]:
    """The rows of one number."""
    if number <= 3:
        yield kernel("nasbench201", 32 if number == 2 else 72, "frozen" if number == 3 else "train", 3)
    elif number == 4:
        yield kernel("darts", 14, "train", 1)
    elif number <= 11:
        names = list(TOLERANCES)
        yield scores(names if number == 11 else [names[number - 5]], cells, data)[0]
    elif number == 12:
        yield from whole_networks(cells)
    elif number == 13:
        plain = replace(NASBENCH201, augment=False)
        yield step("nasbench201", RESIDUAL_CELL, 64, CELLS_PER_STAGE, plain)
    else:
        plain = Recipe(augment=False, cutout=0, drop_path=0.0, auxiliary=0.0)
        yield step("darts", DARTS_V2, 32, 2, plain)
