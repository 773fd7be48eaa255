"""Scores of one network of one's own: `jnas.measure`.

apply = lambda params, images: model.apply({"params": params, **state}, images, mutable=list(state))
jnas.measure(apply, params, images, labels, ["ntk", "naswot", "snip"])
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jnas.errors import InputError, unknown_name
from jnas.parallel import Program, rows_outside_loops
from jnas.programs import counts
from jnas.programs.function import Apply, Function, trace
from jnas.proxies import PROXIES
from jnas.proxies.base import KERNEL, NETWORK, REGIONS, SIZE, Proxy
from jnas.proxies.of_function import measurements
from jnas.report.evaluations import data_frame
from jnas.theory.function_kernel import kernel

# Folded into the key of what proxies draw, apart from the parameters' draws.
PROBE_STREAM = 2**31 - 1


@dataclass(frozen=True)
class Measurement:
    """Scores of a network.

    values, statuses: by proxy; values are float64[repeats], nan for a failure. reasons: for each proxy that the network
    has no value of, why. params, flops, activations: sizes; flops are multiply-adds of one image. notes: what else a
    reader should know. seconds, compile_seconds: of the scores, summed over repeats, and of their programs.
    """

    values: Mapping[str, np.ndarray]
    statuses: Mapping[str, str]
    reasons: Mapping[str, str]
    params: int
    flops: int
    activations: int
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    compile_seconds: float = 0.0

    def __getitem__(self, name: str) -> float:
        """The score, averaged over repeats. Raises `KeyError` with the reason where there is none."""
        if name in self.reasons:
            raise KeyError(f"{name}: {self.reasons[name]}")
        return float(np.mean(self.values[name]))

    def to_pandas(self) -> Any:
        """A row a proxy: value, deviation over repeats, status. `InputError` says that pandas is not installed."""
        return data_frame(self._table())

    def _table(self) -> dict[str, np.ndarray]:
        names = [*self.values, *self.reasons]
        spread = [float(np.std(self.values[name])) if name in self.values else np.nan for name in names]
        return {
            "proxy": np.array(names),
            "value": np.array([self[name] if name in self.values else np.nan for name in names]),
            "deviation": np.array(spread),
            "status": np.array([self.statuses.get(name, "no value") for name in names]),
        }

    def __str__(self) -> str:
        width = max(len(name) for name in [*self.values, *self.reasons, "activations"])
        lines = [f"{name:{width}}  {self[name]:<12.6g}  {self.statuses[name]}" for name in self.values]
        lines += [f"{name:{width}}  -             {reason}" for name, reason in self.reasons.items()]
        lines += [f"{name:{width}}  {getattr(self, name):,}" for name in ("params", "flops", "activations")]
        return "\n".join([*lines, *self.notes])

    def _repr_html_(self) -> str:
        return f"<pre>{self}</pre>"


def measure(
    apply: Apply,
    params: Any,
    images: Any,
    labels: Any = None,
    proxies: Sequence[str] | str | None = None,
    *,
    repeats: int = 1,
    seed: int = 0,
    logits: str = "sum",
    parameters: str = "weights",
    memory_gb: float = 1.0,
) -> Measurement:
    """Score any network by training-free proxies; nothing has to be sown.

    ReLUs and their like, weights, normalisations and features are found in the traced program (`jnas.programs`).

    Args:
      apply: (params, images) -> logits [N, O], or a tuple that begins with them; pure. It normalises as in training.
      params: a tree of float arrays, or a function of a key that draws one, for each repeat anew.
      images: float[N, ...], standardised, N at least 2. `regions` counts the patterns of these images.
      labels: int[N], or None where no proxy needs them.
      proxies: names in `jnas.proxies.PROXIES`; None for all. `zico` takes the halves of the images as two batches.
      repeats: draws of the parameters, and of what proxies draw themselves. seed: of everything random.
      logits, parameters: of the kernel, as in `jnas.theory.function_kernel.kernel`.
      memory_gb: of the kernel's Jacobian.

    Raises `InputError` for a function that cannot be scored at all, and for wrong names or arrays.
    """
    images, targets = _checked(images, labels)
    chosen = _chosen(proxies)
    # A module of Equinox is a tree of arrays that can be called, too.
    is_drawn = callable(params) and jax.tree.leaves(params) == [params]
    initial: Callable[[Array], Any] = params if is_drawn else lambda key: params
    key = jax.random.key(seed)
    drawn = initial(jax.random.fold_in(key, 0))
    if not all(jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.floating) for leaf in jax.tree.leaves(drawn)):
        raise InputError(
            "params has arrays that are no floats: give trainable parameters, and close over the rest"
        )
    function = trace(apply, drawn, images)
    reasons = {} if labels is not None else {p.name: "needs labels" for p in chosen if p.needs_labels}

    # One program for all proxies of the network, draws side by side; the kernel is a loop of programs.
    network = [p for p in chosen if p.subject in (NETWORK, REGIONS) and p.name not in reasons]
    kernels = [p for p in chosen if p.subject == KERNEL and p.name not in reasons]
    measured_by, more = measurements(apply, function, drawn, network, images, jnp.asarray(targets))
    reasons |= more

    def measure_draw(shared: tuple[Array, Array], draw: tuple[Any, Array]) -> dict[str, Any]:
        own, key_data = draw
        return measured_by(own, jax.random.wrap_key_data(key_data), *shared)

    program = Program("network", measure_draw, rows=rows_outside_loops())
    shared = program.place((images, jnp.asarray(targets)))
    values: dict[str, list[float]] = {p.name: [] for p in chosen if p.name not in reasons}
    statuses = dict.fromkeys(values, "ok")
    probe_key = jax.random.fold_in(key, PROBE_STREAM)
    seconds = 0.0
    for start in range(0, repeats, program.room):
        numbers = range(start, min(start + program.room, repeats))
        draws = [initial(jax.random.fold_in(key, number)) for number in numbers]
        probe_keys = [jax.random.key_data(jax.random.fold_in(probe_key, number)) for number in numbers]
        started = time.perf_counter()
        rows = jax.tree.map(lambda *leaves: np.stack(leaves), *zip(draws, probe_keys, strict=True))
        for drawn, measured in zip(draws, program(shared, rows), strict=True):
            if measured is None:
                raise InputError("one draw of the network does not fit into memory: give fewer images")
            if kernels:
                theta = kernel(
                    function, drawn, images, logits=logits, parameters=parameters, memory_gb=memory_gb
                )
                measured |= dict.fromkeys([p.name for p in kernels], theta)
            for name in values:
                value, status = PROXIES[name].finish(measured[name], targets)
                values[name].append(value if np.isfinite(value) else np.nan)
                statuses[name] = status if statuses[name] == "ok" else statuses[name]
        seconds += time.perf_counter() - started

    size = counts.of_function(function.apply, drawn, images[:1])
    return Measurement(
        {name: np.array(value, np.float64) for name, value in values.items()},
        statuses,
        reasons,
        sum(leaf.size for leaf in jax.tree.leaves(drawn)),
        size.flops,
        size.activations,
        _notes(function, drawn, images),
        seconds - program.compile_seconds,
        program.compile_seconds,
    )


def _checked(images: Any, labels: Any) -> tuple[Array, np.ndarray]:
    """Images and labels as arrays. Raises `InputError` for what cannot be scored."""
    images = jnp.asarray(images)
    if images.ndim < 2 or len(images) < 2 or not jnp.issubdtype(images.dtype, jnp.floating):
        raise InputError(
            f"images are {images.dtype}{list(images.shape)}: give two or more standardised ones, floats [N, ...]"
        )
    if not bool(jnp.isfinite(images).all()):
        raise InputError("the images have values that are not finite: mend or remove them")
    targets = np.zeros(len(images), np.int32) if labels is None else np.asarray(labels)
    if targets.shape != (len(images),) or not np.issubdtype(targets.dtype, np.integer):
        raise InputError(
            f"labels are {targets.dtype}{list(targets.shape)}: give an integer for each of {len(images)} images"
        )
    return images, targets.astype(np.int32)


def _chosen(names: Sequence[str] | str | None) -> list[Proxy]:
    if names is None:
        return [proxy for proxy in PROXIES.values() if proxy.subject != SIZE]
    names = names.split(",") if isinstance(names, str) else names
    for name in names:
        if name not in PROXIES:
            raise unknown_name("proxy", name, PROXIES)
    return [PROXIES[name] for name in dict.fromkeys(names) if PROXIES[name].subject != SIZE]


def _notes(function: Function, params: Any, images: Array) -> tuple[str, ...]:
    """Observations that a reader of the scores should know."""
    notes = []
    idle = [name for name, matters in zip(function.names, function.matters, strict=True) if not matters]
    if idle:
        notes.append(f"parameters that no logit depends on: {', '.join(idle)}")
    if function.loops:
        notes.append("there is a while loop: what is inside is not seen")
    if not bool(jnp.isfinite(function.apply(params, images)).all()):
        notes.append("the logits are not finite")
    return tuple(notes)
