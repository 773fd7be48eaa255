"""Genotypes: the field's text for a pair of cells, as DARTS and its successors print it.

    Genotype(normal=[('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ...], normal_concat=[2, 3, 4, 5],
             reduce=[('max_pool_3x3', 0), ...], reduce_concat=[2, 3, 4, 5])

(Liu, Simonyan and Yang, "DARTS: Differentiable Architecture Search", ICLR 2019,
https://arxiv.org/abs/1806.09055.) Nodes 0 and 1 are the outputs of the two previous cells; every further node
is the sum of two operations, listed in pairs; a cell's output is the concatenation of the nodes in `concat`.
`normal_concat=range(2, 6)` is read too. The text is parsed as literals: nothing in it is evaluated.
"""

import ast
from typing import Any, NamedTuple

from jnas.errors import InputError

FIELDS = ("normal", "normal_concat", "reduce", "reduce_concat")
EXAMPLE = "Genotype(normal=[('sep_conv_3x3', 0), ('skip_connect', 1), ...], normal_concat=[2, 3, 4, 5], ...)"
INPUTS = 2


class Genotype(NamedTuple):
    """A normal and a reduction cell: for each further node two (operation, source node), and what is concatenated."""

    normal: tuple[tuple[str, int], ...]
    normal_concat: tuple[int, ...]
    reduce: tuple[tuple[str, int], ...]
    reduce_concat: tuple[int, ...]


def parse(text: str) -> Genotype:
    """The genotype that a text of the field's form describes.

    Any number of nodes, operations of any name, the same source twice: what a space or a network does not know,
    it refuses itself. Raises `InputError` when the text is not of the form, or an edge does not come from an
    earlier node.
    """
    try:
        call = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _bad(text, "it cannot be parsed") from error
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.func.id != "Genotype":
        raise _bad(text, "it does not read Genotype(...)")
    values = dict(zip(FIELDS, call.args, strict=False)) | {
        keyword.arg: keyword.value for keyword in call.keywords if keyword.arg in FIELDS
    }
    missing = [name for name in FIELDS if name not in values]
    if missing or len(call.args) + len(call.keywords) != len(FIELDS):
        raise _bad(text, f"it must have the fields {', '.join(FIELDS)}, each once")
    cells: list[Any] = []
    for name in ("normal", "reduce"):
        edges, concat = _edges(text, name, values[name]), _concat(text, name, values[f"{name}_concat"])
        nodes = INPUTS + len(edges) // 2
        outside = [node for node in concat if not 0 <= node < nodes]
        if outside or len(set(concat)) != len(concat) or not concat:
            raise _bad(
                text, f"{name}_concat names {concat}, the nodes are 0 to {nodes - 1} and each counts once"
            )
        cells += [edges, concat]
    return Genotype(*cells)


def render(genotype: Genotype) -> str:
    """The text of a genotype, which `parse` reads back unchanged."""
    fields = (f"{name}={list(value)}" for name, value in zip(FIELDS, genotype, strict=True))
    return f"Genotype({', '.join(fields)})"


def _edges(text: str, name: str, value: ast.expr) -> tuple[tuple[str, int], ...]:
    entries = _literal(text, name, value)
    if not isinstance(entries, (list, tuple)) or len(entries) % 2 or not entries:
        raise _bad(text, f"{name} must be a list of an even number of ('operation', node)")
    edges = []
    for place, entry in enumerate(entries):
        node = INPUTS + place // 2
        if (
            not isinstance(entry, (list, tuple))
            or len(entry) != 2
            or not isinstance(entry[0], str)
            or type(entry[1]) is not int
        ):
            raise _bad(text, f"{entry!r} in {name} is not ('operation', node)")
        if not 0 <= entry[1] < node:
            raise _bad(text, f"{entry!r} in {name} leads to node {node}: its source must be 0 to {node - 1}")
        edges.append((entry[0], entry[1]))
    return tuple(edges)


def _concat(text: str, name: str, value: ast.expr) -> tuple[int, ...]:
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "range":
        bounds: list[Any] = [_literal(text, name, bound) for bound in value.args]
        small = all(type(bound) is int and abs(bound) < 1000 for bound in bounds)
        if not small or not 1 <= len(bounds) <= 2 or value.keywords:
            raise _bad(text, f"{name}_concat must be a list of nodes or range(first, end)")
        return tuple(range(*bounds))
    nodes = _literal(text, name, value)
    if not isinstance(nodes, (list, tuple)) or any(type(node) is not int for node in nodes):
        raise _bad(text, f"{name}_concat must be a list of nodes or range(first, end)")
    return tuple(nodes)


def _literal(text: str, name: str, value: ast.expr) -> object:
    try:
        return ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError) as error:
        raise _bad(text, f"{name} holds something other than names and numbers") from error


def _bad(text: str, fault: str) -> InputError:
    shown = " ".join(text.split())
    shown = shown if len(shown) <= 200 else f"{shown[:200]}..."
    return InputError(f"'{shown}' is not a genotype: {fault}; the form is {EXAMPLE}")
