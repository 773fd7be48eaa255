"""The report of a run: one HTML file that opens without a network, made from the files of its folder."""

from pathlib import Path

from jnas.report.views import search, study, training
from jnas.store.folder import read_run, write_file
from jnas.store.records import read_records


def write_report(path: str | Path) -> Path:
    """Write report.html into the folder of a finished run and return its path.

    Raises `InputError` when the folder holds no finished run, `RunError` when the file cannot be written.
    """
    path = Path(path)
    result, config = read_run(path)
    if result["kind"] == "study":
        text = study.render(result, config, path)
    elif result["kind"] == "training":
        text = training.render(result, config)
    else:
        records = path / "records.sqlite"
        text = search.render(result, config, read_records(records) if records.exists() else [])
    write_file(path / "report.html", text)
    return path / "report.html"
