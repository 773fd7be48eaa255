"""Genotypes: the field's text for a pair of cells, as DARTS and its successors print it.

    Genotype(normal=[('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ...], normal_concat=[2, 3, 4, 5],
             reduce=[('max_pool_3x3', 0), ...], reduce_concat=[2, 3, 4, 5])

(Liu, Simonyan and Yang, "DARTS: Differentiable Architecture Search", ICLR 2019,
https://arxiv.org/abs/1806.09055.) Nodes 0 and 1 are the outputs of the two previous cells; every further node
is the sum of two operations, listed in pairs; a cell's output is the concatenation of the nodes in `concat`.
`normal_concat=range(2, 6)` is read too. The text is parsed as literals: nothing in it is evaluated.
"""

import ast
from typing import Annotated, Any, NamedTuple

import msgspec

from jnas.errors import InputError

FIELDS = ("normal", "normal_concat", "reduce", "reduce_concat")
EXAMPLE = "Genotype(normal=[('sep_conv_3x3', 0), ('skip_connect', 1), ...], normal_concat=[2, 3, 4, 5], ...)"
INPUTS = 2

Edges = tuple[tuple[str, int], ...]
# Of a range of nodes, which no text makes a large one.
Bounds = Annotated[
    list[Annotated[int, msgspec.Meta(gt=-1000, lt=1000)]], msgspec.Meta(min_length=1, max_length=2)
]


class Genotype(NamedTuple):
    """A normal and a reduction cell: for each further node two (operation, source node), and what is concatenated."""

    normal: Edges
    normal_concat: tuple[int, ...]
    reduce: Edges
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
    # Fields by their places or by their names, as Python passes arguments.
    values = dict(zip(FIELDS, call.args, strict=False)) | {
        keyword.arg: keyword.value for keyword in call.keywords if keyword.arg in FIELDS
    }
    missing = [name for name in FIELDS if name not in values]
    if missing or len(call.args) + len(call.keywords) != len(FIELDS):
        raise _bad(text, f"it must have the fields {', '.join(FIELDS)}, each once")

    def literal(value: ast.expr, kind: Any, form: str) -> Any:
        try:
            return msgspec.convert(ast.literal_eval(value), kind)
        except msgspec.ValidationError as error:
            raise _bad(text, f"{form}: {error}") from error
        except (ValueError, TypeError, SyntaxError) as error:
            raise _bad(text, f"{name} holds something other than names and numbers") from error

    cells: list[Any] = []
    for name in ("normal", "reduce"):
        edges = literal(values[name], Edges, f"an entry of {name} is not ('operation', node)")
        if len(edges) % 2 or not edges:
            raise _bad(text, f"{name} must be a list of an even number of ('operation', node)")
        for place, edge in enumerate(edges):
            node = INPUTS + place // 2
            if not 0 <= edge[1] < node:
                raise _bad(text, f"{edge} in {name} leads to node {node}: its source must be 0 to {node - 1}")
        # The nodes of the output, as a list or as a range.
        value, form = values[f"{name}_concat"], f"{name}_concat must be a list of nodes or range(first, end)"
        if isinstance(value, ast.Call) and ast.unparse(value.func) == "range" and not value.keywords:
            concat = tuple(range(*literal(ast.List(value.args), Bounds, form)))
        else:
            concat = literal(value, tuple[int, ...], form)
        nodes = INPUTS + len(edges) // 2
        if not concat or len(set(concat)) != len(concat) or min(concat) < 0 or max(concat) >= nodes:
            raise _bad(
                text, f"{name}_concat names {concat}, the nodes are 0 to {nodes - 1} and each counts once"
            )
        cells += [edges, concat]
    return Genotype(*cells)


def render(genotype: Genotype) -> str:
    """The text of a genotype, which `parse` reads back unchanged."""
    fields = (f"{name}={list(value)}" for name, value in zip(FIELDS, genotype, strict=True))
    return f"Genotype({', '.join(fields)})"


def _bad(text: str, fault: str) -> InputError:
    shown = " ".join(text.split())
    shown = shown if len(shown) <= 200 else f"{shown[:200]}..."
    return InputError(f"'{shown}' is not a genotype: {fault}; the form is {EXAMPLE}")
