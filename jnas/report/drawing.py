"""The found cell drawn: in characters for the terminal, as SVG for the report.

A cell is its list of `(source node, target node, operation)`, with the inputs first. An edge whose operation is
`none` carries nothing: left out of the characters, dashed in the SVG.
"""

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from jnas.spaces.base import Space

Edge = tuple[int, int, str]


def cell_edges(space: Space, architecture: str) -> list[list[Edge]]:
    """The edges of each cell that the string `architecture` describes; `InputError` on bad text.

    Edges without operation are among them where an architecture has all edges.
    """
    gates = np.asarray(space.gates(space.from_string(architecture)))
    cells = []
    for choices in gates.argmax(axis=-1):
        names = [space.operations[choice] for choice in choices]
        edges = [(source, target, name) for (source, target), name in zip(space.edges, names, strict=True)]
        cells.append([edge for edge in edges if space.incoming is None or edge[2] != "none"])
    return cells


def cell_text(edges: Sequence[Edge], names: Sequence[str]) -> str:
    """The cell in box-drawing characters: a trunk goes down from each node, its branches are its operations.

    A line that ends in an arrow is the sum of the operations on it.
    """
    nodes = len(names)
    kept = {(source, target): name for source, target, name in edges if name != "none"}
    width = max(len(name) for _, _, name in edges) + 12
    canvas = [[" "] * (width * nodes) for _ in range(2 * nodes - 1)]

    def write(row: int, column: int, text: str) -> None:
        canvas[row][column : column + len(text)] = text

    for node in range(nodes):
        sources = [source for source in range(node) if (source, node) in kept]
        row, column = 2 * node, 2 + width * node
        if sources:
            first = 2 + width * sources[0]
            write(row, first, "─" * (column - 4 - first) + "▶ ")
        fed = sources or node == 0 or names[node].startswith("input")
        write(row, column - 2, names[node] if fed else f"{names[node]} (zero)")
    for node in range(nodes):
        last = max((target for source, target in kept if source == node), default=node)
        for row in range(2 * node + 1, 2 * last + 1):
            write(row, 2 + width * node, "│")
    for (source, target), name in kept.items():
        row, column = 2 * target, 2 + width * source
        last = all(later <= target for start, later in kept if start == source)
        leftmost = all(start >= source for start, end in kept if end == target)
        write(row, column, ("└" if last else "├") if leftmost else ("┴" if last else "┼"))
        write(row, column + 3, f" {name} ")
    return "\n".join("".join(line).rstrip() for line in canvas)


def short_names(names: Sequence[str]) -> list[str]:
    """The nodes of a cell as a picture or a table names them: in, 1, 2, ..., out."""
    return [name.replace("input", "in").replace("output", "out").removeprefix("node ") for name in names]


def cell_svg(edges: Sequence[Edge], colours: Mapping[str, str], names: Sequence[str]) -> str:
    """The cell as SVG: nodes on a line, longer edges as arcs, each operation a label in its colour."""
    nodes = len(names)
    names = short_names(names)
    step, margin, lift = 250, 44, 80
    above, below = (
        20 + max((lift * (t - s - 0.35) + 20 for s, t, _ in edges if _side(s, t) == side), default=20)
        for side in (-1, 1)
    )
    x = [margin + step * node for node in range(nodes)]
    width, height = x[-1] + margin, above + below

    lines, labels = [], []
    for source, target, name in edges:
        span = target - source
        side = _side(source, target)
        middle = above + side * lift * (span - 0.35)
        control = above + 2 * (middle - above)
        colour = colours[name]
        dash = ' stroke-dasharray="3 6"' if name == "none" else ""
        lines.append(
            f'<path d="M{x[source]} {above} Q{(x[source] + x[target]) / 2} {control:.1f} {x[target]} {above}"'
            f' fill="none" stroke="{colour}" stroke-width="{1.5 if dash else 3}"{dash}/>'
        )
        labels.append(_label((x[source] + x[target]) / 2, middle, name, colour))
        if not dash:
            labels.append(_arrow_head(x[source], x[target], above, control, colour))
    circles = [
        f'<circle cx="{x[node]}" cy="{above}" r="24" fill="#fff" stroke="#1f2937" stroke-width="2"/>'
        f'<text x="{x[node]}" y="{above + 5}" text-anchor="middle" font-size="15" font-weight="600"'
        f' fill="#1f2937">{name}</text>'
        for node, name in enumerate(names)
    ]
    title = escape("Cell: " + ", ".join(f"{source} to {target} {name}" for source, target, name in edges))
    return (
        f'<svg viewBox="0 0 {width} {height:.0f}" role="img" aria-label="{title}" class="cell">'
        + "".join(lines + circles + labels)
        + "</svg>"
    )


def _side(source: int, target: int) -> int:
    """Where an edge is drawn: 0 on the line, -1 above, 1 below.

    Arcs of one node stay on one side, so that those of its neighbours do not cross them.
    """
    if target - source == 1:
        return 0
    return -1 if source % 2 == 0 else 1


def _label(x: float, y: float, name: str, colour: str) -> str:
    half = 4.1 * len(name) + 12
    ink, fill = ("#6b7280", "#fff") if name == "none" else (_ink_on(colour), colour)
    return (
        f'<rect x="{x - half:.1f}" y="{y - 14:.1f}" width="{2 * half:.1f}" height="28" rx="14"'
        f' fill="{fill}"/>'
        f'<text x="{x:.1f}" y="{y + 5:.1f}" text-anchor="middle" font-size="14" fill="{ink}">'
        f"{escape(name)}</text>"
    )


def _arrow_head(start: float, end: float, y: float, control: float, colour: str) -> str:
    # The head sits where the curve meets the circle of the target, along the chord from there to the curve.
    middle = (start + end) / 2
    curve = [
        (
            (1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * end,
            (1 - t**2 - (1 - t) ** 2) * (control - y) + y,
        )
        for t in np.linspace(0, 1, 2001)
    ]
    tip = next(point for point in reversed(curve) if np.hypot(point[0] - end, point[1] - y) >= 26)
    tail = next(point for point in reversed(curve) if np.hypot(point[0] - end, point[1] - y) >= 40)
    along = np.array(tip) - np.array(tail)
    across = np.array([-along[1], along[0]]) * 0.5
    corners = [np.array(tip), np.array(tail) + across, np.array(tail) - across]
    return f'<polygon points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in corners)}" fill="{colour}"/>'


def _ink_on(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return "#fff" if 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.5 else "#111827"
