"""Drawings of a cell: characters for the terminal, SVG for pages.

A cell is a list of edges (source node, target node, operation); its inputs are the first nodes. An edge with the
operation `none` carries nothing: the characters leave it out, the SVG shows it dashed.
"""

from collections.abc import Mapping, Sequence
from html import escape
from math import atan2, degrees

import numpy as np

from jnas.spaces.base import Space

Edge = tuple[int, int, str]

# Sizes of the SVG: between nodes, around them, of an arc that spans one node more, of a node.
STEP, MARGIN, LIFT, RADIUS = 250, 44, 80, 24


def cell_edges(space: Space, architecture: str) -> list[list[Edge]]:
    """Edges of each cell of the architecture with this text; raises `InputError` for bad text.

    Edges with `none` are left out where nodes keep a number of edges (`Space.incoming`).
    """
    gates = np.asarray(space.gates(space.from_string(architecture)))
    cells = []
    for choices in gates.argmax(axis=-1):
        names = [space.operations[choice] for choice in choices]
        edges = [(source, target, name) for (source, target), name in zip(space.edges, names, strict=True)]
        cells.append([edge for edge in edges if space.incoming is None or edge[2] != "none"])
    return cells


def cell_text(edges: Sequence[Edge], names: Sequence[str]) -> str:
    """Draw a cell in box-drawing characters.

    A trunk goes down from each node, its branches are its operations. A line that ends in an arrow is the sum of the
    operations on it.
    """
    nodes = len(names)
    drawn: dict[tuple[int, int], str] = {}
    for source, target, name in edges:
        if name != "none":
            # Edges between the same nodes share a branch.
            drawn[source, target] = " + ".join(filter(None, (drawn.get((source, target)), name)))
    width = max(map(len, drawn.values()), default=0) + 12
    canvas = [[" "] * (width * nodes) for _ in range(2 * nodes - 1)]

    def write(row: int, column: int, text: str) -> None:
        canvas[row][column : column + len(text)] = text

    # The nodes, each at the end of its line.
    for node in range(nodes):
        sources = [source for source in range(node) if (source, node) in drawn]
        row, column = 2 * node, 2 + width * node
        if sources:
            first = 2 + width * sources[0]
            write(row, first, "─" * (column - 4 - first) + "▶ ")
        fed = sources or node == 0 or names[node].startswith("input")
        write(row, column - 2, names[node] if fed else f"{names[node]} (zero)")
    # The trunks, and then the branches on top of them.
    for node in range(nodes):
        last = max((target for source, target in drawn if source == node), default=node)
        for row in range(2 * node + 1, 2 * last + 1):
            write(row, 2 + width * node, "│")
    for (source, target), name in drawn.items():
        row, column = 2 * target, 2 + width * source
        last = all(later <= target for start, later in drawn if start == source)
        leftmost = all(start >= source for start, end in drawn if end == target)
        write(row, column, ("└" if last else "├") if leftmost else ("┴" if last else "┼"))
        write(row, column + 3, f" {name} ")
    return "\n".join("".join(line).rstrip() for line in canvas)


def short_names(names: Sequence[str]) -> list[str]:
    """Names of nodes as pictures and tables show them: in, 1, 2, ..., out."""
    return [name.replace("input", "in").replace("output", "out").removeprefix("node ") for name in names]


def cell_svg(edges: Sequence[Edge], colours: Mapping[str, str], names: Sequence[str]) -> str:
    """Draw a cell as SVG: nodes on a line, longer edges as arcs, each operation a label in its colour."""
    # Tops of the arcs, downwards from the line. Arcs of one node stay on one side, so that those of its neighbours do
    # not cross them.
    heights = [
        0 if target - source == 1 else LIFT * (target - source - 0.35) * (-1 if source % 2 == 0 else 1)
        for source, target, _ in edges
    ]
    # A second edge between the same nodes is a higher arc.
    pairs = [edge[:2] for edge in edges]
    for place, pair in enumerate(pairs):
        if pair in pairs[:place]:
            heights[place] += LIFT * (-0.5 if pair[0] % 2 == 0 else 0.5)
    above, below = 40 + max([0, *(-height for height in heights)]), 40 + max([0, *heights])
    x = [MARGIN + STEP * node for node in range(len(names))]
    lines, labels = [], []
    for (source, target, name), height in zip(edges, heights, strict=True):
        middle, colour = (x[source] + x[target]) / 2, colours[name]
        fill, ink, stroke, arrow = "#fff", "#6b7280", '1.5" stroke-dasharray="3 6', ""
        if name != "none":
            red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
            dark = 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.5
            fill, ink, stroke = colour, "#fff" if dark else "#111827", "3"
            angle = degrees(atan2(-2 * height, x[target] - middle))
            arrow = (
                f'<path d="M-{RADIUS + 1} 0l-14 -7v14z" fill="{colour}"'
                f' transform="translate({x[target]} {above}) rotate({angle:.1f})"/>'
            )
        # The control point of a parabola is twice as far away as its top.
        lines.append(
            f'<path d="M{x[source]} {above} Q{middle} {above + 2 * height:.1f} {x[target]} {above}" fill="none"'
            f' stroke="{colour}" stroke-width="{stroke}"/>{arrow}'
        )
        y, half = above + height, 4.1 * len(name) + 12
        labels.append(
            f'<rect x="{middle - half:.1f}" y="{y - 14:.1f}" width="{2 * half:.1f}" height="28" rx="14" fill="{fill}"/>'
            f'<text x="{middle:.1f}" y="{y + 5:.1f}" text-anchor="middle" font-size="14" fill="{ink}">{escape(name)}'
            "</text>"
        )
    circles = [
        f'<circle cx="{x[node]}" cy="{above}" r="{RADIUS}" fill="#fff" stroke="#1f2937" stroke-width="2"/>'
        f'<text x="{x[node]}" y="{above + 5}" text-anchor="middle" font-size="15" font-weight="600"'
        f' fill="#1f2937">{name}</text>'
        for node, name in enumerate(short_names(names))
    ]
    title = escape("Cell: " + ", ".join(f"{source} to {target} {name}" for source, target, name in edges))
    return (
        f'<svg viewBox="0 0 {x[-1] + MARGIN} {above + below:.0f}" role="img" aria-label="{title}" class="cell">'
        + "".join(lines + circles + labels)
        + "</svg>"
    )
