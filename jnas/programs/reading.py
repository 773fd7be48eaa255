"""The flow of images and parameters through a flat program.

A program of (parameters, images) is read for N and for 2 N images side by side: an axis that doubles is the batch's.
Each value depends on images or not, and on which parameters. A parameter has the role

    kernel    it reaches a convolution or a matrix product with values of images: a weight
    scale     it multiplies such values;    offset: it is added;    other: whatever else
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var

from jnas.errors import InputError
from jnas.programs.inlining import scan_sizes, shape_of

# Equations whose output is their input in another form.
FORMS = (
    "reshape", "broadcast_in_dim", "convert_element_type", "squeeze", "expand_dims", "transpose", "copy", "copy_p",
    "reduce_precision", "stop_gradient", "name", "optimization_barrier", "sharding_constraint",
)  # fmt: skip
PRODUCTS = ("conv_general_dilated", "dot_general")
KERNEL, SCALE, OFFSET, OTHER = "kernel", "scale", "offset", "other"


class Flow(NamedTuple):
    """Dependences of a value: on images, and on parameters by their place."""

    data: bool = False
    params: frozenset[int] = frozenset()

    def joined(self, other: "Flow") -> "Flow":
        """Dependences of both together."""
        return Flow(self.data or other.data, self.params | other.params)


@dataclass
class Reading:
    """A flat program and what its values depend on.

    flow, axis: of each value, its dependences and its axis of the batch. producer: the equation that makes a value.
    uses: how often a value is read. bodies: readings of the programs in an equation, by its place. roles: of
    parameters, shared by all levels. steps: of the scan whose slices of a parameter are read.
    """

    jaxpr: Jaxpr
    flow: dict[Var, Flow]
    axis: dict[Var, int | None]
    producer: dict[Var, JaxprEqn]
    uses: dict[Var, int]
    bodies: dict[int, tuple["Reading", ...]]
    roles: dict[int, set[str]]
    steps: dict[int, int] = field(default_factory=dict)

    def of(self, atom: Var | Literal) -> Flow:
        """Dependences of a value; literals and constants have none."""
        return Flow() if isinstance(atom, Literal) else self.flow.get(atom, Flow())

    def source(self, atom: Var | Literal) -> Var | Literal:
        """The value that this one is another form of."""
        while isinstance(atom, Var) and atom in self.producer and self.producer[atom].primitive.name in FORMS:
            atom = self.producer[atom].invars[0]
        return atom

    def made_by(self, atom: Var | Literal) -> JaxprEqn | None:
        """The equation that makes a value, its other forms looked through."""
        source = self.source(atom)
        return self.producer.get(source) if isinstance(source, Var) else None

    def is_constant(self, atom: Var | Literal, value: float) -> bool:
        """True where a value is a constant of the program, everywhere this number."""
        origin = self.source(atom)
        return isinstance(origin, Literal) and bool(np.all(np.asarray(origin.val) == value))

    def levels(self) -> Iterator["Reading"]:
        """This reading and those of all programs inside."""
        yield self
        for bodies in self.bodies.values():
            for body in bodies:
                yield from body.levels()


def read(
    jaxpr: Jaxpr,
    twin: Jaxpr,
    flows: Sequence[Flow],
    roles: dict[int, set[str]] | None = None,
    steps: dict[int, int] | None = None,
) -> Reading:
    """Read a flat program beside its twin for twice as many images.

    flows: of its inputs. Raises `InputError` where the two are different programs.
    """
    reading = Reading(
        jaxpr, {}, {}, {}, {}, {}, {} if roles is None else roles, {} if steps is None else steps
    )
    reading.flow.update(zip(jaxpr.invars, flows, strict=True))
    reading.axis.update(_axes(jaxpr.invars, twin.invars))
    if [e.primitive.name for e in jaxpr.eqns] != [e.primitive.name for e in twin.eqns]:
        raise InputError(
            "apply makes different programs of N and of 2 N images, or at each call: give a pure function in which "
            "nothing depends on the number of images"
        )
    for place, (equation, other) in enumerate(zip(jaxpr.eqns, twin.eqns, strict=True)):
        for atom in equation.invars:
            if isinstance(atom, Var):
                reading.uses[atom] = reading.uses.get(atom, 0) + 1
        flows_in = [reading.of(atom) for atom in equation.invars]
        joined = Flow()
        for flow in flows_in:
            joined = joined.joined(flow)
        outputs = [joined] * len(equation.outvars)
        if equation.primitive.name == "scan":
            outputs = _scan(reading, place, equation, other, flows_in)
        elif equation.primitive.name == "cond":
            outputs = _cond(reading, place, equation, other, flows_in)
        elif joined.data:
            _note_roles(reading, equation, flows_in)
        reading.flow.update(zip(equation.outvars, outputs, strict=True))
        reading.axis.update(_axes(equation.outvars, other.outvars))
        reading.producer.update((variable, equation) for variable in equation.outvars)
    for atom in jaxpr.outvars:
        if isinstance(atom, Var):
            reading.uses[atom] = reading.uses.get(atom, 0) + 1
    return reading


def _axes(variables: Sequence[Var], others: Sequence[Var]) -> Mapping[Var, int | None]:
    axes: dict[Var, int | None] = {}
    for variable, other in zip(variables, others, strict=True):
        pairs = enumerate(zip(shape_of(variable), shape_of(other), strict=True))
        axes[variable] = next((axis for axis, (one, two) in pairs if one != two), None)
    return axes


def _note_roles(reading: Reading, equation: JaxprEqn, flows: list[Flow]) -> None:
    """Roles of the parameters that meet values of images in an equation."""
    name = equation.primitive.name
    if name in FORMS:
        return
    role = KERNEL if name in PRODUCTS else SCALE if name in ("mul", "div") else OTHER
    role = OFFSET if name in ("add", "sub", "add_any") else role
    for flow in flows:
        for place in () if flow.data else flow.params:
            reading.roles.setdefault(place, set()).add(role)


def _scan(reading: Reading, place: int, equation: JaxprEqn, other: JaxprEqn, flows: list[Flow]) -> list[Flow]:
    consts, carries = scan_sizes(equation)
    inputs = list(flows)
    for flow in flows[consts + carries :]:
        for parameter in () if flow.data else flow.params:
            reading.steps[parameter] = equation.params["length"]
    step, twin = (one.params["jaxpr"].jaxpr for one in (equation, other))
    while True:
        # What a step hands on, the next one depends on.
        body = read(step, twin, inputs, reading.roles, reading.steps)
        outputs = [body.of(atom) for atom in body.jaxpr.outvars]
        handed_on = [flow.joined(out) for flow, out in zip(inputs[consts:], outputs[:carries], strict=False)]
        if inputs[consts : consts + carries] == handed_on:
            reading.bodies[place] = (body,)
            return outputs
        inputs[consts : consts + carries] = handed_on


def _cond(reading: Reading, place: int, equation: JaxprEqn, other: JaxprEqn, flows: list[Flow]) -> list[Flow]:
    pairs: list[tuple[ClosedJaxpr, ClosedJaxpr]] = list(
        zip(equation.params["branches"], other.params["branches"], strict=True)
    )
    bodies = tuple(read(one.jaxpr, two.jaxpr, flows[1:], reading.roles, reading.steps) for one, two in pairs)
    reading.bodies[place] = bodies
    outputs = []
    for atoms in zip(*(body.jaxpr.outvars for body in bodies), strict=True):
        joined = flows[0]
        for body, atom in zip(bodies, atoms, strict=True):
            joined = joined.joined(body.of(atom))
        outputs.append(joined)
    return outputs
