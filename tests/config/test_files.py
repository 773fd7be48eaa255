"""Every file in configs/ is read by the command that its head names."""

import importlib
import re
from pathlib import Path

import pytest

FILES = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_is_read_by_its_command(path):
    commands = re.findall(
        rf"^#   jnas (\w+) configs/{path.name}( .*)?$", path.read_text(), flags=re.MULTILINE
    )
    assert commands, f"{path.name} does not say its command"
    for command, flags in commands:
        reader = importlib.import_module(f"jnas.config.{command}")
        options = [(key, text) for key, text in re.findall(r"--([\w.]+) (\S+)", flags) if key != "out"]
        reader.read_config(path, options)
