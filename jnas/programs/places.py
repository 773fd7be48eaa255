"""The places of a program that scores are made of.

`Level` holds those of one flat list of equations: units, channels of products with weights, normalisations, blocks (the
values that `jax.ad_checkpoint.checkpoint_name` names). The bodies of `scan` and `cond` have levels of their own; inside
`while` nothing is seen. `Classifier` says what the last product with weights reads.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from jax.extend.core import JaxprEqn, Literal, Var

from jnas.programs.inlining import shape_of
from jnas.programs.normalisations import Normalisations, normalisations
from jnas.programs.reading import PRODUCTS, Reading
from jnas.programs.units import units


class Channels(NamedTuple):
    """The output of a product with weights: its axis of the batch and its axes of the weights' outputs."""

    batch: int
    features: tuple[int, ...]

    def count(self, output: Var) -> int:
        """Number of channels."""
        return math.prod(shape_of(output)[axis] for axis in self.features)


class Classifier(NamedTuple):
    """The last product with weights: what it reads, that before it is pooled, and its output. None: there is none."""

    features: Var | None = None
    last: Var | None = None
    output: Var | None = None


@dataclass(frozen=True)
class Level:
    """Places in one flat program.

    units: inputs of ReLUs and their like that have an axis of images, with how many read each.
    channels: outputs of products with weights.
    inner: by the first output of a `scan` or `cond`, that equation and the levels of its programs.
    """

    reading: Reading
    units: dict[Var, int]
    channels: dict[Var, Channels]
    normal: Normalisations
    blocks: dict[Var, str]
    inner: dict[Var, tuple[JaxprEqn, tuple["Level", ...]]]

    def levels(self) -> Iterator["Level"]:
        """This level and those of all programs inside."""
        yield self
        for _, bodies in self.inner.values():
            for body in bodies:
                yield from body.levels()


def level_of(reading: Reading, classifier: Var | None = None) -> Level:
    """The places of a reading. classifier: the output of a product whose channels are the logits, which are not among
    the others'."""
    normal = normalisations(reading)
    # A variance is kept from being negative by a maximum that is no ReLU.
    under_roots = {reading.source(root) for root in normal.roots}
    clipped = {
        atom
        for root in under_roots
        if isinstance(root, Var) and root in reading.producer
        for atom in reading.producer[root].invars
        if isinstance(atom, Var) and reading.producer[root].primitive.name == "max"
    }
    channels: dict[Var, Channels] = {}
    blocks: dict[Var, str] = {}
    for equation in reading.jaxpr.eqns:
        if equation.primitive.name in PRODUCTS and equation.outvars[0] is not classifier:
            place = _channels(reading, equation)
            if place is not None:
                channels[_with_bias(reading, equation.outvars[0])] = place
        elif equation.primitive.name == "name" and reading.of(equation.outvars[0]).data:
            name = equation.params["name"]
            again = sum(known.partition(" #")[0] == name for known in blocks.values())
            blocks[equation.outvars[0]] = f"{name} #{again + 1}" if again else name
    return Level(
        reading,
        {
            unit: readers
            for unit, readers in units(reading).items()
            if unit not in clipped and reading.axis[unit] is not None
        },
        channels,
        normal,
        blocks,
        {
            reading.jaxpr.eqns[place].outvars[0]: (
                reading.jaxpr.eqns[place],
                tuple(level_of(body) for body in bodies),
            )
            for place, bodies in reading.bodies.items()
        },
    )


def _channels(reading: Reading, equation: JaxprEqn) -> Channels | None:
    left, right = (reading.of(atom) for atom in equation.invars[:2])
    output, weights = equation.outvars[0], right if left.data else left
    batch = reading.axis[output]
    if left.data == right.data or not weights.params or batch is None:
        return None
    if equation.primitive.name == "conv_general_dilated":
        return Channels(batch, (equation.params["dimension_numbers"].out_spec[1],))
    contracted, batched = equation.params["dimension_numbers"]
    side = 1 if left.data else 0
    free = len(shape_of(equation.invars[side])) - len(contracted[side]) - len(batched[side])
    first = len(shape_of(output)) - free if side else len(batched[0])
    return Channels(batch, tuple(range(first, first + free)))


def _with_bias(reading: Reading, output: Var) -> Var:
    """The output of a product with its bias, where it has one."""
    readers = [e for e in reading.jaxpr.eqns if output in e.invars]
    if reading.uses.get(output) == 1 and readers and readers[0].primitive.name == "add":
        other = next((atom for atom in readers[0].invars if atom is not output), None)
        if other is not None and not reading.of(other).data and reading.of(other).params:
            return readers[0].outvars[0]
    return output


def classifier_of(reading: Reading) -> Classifier:
    """The classifier of a function whose first output is logits."""
    made = _behind_arithmetic(reading, reading.jaxpr.outvars[0])
    if made is None or made.primitive.name not in PRODUCTS:
        return Classifier()
    left, right = made.invars[:2]
    if reading.of(left).data == reading.of(right).data:
        return Classifier()
    features = left if reading.of(left).data else right
    pooled = _behind_arithmetic(reading, features, ("mul", "div"))
    is_pooled = pooled is not None and pooled.primitive.name.startswith(
        ("reduce_sum", "reduce_max", "reduce_window")
    )
    last = reading.source(pooled.invars[0] if pooled is not None and is_pooled else features)
    assert isinstance(features, Var) and isinstance(last, Var)
    return Classifier(features, last, made.outvars[0])


def _behind_arithmetic(
    reading: Reading, atom: Var | Literal, names: tuple[str, ...] = ("add", "sub", "mul", "div")
) -> JaxprEqn | None:
    """The equation that makes a value, looking through arithmetic with parameters and constants."""
    made = reading.made_by(atom)
    while made is not None and made.primitive.name in names:
        moving = [atom for atom in made.invars if isinstance(atom, Var) and reading.of(atom).data]
        made = reading.made_by(moving[0]) if len(moving) == 1 else None
    return made
