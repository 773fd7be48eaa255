"""NAS-Bench-201: 15,625 cells of four nodes, one of five operations on each of six edges.

Source: Dong and Yang, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search", ICLR
2020, https://arxiv.org/abs/2001.00326.

Node 0 is the input of the cell, node 3 its output; every node is the sum of its incoming edges. An
architecture is int32[6], the operation of each edge in the order 1<-0, 2<-0, 2<-1, 3<-0, 3<-1, 3<-2.

Canonical form. The paper counts 6,466 distinct cells. It counts texts: a cell is written as an expression in
its input `0`, where a node is the sum of its incoming edges, sorted as text; `skip_connect` passes the text
of its source on; `none`, and any edge out of a node that reads `#`, is the zero `#`; any other operation
writes `(source)@operation`. Two cells are equivalent if and only if their texts are equal.

That is sound but not complete: cells of one class compute the same function where equal operations on equal
inputs have equal weights, yet the text keeps zeros inside a sum and the order in which nested sums were
written, so algebra would join more (4,930 classes are left when sums are flattened, sorted and freed of
zeros). Because of that order the count depends on the spelling, hence the authors' spelling is kept. Cells of
one class need not have equally many parameters: edges that carry zero, or that nobody reads, cost and do
nothing.
"""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jnas.errors import InputError, unknown_name
from jnas.spaces import base

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
NODES = 4
EXAMPLE = "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|"


def write(choices: np.ndarray) -> str:
    """The official string of the operation of each edge, int32[6]: `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`."""
    groups = (
        "|".join(f"{OPERATIONS[k]}~{s}" for (s, t), k in zip(EDGES, choices, strict=True) if t == node)
        for node in range(1, NODES)
    )
    return "+".join(f"|{group}|" for group in groups)


def read(text: str) -> np.ndarray:
    """The operation of each edge of an official string: int32[6].

    Raises `InputError` when the number of nodes or of edges into a node, an operation, or a source node is
    not that of the space. Nothing is repaired, spaces included: `write(read(text)) == text`.
    """
    groups = text.split("+")
    if len(groups) != NODES - 1:
        raise _bad(text, f"it has {len(groups)} nodes separated by '+', a cell has {NODES - 1}")
    decisions = []
    for node, group in enumerate(groups, start=1):
        if len(group) < 2 or group[0] != "|" or group[-1] != "|":
            raise _bad(text, f"node {node} reads '{group}', it must begin and end with '|'")
        entries = group[1:-1].split("|")
        if len(entries) != node:
            raise _bad(text, f"node {node} has {len(entries)} edges, it needs {node}")
        for source, entry in enumerate(entries):
            name, tilde, predecessor = entry.partition("~")
            if not tilde:
                raise _bad(text, f"'{entry}' into node {node} has no '~' between operation and source node")
            if name not in OPERATIONS:
                raise _bad(text, str(unknown_name("operation", name, OPERATIONS)))
            if predecessor != str(source):
                raise _bad(
                    text, f"'{entry}' into node {node} must come from node {source}, not '{predecessor}'"
                )
            decisions.append(OPERATIONS.index(name))
    return np.array(decisions, np.int32)


def canonical(architectures: ArrayLike) -> jax.Array:
    """The representative of each cell's class: int32[..., 6] -> int32[..., 6].

    It is the lexicographically smallest cell whose expression reads the same (see the head of this file), so
    `canonical(canonical(a)) == canonical(a)` and 6,466 values occur. A table built once is looked up; this
    works under `jit` and `vmap`.
    """
    return jnp.asarray(_representatives())[SPACE.index(architectures)]


def expression(architecture: ArrayLike) -> str:
    """Text of what one cell, int32[6], computes (see the head of this file): equal for equivalent cells."""
    decisions = np.asarray(architecture).tolist()
    nodes = ["0"]
    for node in range(1, NODES):
        incoming = [(s, d) for (s, t), d in zip(EDGES, decisions, strict=True) if t == node]
        nodes.append("+".join(sorted(_edge(nodes[s], OPERATIONS[d]) for s, d in incoming)))
    return nodes[-1]


def _edge(source: str, operation: str) -> str:
    if operation == "none" or source == "#":
        return "#"
    return source if operation == "skip_connect" else f"({source})@{operation}"


@cache
def _representatives() -> np.ndarray:
    """Representative of every cell in lexicographic order: int32[15625, 6]."""
    cells = SPACE.all()
    first: dict[str, int] = {}
    return cells[[first.setdefault(expression(cell), rank) for rank, cell in enumerate(cells)]]


def _bad(text: str, fault: str) -> InputError:
    message = f"'{text}' is not a NAS-Bench-201 architecture: {fault}; an example is {EXAMPLE}"
    return InputError(" ".join(message.split()))


SPACE = base.Space(
    name="nasbench201",
    graphs=(base.Graph(EDGES, OPERATIONS),),
    node_names=("input", "node 1", "node 2", "output"),
    text=base.Text(write, read),
    canonical_form=canonical,
)
to_string, from_string = SPACE.to_string, SPACE.from_string
