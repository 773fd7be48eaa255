"""A traced function as one flat program.

Calls (`jit`, `checkpoint`, custom derivatives) are replaced by their equations, so that every equation of the function
stands in one list; bodies of `scan` and branches of `cond` are flat lists of their own. A custom derivative without a
convolution, matrix product or normalisation inside stays one equation, as its derivative may differ from that of its
equations: `jax.nn.relu` has the derivative 0 at 0, `max` has 1/2. A loop of unknown length (`while`) stays as it is.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
from jax import Array
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var, jaxpr_as_fun

# Names of primitives and of their parameters differ between the versions of JAX.
CALLS = ("jit", "pjit", "checkpoint", "remat2", "closed_call", "core_call")
CUSTOM_DERIVATIVES = ("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr")
# A call that is recognised by its name, as its equations have no ReLU.
NAMED_UNITS = ("softplus",)
_BODIES = ("jaxpr", "call_jaxpr", "fun_jaxpr")
_STRUCTURE = ("conv_general_dilated", "dot_general", "rsqrt", "sqrt", "scan", "cond", "name")


def inline(closed: ClosedJaxpr) -> ClosedJaxpr:
    """The same function with its calls inlined."""
    arguments = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in closed.in_avals]
    return jax.make_jaxpr(lambda *values: _evaluated(closed, values))(*arguments)


def evaluate(
    jaxpr: Jaxpr,
    consts: Sequence[Any],
    arguments: Sequence[Any],
    rule: Callable[[JaxprEqn, list[Any]], Iterable[Any]],
    environment: dict[Var, Any] | None = None,
) -> list[Any]:
    """Outputs of a program whose equations `rule` evaluates: (equation, inputs) -> outputs.

    environment: an empty dictionary, filled with every value.
    """
    environment = {} if environment is None else environment
    environment.update(zip(jaxpr.constvars, consts, strict=True))
    environment.update(zip(jaxpr.invars, arguments, strict=True))

    def read(atom: Var | Literal) -> Any:
        return atom.val if isinstance(atom, Literal) else environment[atom]

    for equation in jaxpr.eqns:
        outputs = rule(equation, [read(atom) for atom in equation.invars])
        environment.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def bind(jaxpr: Jaxpr, equation: JaxprEqn, inputs: Sequence[Any]) -> list[Array]:
    """Outputs of one equation of a program, evaluated as it stands."""
    given = {
        atom: value for atom, value in zip(equation.invars, inputs, strict=True) if isinstance(atom, Var)
    }
    alone = jaxpr.replace(constvars=[], invars=list(given), outvars=equation.outvars, eqns=[equation])
    return jaxpr_as_fun(ClosedJaxpr(alone, ()))(*given.values())


def shape_of(atom: Any) -> tuple[int, ...]:
    """The shape of a value of a program."""
    return atom.aval.shape


def body_of(equation: JaxprEqn) -> ClosedJaxpr | None:
    """The program that an equation calls once, or None."""
    for name in _BODIES:
        body = equation.params.get(name)
        if isinstance(body, ClosedJaxpr):
            return body
        if isinstance(body, Jaxpr):
            return ClosedJaxpr(body, ())
    return None


def scan_sizes(equation: JaxprEqn) -> tuple[int, int]:
    """(constants, carried values) of a `scan`, the first of its inputs; its parameters name them in some releases."""
    body = equation.params["jaxpr"].jaxpr
    inside = [
        (len(shape_of(one)), len(shape_of(two)))
        for one, two in zip(equation.invars, body.invars, strict=True)
    ]
    after = [
        (len(shape_of(one)), len(shape_of(two)))
        for one, two in zip(equation.outvars, body.outvars, strict=True)
    ]
    # Slices have an axis less in the body, carried values the same.
    slices, carried = sum(one != two for one, two in inside), sum(one == two for one, two in after)
    return len(inside) - carried - slices, carried


def programs_in(equation: JaxprEqn) -> Iterator[Jaxpr]:
    """The programs in the parameters of an equation."""
    for parameter in equation.params.values():
        for inner in parameter if isinstance(parameter, tuple | list) else (parameter,):
            if isinstance(inner, ClosedJaxpr):
                yield inner.jaxpr
            elif isinstance(inner, Jaxpr):
                yield inner


def equations(jaxpr: Jaxpr) -> Iterator[JaxprEqn]:
    """Every equation of a program and of all programs inside it."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in programs_in(equation):
            yield from equations(inner)


def _evaluated(closed: ClosedJaxpr, arguments: Sequence[Any]) -> list[Any]:
    def rule(equation: JaxprEqn, inputs: list[Any]) -> Iterable[Any]:
        name = equation.primitive.name
        body = body_of(equation) if name in CALLS or name in CUSTOM_DERIVATIVES else None
        if body is not None and not _stays(equation, body):
            return _evaluated(body, inputs)
        if name == "scan":
            return _bind_with(equation, inputs, jaxpr=inline(equation.params["jaxpr"]))
        if name == "cond":
            branches = tuple(inline(branch) for branch in equation.params["branches"])
            return _bind_with(equation, inputs, branches=branches)
        return bind(closed.jaxpr, equation, inputs)

    return evaluate(closed.jaxpr, closed.consts, arguments, rule)


def _bind_with(equation: JaxprEqn, inputs: list[Any], **changed: Any) -> list[Array]:
    return equation.primitive.bind(*inputs, **{**equation.params, **changed})


def _stays(equation: JaxprEqn, body: ClosedJaxpr) -> bool:
    if equation.params.get("name") in NAMED_UNITS:
        return True
    return equation.primitive.name in CUSTOM_DERIVATIVES and not any(
        inner.primitive.name in _STRUCTURE for inner in equations(body.jaxpr)
    )
