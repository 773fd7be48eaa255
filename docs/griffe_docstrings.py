"""What the reference needs to read jnas's docstrings as they are: an extension of griffe."""

import re
from typing import Any

import griffe


class FieldLines(griffe.Extension):
    """Keeps the fields of a docstring, `name: what it is`, on lines of their own.

    Markdown would join them, and a field that goes on in an indented line would be read as an admonition.
    """

    FIELD = re.compile(r"[a-z_]\w*(, [a-z_]\w*)*: ")

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is None:
            return
        lines = obj.docstring.value.split("\n")
        inside = False
        for place, line in enumerate(lines):
            if self.FIELD.match(line):
                inside = True
                if place and lines[place - 1].strip():
                    lines[place - 1] = lines[place - 1].rstrip() + "  "
            elif inside and line.startswith("  "):
                lines[place] = line.strip()
            else:
                inside = False
        obj.docstring.value = "\n".join(lines)
