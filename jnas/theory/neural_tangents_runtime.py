"""Functions that the adapted modules of neural-tangents call in place of those that JAX removed."""

from __future__ import annotations

import builtins
import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax


def strict_map(f: Callable, *arguments: Iterable) -> list:
    """`map` to a list, of iterables of one length; `ValueError` where the lengths differ."""
    return [f(*values) for values in builtins.zip(*arguments, strict=True)]


def strict_zip(*arguments: Iterable) -> list[tuple]:
    """`zip` to a list, of iterables of one length; `ValueError` where the lengths differ."""
    return list(builtins.zip(*arguments, strict=True))


def once_outside_traces(*operands: Any) -> Callable[[Callable], Callable]:
    """Decorator: a function of concrete `operands` runs once, outside every trace, at its first call.

    neural-tangents factorizes a kernel when a prediction is first asked for, which may be under `jit`. Where
    the operands themselves are traced, leaving the trace is an error in today's JAX (0.4 left it as far as
    they allowed), so the function then runs at each call, and the compiler merges what is equal.
    """

    def decorate(f: Callable) -> Callable:
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(operands)):
            return f

        @functools.cache
        def concrete():
            with jax.core.eval_context():
                return f()

        return concrete

    return decorate
