"""How fast candidates of a trained supernet are evaluated, and the supernet trains: `posterior.py speed` prints it."""

import time
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from kernel import matrix_product_rate
from rich.console import Console
from rich.table import Table

from jnas.oneshot import candidates, training
from jnas.run import posterior_search, supernet_training


def report(trained: Any, kept: np.ndarray, console: Console) -> None:
    """Print candidates a second of `posterior.Trained`, for bool[B, D] of them, and training steps a second."""
    config, state, split = trained.config, trained.state, trained.work.split
    masked = trained.work._replace(supernet=replace(trained.work.supernet, choices=False))
    forms = {"all operations, masked": posterior_search.evaluator(masked, jax.random.key(config.seed))}
    if trained.work.supernet.choices and jax.default_backend() == "cpu":
        forms["a cell's operations alone"] = trained.evaluate
    table = Table(
        title=f"{config.space}, {len(split.images)} images of {trained.dataset.name}, "
        f"{len(jax.local_devices())} devices"
    )
    for heading in ("evaluated", "in one program", "candidates a second", "times one masked", "memory, MB"):
        table.add_column(heading, justify="left" if heading == "evaluated" else "right")
    first = 0.0
    for form, evaluate in forms.items():
        for count in (1, 2, 5, 10, 25, 50, 100):
            part = kept[:count]
            calls = max(1, 10 // count)

            def run(part=part, evaluate=evaluate):
                return evaluate(state.params, state.batch_stats, part, split.images, split.labels)

            run()
            times = []
            for _ in range(5):
                start = time.perf_counter()
                for _ in range(calls):
                    run()
                times.append((time.perf_counter() - start) / calls)
            rate = count / min(times)
            first = first or rate
            # One after another, cells need the memory of one.
            alone = form != next(iter(forms))
            memory = working_memory(trained, part[:1] if alone else part)
            table.add_row(form, str(count), f"{rate:.1f}", f"{rate / first:.1f}", f"{memory / 1e6:.1f}")
    console.print(table)
    settings = config.posterior
    trainer = supernet_training.make_trainer(trained.work, jax.random.key(0), state.logits)
    state, _ = trainer.epoch(trainer.init(jax.random.key(0)), 0)
    start = time.perf_counter()
    jax.block_until_ready(trainer.epoch(state, 1))
    each = (time.perf_counter() - start) / trainer.steps
    flops = step_flops(trained)
    console.print(
        f"training: {1 / each:.1f} steps a second of {settings.batch} images, {flops / 1e9:.2f} GFLOP each, "
        f"{flops / each / 1e9:.1f} GFLOP/s; matrix product {matrix_product_rate() / 1e9:.0f} GFLOP/s"
    )


def working_memory(trained: Any, kept: np.ndarray) -> int:
    """Bytes that the program needs for candidates side by side, arguments aside."""
    state, expand = trained.state, jnp.asarray(trained.work.gating.expand)
    images = jnp.asarray(trained.work.split.images[: candidates.EVALUATION_BATCH], jnp.float32)

    @jax.jit
    def logits(masks):
        return jax.vmap(
            lambda own: trained.work.supernet.evaluate(state.params, state.batch_stats, own, images)
        )(masks)

    compiled = logits.lower(jnp.asarray(kept[:, expand], jnp.float32)).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def step_flops(trained: Any) -> float:
    """Floating-point operations of the gradient of one batch, as XLA counts them."""
    settings, state = trained.config.posterior, trained.state
    objective = training.Objective(
        trained.work.gating, trained.work.inclusion, 1.0, settings.temperature,
        settings.weight_penalty, settings.entropy, settings.penalty,
    )  # fmt: skip
    images = jnp.zeros((settings.batch, *trained.work.supernet.image))
    labels = jnp.zeros(settings.batch, jnp.int32)
    loss = partial(training.loss, supernet=trained.work.supernet, objective=objective)
    gradient = jax.jit(jax.grad(loss, has_aux=True))
    weights = {"params": state.params, "logits": state.logits}
    return gradient.lower(weights, state.batch_stats, images, labels, jax.random.key(0)).cost_analysis()[
        "flops"
    ]
