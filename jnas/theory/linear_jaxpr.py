"""The tangent map of a function as a jaxpr of linear equations alone, and the transpose of one of them.

STRUCTURED_DERIVATIVES of neural-tangents (Novak, Sohl-Dickstein, Schoenholz, 2022,
https://arxiv.org/abs/2206.08720) reads the Jacobians of the primitives off this jaxpr. It needs every
equation to be linear in the parameters' tangents and to have one output, so calls are inlined, `split`
becomes slices, and whatever does not depend on the tangents is evaluated beforehand.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
from jax import lax
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal, Var, jaxpr_as_fun
from jax.interpreters import ad

from jnas.programs.inlining import CALLS, bind, body_of, evaluate

PyTree = Any


def linear_jaxpr(f: Callable[..., PyTree], *primals: PyTree) -> tuple[PyTree, list[bool], ClosedJaxpr]:
    """Linearizes `f` at `primals`: t -> (df/dprimals) t as a jaxpr in which every equation depends on t.

    Args:
        f: function of pytrees of arrays to a pytree of arrays, whose leaves are floats.
        primals: where to linearize; the flattened leaves correspond to the `invars` of the jaxpr.

    Returns:
        `f(*primals)`; for each leaf of it whether it depends on the primals; the jaxpr, whose `outvars` are
        the tangents of the leaves that do, and whose constants are values at `primals`. What remains with
        several outputs is control flow that `jax.disable_jit` cannot unroll, and `jax.custom_vjp` of several.

    Raises:
        TypeError: a leaf of `primals` is not a float (from `jax.linearize`, and so for whatever `f` raises).
    """
    # Without jit, JAX runs control flow in Python and the library's own jitted functions disappear.
    with jax.disable_jit():
        primals_out, tangent_map = jax.linearize(f, *primals)
    staged = jax.make_jaxpr(tangent_map)(*primals)
    flat = jax.make_jaxpr(lambda *tangents: _inlined(staged, tangents))(*jax.tree.leaves(primals))
    return primals_out, *_linear_part(flat)


def transpose(eqn: JaxprEqn, cotangents: jax.Array, *inputs: jax.Array | ad.UndefinedPrimal) -> list:
    """Cotangents of the inputs of a linear equation with one output; `None` for those it is not linear in."""
    given = [cotangents] if eqn.primitive.multiple_results else cotangents
    rule = ad.primitive_transposes.get(eqn.primitive)
    if rule is not None:
        return rule(given, *inputs, **eqn.params)

    # The rules of `slice`, `gather`, ... take accumulators that only JAX's own backward pass can make.
    is_linear = [isinstance(value, ad.UndefinedPrimal) for value in inputs]

    def apply(*tangents: jax.Array) -> Any:
        rest = iter(tangents)
        values = [next(rest) if linear else value for value, linear in zip(inputs, is_linear, strict=True)]
        return eqn.primitive.bind(*values, **eqn.params)

    linear_inputs = [value.aval for value in inputs if isinstance(value, ad.UndefinedPrimal)]
    transposed = iter(jax.linear_transpose(apply, *linear_inputs)(given))
    return [next(transposed) if linear else None for linear in is_linear]


def _inlined(closed: ClosedJaxpr, arguments: Sequence[jax.Array]) -> list[jax.Array]:
    """Evaluates a jaxpr without binding its calls (`jit`, `checkpoint`, ...) and splits."""

    def rule(equation: JaxprEqn, inputs: list[jax.Array]) -> list[jax.Array]:
        body = body_of(equation) if equation.primitive.name in CALLS else None
        if body is not None:
            return _inlined(body, inputs)
        if equation.primitive is lax.split_p:
            ends = itertools.accumulate(equation.params["sizes"], initial=0)
            return [
                lax.slice_in_dim(inputs[0], start, end, axis=equation.params["axis"])
                for start, end in itertools.pairwise(ends)
            ]
        return bind(closed.jaxpr, equation, inputs)

    return evaluate(closed.jaxpr, closed.consts, arguments, rule)


def _linear_part(closed: ClosedJaxpr) -> tuple[list[bool], ClosedJaxpr]:
    """Evaluate the equations that do not depend on the `invars`, and drop those that no output depends on."""
    jaxpr = closed.jaxpr
    dependent = set(jaxpr.invars)
    known, linear = [], []
    for eqn in jaxpr.eqns:
        if dependent.isdisjoint(_variables(eqn.invars)):
            known.append(eqn)
        else:
            linear.append(eqn)
            dependent.update(eqn.outvars)

    is_linear = [not dependent.isdisjoint(_variables([atom])) for atom in jaxpr.outvars]
    outvars = [atom for atom, keep in zip(jaxpr.outvars, is_linear, strict=True) if keep]
    needed = set(outvars)
    used = []
    for eqn in reversed(linear):
        if not needed.isdisjoint(eqn.outvars):
            used.append(eqn)
            needed.update(_variables(eqn.invars))

    produced = [*jaxpr.constvars, *(var for eqn in known for var in eqn.outvars)]
    residuals = [var for var in produced if var in needed]
    before = jaxpr.replace(invars=[], outvars=residuals, eqns=known)
    values = jaxpr_as_fun(ClosedJaxpr(before, closed.consts))()
    after = jaxpr.replace(constvars=residuals, outvars=outvars, eqns=used[::-1])
    return is_linear, ClosedJaxpr(after, values)


def _variables(atoms: Iterable[Var | Literal]) -> list[Var]:
    return [atom for atom in atoms if not isinstance(atom, Literal)]
