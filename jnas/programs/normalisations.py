"""Normalisations in a flat program, and how to leave them out.

    (x - mean) / sqrt(variance + constant) scale + offset

in whichever order it is written: with the scale in the reciprocal root, the mean multiplied out, or without a mean
(RMS). A root is recognised by the constant added to a value of images below it; a mean by being a sum of x that is
subtracted from x, or multiplied by the reciprocal root. Left out, a normalisation gives x: roots and scales are one,
means and offsets zero. It is by the batch where its variance has no axis of the batch.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from jax.extend.core import JaxprEqn, Literal, Var

from jnas.programs.reading import FORMS, Reading

ROOT, RECIPROCAL, CENTRED, TOTAL, NORMAL = "root", "reciprocal root", "centred", "total", "normalised"


@dataclass
class Normalisations:
    """Normalisations of one level.

    variances: of those by the batch, before the constant is added. roots: all values under roots.
    ones, zeros: values to replace by one and by zero; same: values to replace by another.
    scales, offsets: parameters of normalisations.
    """

    variances: list[Var] = field(default_factory=list)
    roots: list[Var] = field(default_factory=list)
    ones: set[Var] = field(default_factory=set)
    zeros: set[Var] = field(default_factory=set)
    same: dict[Var, Var] = field(default_factory=dict)
    scales: set[int] = field(default_factory=set)
    offsets: set[int] = field(default_factory=set)


class Mark(NamedTuple):
    """The part of a value in a normalisation: its kind, and the value that it refers to."""

    kind: str
    of: Var


def normalisations(reading: Reading) -> Normalisations:
    """All normalisations of a level."""
    result, marks = Normalisations(), dict[Var, Mark]()
    roots: dict[Var, Var] = {}
    for equation in reading.jaxpr.eqns:
        if len(equation.outvars) != 1 or not reading.of(equation.outvars[0]).data:
            continue
        output = equation.outvars[0]
        if equation.primitive.name in FORMS:
            # Another form of a value plays its part.
            source = equation.invars[0]
            if isinstance(source, Var) and source in marks:
                marks[output] = marks[source]
            continue
        variance = _under_root(reading, equation)
        if variance is not None:
            roots[output] = variance
            marks[output] = Mark(ROOT if equation.primitive.name == "sqrt" else RECIPROCAL, output)
            continue
        mark = _mark(reading, equation, marks, result)
        if mark is not None:
            marks[output] = mark
    for root, variance in roots.items():
        if root in result.ones:
            result.roots.append(variance)
            if reading.axis.get(variance) is None:
                result.variances.append(variance)
    return result


def _under_root(reading: Reading, equation: JaxprEqn) -> Var | None:
    """The value of images to which a constant is added under a root."""
    name = equation.primitive.name
    power = equation.params.get("y") if name == "integer_pow" else None
    if name == "pow" and isinstance(equation.invars[1], Literal):
        power = float(equation.invars[1].val)
    if name not in ("rsqrt", "sqrt") and power != -0.5:
        return None
    made = reading.made_by(equation.invars[0])
    if made is None or made.primitive.name not in ("add", "max"):
        return None
    moving = [atom for atom in made.invars if isinstance(atom, Var) and reading.of(atom).data]
    return moving[0] if len(moving) == 1 else None


def _mark(
    reading: Reading, equation: JaxprEqn, marks: dict[Var, Mark], result: Normalisations
) -> Mark | None:
    """The part of an equation's output; finds what it is made of."""
    name, atoms, output = equation.primitive.name, equation.invars, equation.outvars[0]
    if name == "reduce_sum" and isinstance(atoms[0], Var):
        return Mark(TOTAL, atoms[0])
    if name not in ("mul", "div", "add", "sub", "add_any"):
        return None
    flows = [reading.of(atom) for atom in atoms]
    parts = [marks.get(atom) if isinstance(atom, Var) else None for atom in atoms]
    kinds = [part.kind if part else None for part in parts]
    params = frozenset().union(*(flow.params for flow in flows if not flow.data))
    mean = parts[1]
    if name == "sub" and mean and mean.kind == TOTAL and reading.source(mean.of) is reading.source(atoms[0]):
        return Mark(CENTRED, output)
    if name in ("mul", "div"):
        return _scaled(reading, equation, parts, params, result)
    normal = next((part for part in parts if part and part.kind == NORMAL), None)
    if normal is not None and (kinds[0] == kinds[1] or not (flows[0].data and flows[1].data)):
        result.offsets |= params
        return normal
    return None


def _scaled(
    reading: Reading,
    equation: JaxprEqn,
    parts: list[Mark | None],
    params: frozenset[int],
    result: Normalisations,
) -> Mark | None:
    atoms, output = equation.invars, equation.outvars[0]
    name = equation.primitive.name
    for place, part in enumerate(parts):
        other, others = atoms[1 - place], parts[1 - place]
        if part is None or (name == "div" and place == 1 and part.kind != ROOT):
            continue
        if not reading.of(other).data:
            if part.kind in (RECIPROCAL, NORMAL):
                result.scales |= params
            if part.kind == ROOT and name == "div" and place == 1:
                result.scales |= params
                # Its numerator stays where the root becomes one.
                return Mark(RECIPROCAL, part.of)
            return part
        by_root = part.kind == RECIPROCAL or (part.kind == ROOT and name == "div" and place == 1)
        if not by_root:
            continue
        result.ones.add(part.of)
        if others is not None and others.kind == CENTRED:
            source = reading.producer[others.of].invars[0]
            if isinstance(source, Var):
                result.same[others.of] = source
        elif others is not None and others.kind == TOTAL:
            result.zeros.add(output)
        return Mark(NORMAL, part.of)
    return None
