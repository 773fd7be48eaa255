"""Run one function over many rows: pad, loop, vectorise, shard over devices, split where memory does not suffice.

A row is one architecture, one supernet's gates, one candidate's masks. `Program` is the only place that knows how many
rows a device takes side by side.
"""

import logging
import math
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

log = logging.getLogger("jnas")

AXIS = "architectures"
# XLA's flag of how many devices a CPU has.
HOST_DEVICES = "xla_force_host_platform_device_count"
# Rows of one call for each device: few enough that results appear often.
ROWS_ON_CPU = 16
ROWS_ON_ACCELERATOR = 256
# Widths on an accelerator, beside all rows. The widest that a call fills is taken: seven rows do not pay for 256.
WIDTHS = (1, 8, 64)
# The width that is compiled first, to measure how much memory a row takes.
FIRST_WIDTH = 8
# Physical memory for each core that becomes a device: rows of the network to be trained take a gigabyte and more.
MEMORY_OF_A_CORE = 4e9
# Compiled programs of each function, so that a second call of `jnas.score` in one process compiles nothing.
_COMPILED: WeakKeyDictionary[Callable[..., Any], dict[Any, Any]] = WeakKeyDictionary()


class Program:
    """One compiled function of rows.

        program = Program("kernel", function)
        outputs = program(program.place(shared), rows)

    Args:
      name: for the log.
      function: (shared, row) -> arrays, traced once. All data are in `shared` and `row`, pytrees of arrays.
      cpu_width: rows side by side on a CPU. One, and a conditional on the row runs the chosen branch alone; `rows`,
        and there is no loop, within which XLA has no fast form of grouped convolutions on a CPU.
      rows: rows of one call for each device; by default few on a CPU, many on an accelerator.
      memory_gb: of an accelerator's memory, for working space; half of all where 0.

    On an accelerator the width follows from the memory that the compiled program asks for. Several devices share the
    rows, each an equal part. `room` is the number of rows of one call; calls with more are split.
    `compile_seconds` is the time of all compilations so far.
    """

    def __init__(
        self,
        name: str,
        function: Callable[[Any, Any], Any],
        *,
        cpu_width: int = 1,
        rows: int | None = None,
        memory_gb: float = 0.0,
    ):
        devices = jax.local_devices()
        self._name, self._function = name, jax.jit(function)
        self._mesh = Mesh(np.array(devices), (AXIS,)) if len(devices) > 1 else None
        self._rows = rows or rows_at_once() // len(devices)
        self._widths: tuple[int, ...] = (cpu_width,)
        self._budget: float | None = None
        if jax.default_backend() == "cpu":
            # Work on a CPU does not grow with the width.
            self._rows = self._limit = math.ceil(self._rows / cpu_width) * cpu_width
        else:
            self._widths = (*(width for width in WIDTHS if width < self._rows), self._rows)
            memory = (devices[0].memory_stats() or {}).get("bytes_limit", 0)
            # Bytes for the work, None where unknown; and the largest width that memory allows, as far as is known.
            self._budget = memory_gb * 1e9 or memory / 2 or None
            self._limit = self._rows if self._budget else FIRST_WIDTH
        self.room = self._rows * len(devices)
        self.compile_seconds = 0.0
        self._programs = _COMPILED.setdefault(function, {})

    def place(self, shared: Any) -> Any:
        """`shared` on all devices, so that calls do not send it again."""
        return jax.device_put(
            shared, None if self._mesh is None else NamedSharding(self._mesh, PartitionSpec())
        )

    def __call__(self, shared: Any, rows: Any) -> list[Any]:
        """`function(shared, row)` of each of rows, arrays [B, ...]: B pytrees of NumPy arrays.

        None for a row that does not fit into memory by itself.
        """
        rows = jax.tree.map(np.asarray, rows)
        count = len(jax.tree.leaves(rows)[0])
        if count > self.room:
            starts = range(0, count, self.room)
            return [out for start in starts for out in self(shared, _part(rows, start, start + self.room))]
        # Device d takes the rows d, d + devices, ...: whatever the count, shares differ by one at most.
        devices = self.room // self._rows
        order = np.arange(self.room).reshape(-1, devices).T.reshape(-1)
        counts = np.array([len(range(device, count, devices)) for device in range(devices)], np.int32)
        arguments = shared, jax.tree.map(lambda leaf: _padded(np, leaf, self.room)[order], rows), counts
        while True:
            filled = [width for width in self._widths if width <= max(counts)]
            width = min(self._limit, max(filled, default=self._widths[0]))
            try:
                if self._budget and width > FIRST_WIDTH:
                    # Find the largest width from the memory that a few rows take.
                    budget, self._budget = self._budget, None
                    analysis = self._compiled(arguments, FIRST_WIDTH).memory_analysis()
                    bytes_a_row = analysis.temp_size_in_bytes / FIRST_WIDTH if analysis else 0
                    fitting = (
                        2 ** math.floor(math.log2(max(1, budget / bytes_a_row)))
                        if bytes_a_row
                        else FIRST_WIDTH
                    )
                    self._limit = min(self._limit, fitting)
                    continue
                outs, form = jax.tree.flatten(jax.device_get(self._compiled(arguments, width)(*arguments)))
            except (jax.errors.JaxRuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                if width > 1:
                    self._limit = width // 2
                    log.warning("out of memory: trying %d side by side (%s)", self._limit, self._name)
                    continue
                if count == 1:
                    return [None]
                return self(shared, _part(rows, 0, count // 2)) + self(shared, _part(rows, count // 2, count))
            return [
                jax.tree.unflatten(form, [out[place] for out in outs]) for place in np.argsort(order)[:count]
            ]

    def stacked(self, shared: Any, rows: Any) -> Any:
        """The outputs of all rows in one pytree of arrays [B, ...].

        Raises `MemoryError` where a row does not fit into memory by itself.
        """
        outs = self(shared, rows)
        if any(out is None for out in outs):
            raise MemoryError(f"one row does not fit into memory ({self._name})")
        return jax.tree.map(lambda *leaves: np.stack(leaves), *outs)

    def _compiled(self, arguments: tuple[Any, Any, Any], width: int) -> Any:
        leaves, form = jax.tree.flatten(arguments)
        key = form, tuple((leaf.shape, leaf.dtype) for leaf in leaves), width, self._mesh
        if key not in self._programs:
            start = time.perf_counter()
            run = jax.jit(partial(_over_rows, self._function, width=width, mesh=self._mesh))
            compiled = self._programs[key] = run.lower(*arguments).compile()
            analysis, seconds = compiled.memory_analysis(), time.perf_counter() - start
            self.compile_seconds += seconds
            log.info(
                "compiled %s in %.1f s: %d side by side, %.2f GB of working memory",
                self._name, seconds, width, (analysis.temp_size_in_bytes if analysis else 0) / 1e9,
            )  # fmt: skip
        return self._programs[key]


def _over_rows(
    function: Callable[[Any, Any], Any],
    shared: Any,
    rows: Any,
    counts: Array,
    width: int,
    mesh: Mesh | None,
) -> Any:
    """`function` of the first `counts[d]` rows of each device d, `width` at a time; zeros for the rest."""

    def on_one_device(shared: Any, rows: Any, counts: Array) -> Any:
        room = len(jax.tree.leaves(rows)[0])
        many = jax.vmap(function, (None, 0))
        if width == room > 1:
            return many(shared, rows)
        if room == 1:
            only = function(shared, jax.tree.map(lambda leaf: leaf[0], rows))
            return jax.tree.map(lambda leaf: leaf[None], only)
        # The same jitted function gives the shape and runs in the loop, so that it is traced once.
        out = jax.eval_shape(function, shared, jax.tree.map(lambda leaf: leaf[0], rows))
        size = room + -room % width
        padded = jax.tree.map(lambda leaf: _padded(jnp, leaf, size), rows)

        def step(index: Array, outs: Any) -> Any:
            start = index * width
            if width == 1:
                # Without a batch axis a conditional on the row stays one.
                values = function(shared, jax.tree.map(lambda leaf: leaf[start], padded))
                return jax.tree.map(lambda all, value: all.at[start].set(value), outs, values)
            some = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, width), padded)
            return jax.tree.map(
                lambda all, values: jax.lax.dynamic_update_slice_in_dim(all, values, start, 0),
                outs,
                many(shared, some),
            )

        outs = jax.tree.map(lambda leaf: jnp.zeros((size, *leaf.shape), leaf.dtype), out)
        outs = jax.lax.fori_loop(0, (counts[0] + width - 1) // width, step, outs)
        return jax.tree.map(lambda leaf: leaf[:room], outs)

    if mesh is None:
        return on_one_device(shared, rows, counts)
    split = PartitionSpec(AXIS)
    return jax.shard_map(
        on_one_device, mesh=mesh, in_specs=(PartitionSpec(), split, split), out_specs=split, check_vma=False
    )(shared, rows, counts)


def make_devices_of_cores() -> None:
    """Make a device of each core, before JAX starts: XLA keeps cores busier with a row each than with parts of one row.

    Fewer where memory is short. Nothing changes where the user has said how many devices a CPU has, by
    `JAX_NUM_CPU_DEVICES` or `XLA_FLAGS=--xla_force_host_platform_device_count`, or JAX has started.
    """
    if "JAX_NUM_CPU_DEVICES" in os.environ or HOST_DEVICES in os.environ.get("XLA_FLAGS", ""):
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    try:
        jax.config.update("jax_num_cpu_devices", max(1, min(cores, int(memory / MEMORY_OF_A_CORE))))
    except RuntimeError:
        log.debug("JAX has started: the cores stay one device")


def devices_of_images() -> list[jax.Device]:
    """Local devices that share the images of one network: one where cores were made devices, to each its own rows."""
    # The stubs of jax.config leave this setting out.
    made = jax.config.jax_num_cpu_devices  # type: ignore[attr-defined]
    return jax.local_devices()[:1] if made > 1 and jax.default_backend() == "cpu" else jax.local_devices()


def rows_at_once(on_cpu: int = ROWS_ON_CPU, on_accelerator: int = ROWS_ON_ACCELERATOR) -> int:
    """Rows of one call on all devices, of so many on each."""
    return (on_cpu if jax.default_backend() == "cpu" else on_accelerator) * jax.local_device_count()


def rows_outside_loops() -> int | None:
    """`rows` of a `Program` of plain convolutions: one on a CPU, which derives them slowly in loops."""
    return 1 if jax.default_backend() == "cpu" else None


def out_of_memory(error: BaseException) -> bool:
    """True where an exception says that memory did not suffice."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def _part(rows: Any, start: int, stop: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[start:stop], rows)


def _padded(library: Any, leaf: Any, size: int) -> Any:
    """`leaf` [B, ...] with zeros up to [size, ...], by NumPy or its twin in JAX."""
    return library.pad(leaf, [(0, size - len(leaf)), *[(0, 0)] * (leaf.ndim - 1)])
