"""A program run with a look at its places, and with changes at them.

    outputs, looked, values = run(level, consts, arguments, Taps())
    run(..., Taps(plain=True))           normalisation left out
    run(..., Taps(gates=ones))           channels multiplied: their gradient is that of the channels
    run(..., Taps(shifts=zeros))         added to blocks: their gradient is what the next block alone passes back

`scan` stacks what its steps show; `cond` shows zeros, and no readers, for the branches that are not taken.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import JaxprEqn, Var

from jnas.programs.inlining import bind, evaluate, scan_sizes
from jnas.programs.places import Channels, Level

# Values by the number of their place: "5", or "1/0/5" in the first program of the second equation that has programs.
Places: TypeAlias = dict[str, Any]


class Taps(NamedTuple):
    """Changes to a run. plain: no normalisation; gates: of channels; shifts: added to blocks, which are cut apart."""

    plain: bool = False
    gates: Places = {}  # noqa: RUF012
    shifts: Places = {}  # noqa: RUF012


class Looked(NamedTuple):
    """Values at places: signs bool[N, M] with the number of ReLUs that read them; log deviations; blocks by name."""

    units: Places
    deviations: Places
    blocks: Places


def run(
    level: Level, consts: Any, arguments: Any, taps: Taps, path: str = ""
) -> tuple[list[Array], Looked, dict[Var, Array]]:
    """Outputs, values at the places, and all values of the level by variable."""
    values: dict[Var, Array] = {}
    looked = Looked({}, {}, {})
    numbers = {variable: f"{path}{place}" for place, variable in enumerate(level.channels)}
    names = {variable: f"{path}{place}/" for place, variable in enumerate(level.inner)}

    def rule(equation: JaxprEqn, inputs: list[Any]) -> list[Array]:
        output = equation.outvars[0] if equation.outvars else None
        if output in level.inner:
            kind = _scan if equation.primitive.name == "scan" else _cond
            outputs, inside = kind(equation, inputs, level.inner[output][1], taps, names[output])
            for own, more in zip(looked, inside, strict=True):
                own.update(more)
        elif taps.plain and output in level.normal.ones:
            outputs = [jnp.ones_like(inputs[0])]
        elif taps.plain and output in level.normal.zeros:
            outputs = [jnp.zeros_like(bind(level.reading.jaxpr, equation, inputs)[0])]
        elif taps.plain and output in level.normal.same:
            outputs = [values[level.normal.same[output]]]
        else:
            outputs = bind(level.reading.jaxpr, equation, inputs)
        if output in numbers and numbers[output] in taps.gates:
            outputs = [_gated(outputs[0], taps.gates[numbers[output]], level.channels[output])]
        if output in level.blocks:
            looked.blocks[level.blocks[output]] = outputs[0]
            if level.blocks[output] in taps.shifts:
                # Blocks are cut apart: the next one is differentiated through the shift alone.
                values.update({variable: jax.lax.stop_gradient(value) for variable, value in values.items()})
                outputs = [jax.lax.stop_gradient(outputs[0]) + taps.shifts[level.blocks[output]]]
        return outputs

    outputs = evaluate(level.reading.jaxpr, consts, arguments, rule, values)
    for place, (unit, readers) in enumerate(level.units.items()):
        signs = jnp.moveaxis(values[unit] > 0, level.reading.axis[unit] or 0, 0)
        looked.units[f"{path}{place}"] = signs.reshape(len(signs), -1), jnp.float32(readers)
    for place, variance in enumerate(level.normal.variances):
        mean = jnp.mean(values[variance])
        positive = mean > 0
        deviation = jnp.where(positive, jnp.log(jnp.where(positive, mean, 1)) / 2, 0)
        looked.deviations[f"{path}{place}"] = deviation
    return outputs, looked, values


def _gated(output: Array, gate: Array, channels: Channels) -> Array:
    """The output of a product times gates [N, C], C all of its channels; N images may stand for k values each."""
    shape = [1] * output.ndim
    shape[channels.batch] = output.shape[channels.batch]
    for axis in channels.features:
        shape[axis] = output.shape[axis]
    each = output.shape[channels.batch] // len(gate)
    gate = jnp.repeat(gate, each, axis=0).reshape(-1, *(output.shape[axis] for axis in channels.features))
    order = [channels.batch, *channels.features]
    return output * jnp.transpose(gate, [order.index(axis) for axis in sorted(order)]).reshape(shape)


def gates(level: Level, images: int, path: str = "") -> Places:
    """Ones [..., N, C] for the channels of every product with weights; steps of a `scan` stand before."""
    ones: Places = {}
    for place, (variable, channels) in enumerate(level.channels.items()):
        ones[f"{path}{place}"] = jnp.ones((images, channels.count(variable)))
    for place, (equation, bodies) in enumerate(level.inner.values()):
        steps = equation.params["length"] if equation.primitive.name == "scan" else None
        for branch, body in enumerate(bodies):
            for key, value in gates(body, images, f"{path}{place}/{branch}/").items():
                ones[key] = value if steps is None else jnp.broadcast_to(value, (steps, *value.shape))
    return ones


def _scan(
    equation: JaxprEqn, inputs: list[Any], bodies: tuple[Level, ...], taps: Taps, path: str
) -> tuple[list[Array], Looked]:
    params = equation.params
    first, carries = scan_sizes(equation)
    consts, carry, xs = inputs[:first], inputs[first : first + carries], inputs[first + carries :]
    own = {key: gate for key, gate in taps.gates.items() if key.startswith(path)}

    def step(carry: Any, slices: Any) -> tuple[Any, Any]:
        xs, own = slices
        arguments = [*consts, *carry, *xs]
        inside = taps._replace(gates={**taps.gates, **own})
        outputs, looked, _ = run(bodies[0], params["jaxpr"].consts, arguments, inside, f"{path}0/")
        return outputs[:carries], (outputs[carries:], looked)

    carry, (ys, looked) = jax.lax.scan(
        step, carry, (xs, own), length=params["length"], reverse=params["reverse"], unroll=params["unroll"]
    )
    return [*carry, *ys], _stacked(looked)


def _stacked(looked: Looked) -> Looked:
    """Steps of a scan: signs [T, N, M] become [N, T M], deviations are summed."""
    units = {}
    for key, (signs, readers) in looked.units.items():
        images = signs.shape[1]
        units[key] = jnp.moveaxis(signs, 0, 1).reshape(images, -1), jnp.max(readers)
    deviations = {key: jnp.sum(value) for key, value in looked.deviations.items()}
    return Looked(units, deviations, {})


def _cond(
    equation: JaxprEqn, inputs: list[Any], bodies: tuple[Level, ...], taps: Taps, path: str
) -> tuple[list[Array], Looked]:
    index, operands = inputs[0], inputs[1:]

    def branch(place: int) -> Callable[..., Any]:
        consts = equation.params["branches"][place].consts
        return lambda *operands: run(bodies[place], consts, operands, taps, f"{path}{place}/")[:2]

    branches = [branch(place) for place in range(len(bodies))]
    shapes = [jax.eval_shape(one, *operands)[1] for one in branches]
    nothing = Looked(*({} for _ in Looked._fields))
    for shape in shapes:
        for own, more in zip(nothing, shape, strict=True):
            own.update(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), more))

    def padded(one: Callable[..., Any]) -> Callable[..., Any]:
        def run_branch(*operands: Any) -> tuple[list[Array], Looked]:
            outputs, looked = one(*operands)
            return outputs, Looked(*({**zero, **own} for zero, own in zip(nothing, looked, strict=True)))

        return run_branch

    return jax.lax.switch(index, [padded(one) for one in branches], *operands)
