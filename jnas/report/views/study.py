"""The page of a study."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jnas.errors import InputError
from jnas.report import page


def render(result: Mapping[str, Any], config: Mapping[str, Any], folder: Path) -> str:
    """The page as text, from the result, the config.yaml and the figures in the folder of a run.

    Raises `InputError` where a figure cannot be read.
    """
    try:
        figures = [
            ((folder / f"{figure['name']}.svg").read_text(encoding="utf-8"), figure["caption"])
            for figure in result["figures"]
        ]
    except OSError as error:
        raise InputError(f"cannot read '{error.filename}' ({error.strerror}): run the study again") from None
    sections = page.settings(config, "study", (result["study"],))
    return page.template("study.html.j2").render(
        result=result, figures=figures, settings=[entry for _, entries in sections for entry in entries]
    )
