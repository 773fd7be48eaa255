"""The report of a run: one HTML file that opens without a network, made from the files of its folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jnas import spaces
from jnas.errors import InputError
from jnas.report import page, plots
from jnas.report.views import search
from jnas.store.folder import read_run, write_file
from jnas.store.records import read_records


def write_report(path: str | Path) -> Path:
    """Write report.html into the folder of a finished run and return its path.

    Raises `InputError` when the folder holds no finished run, `RunError` when the file cannot be written.
    """
    path = Path(path)
    result, config = read_run(path)
    if result["kind"] == "study":
        text = _study(result, config, path)
    elif result["kind"] == "training":
        text = _training(result, config)
    else:
        records = path / "records.sqlite"
        text = search.render(result, config, read_records(records) if records.exists() else [])
    write_file(path / "report.html", text)
    return path / "report.html"


def _study(result: Mapping[str, Any], config: Mapping[str, Any], folder: Path) -> str:
    """The page of a study, with the figures in its folder. Raises `InputError` where one cannot be read."""
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


def _training(result: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """The page of a training."""
    try:
        cells = page.cells(spaces.get(result["space"]), result["architecture"])
    except InputError:
        # A genotype with other nodes or operations than the space's has no drawing here.
        cells = []
    return page.template("training.html.j2").render(
        result=result,
        cells=cells,
        curves=plots.training_svg(result["curves"]),
        settings=page.settings(config, "training"),
        environment=config.get("environment", {}),
    )
