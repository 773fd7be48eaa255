"""A YAML mapping from a file."""

import re
from pathlib import Path
from typing import Any

import yaml

from jnas.errors import InputError, describe


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The YAML mapping in a file. Raises `InputError`, with the line, where there is none."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"no configuration file '{path}': give an existing YAML file") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text: give a YAML file") from None
    except OSError as error:
        raise InputError(f"cannot read '{path}' ({error.strerror}): give a readable YAML file") from None
    try:
        mapping = yaml.load(text, Loader=Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", "unreadable")
        raise InputError(f"{path}{line}: not valid YAML ({problem}): write 'key: value' lines") from None
    except (ValueError, OverflowError, RecursionError) as error:
        # PyYAML passes on the errors of dates and numbers that do not exist, and of too deep a nesting.
        raise InputError(f"{path}: holds a value that YAML cannot read ({error}): put it in quotes") from None
    if mapping is None:
        return {}
    if not isinstance(mapping, dict):
        raise InputError(f"{path}: holds {describe(mapping)}: write 'key: value' lines")
    return mapping


class Loader(yaml.SafeLoader):
    """Safe YAML with two changes: the second of two equal keys is an error, and 1e-3 is a number as in YAML 1.2."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = set()
        for key_node, _ in node.value:
            if str(key_node.value) in keys:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key '{key_node.value}' appears twice", key_node.start_mark
                )
            keys.add(str(key_node.value))
        return super().construct_mapping(node, deep)


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)
