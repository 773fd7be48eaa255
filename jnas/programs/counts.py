"""FLOPs and activations of a traced function, counted on its program.

    FLOPs = sum over convolutions and matrix products of outputs x multiply-adds of one output

paddings included; normalisation, ReLU, pooling and sums are free. Activations are the outputs of the same equations
(Radosavovic et al., "Designing Network Design Spaces", CVPR 2020, https://arxiv.org/abs/2003.13678). A `scan` counts
once for each of its steps, a `cond` as its largest branch, the body of a `while` as one step, as its length is data.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from jnas.programs.inlining import programs_in, shape_of


class Counts(NamedTuple):
    """Multiply-adds and outputs of all convolutions and matrix products."""

    flops: int
    activations: int


def of_function(function: Callable[..., Any], *arguments: Any) -> Counts:
    """Counts of `function(*arguments)`; arrays or their shapes."""
    return of_program(jax.make_jaxpr(function)(*arguments).jaxpr)


def of_program(jaxpr: Jaxpr) -> Counts:
    """Counts of a program and of all programs inside it."""
    return _total(_of_equation(equation) for equation in jaxpr.eqns)


def _total(counts: Iterable[Counts]) -> Counts:
    both = list(counts)
    return Counts(sum(one.flops for one in both), sum(one.activations for one in both))


def _of_equation(equation: JaxprEqn) -> Counts:
    name = equation.primitive.name
    if name == "conv_general_dilated":
        kernel, numbers = shape_of(equation.invars[1]), equation.params["dimension_numbers"]
        each = math.prod(kernel) // kernel[numbers.rhs_spec[0]]
    elif name == "dot_general":
        left, (contracted, _) = shape_of(equation.invars[0]), equation.params["dimension_numbers"][0]
        each = math.prod(left[axis] for axis in contracted)
    elif name == "cond":
        branches: tuple[ClosedJaxpr, ...] = equation.params["branches"]
        return max(of_program(branch.jaxpr) for branch in branches)
    else:
        # A custom derivative carries programs of its derivative too, as thunks: they are not in its parameters.
        inner = _total(of_program(program) for program in programs_in(equation))
        steps = equation.params["length"] if name == "scan" else 1
        return Counts(inner.flops * steps, inner.activations * steps)
    size = math.prod(shape_of(equation.outvars[0]))
    return Counts(size * each, size)
