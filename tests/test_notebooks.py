"""The notebooks run from start to end, and their two forms hold the same cells."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))


def percent_cells(text):
    """(kind, source) of each cell of a script in percent format."""
    header, *parts = text.split("\n# %%")
    assert header.startswith("# ---\n") and header.rstrip().endswith("\n# ---")
    cells = []
    for part in parts:
        title, _, body = part.partition("\n")
        lines = body.strip("\n").split("\n")
        if title == " [markdown]":
            assert all(line.startswith("#") for line in lines)
            cells.append(("markdown", "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines)))
        else:
            assert title == ""
            cells.append(("code", "\n".join(lines)))
    return cells


def test_every_notebook_is_a_pair():
    scripts, notebooks = (
        {path.stem for path in (ROOT / "notebooks").glob(f"*.{end}")} for end in ("py", "ipynb")
    )
    assert scripts == notebooks and scripts


@pytest.mark.parametrize("script", NOTEBOOKS, ids=lambda path: path.stem)
def test_both_forms_hold_the_same_cells(script):
    notebook = json.loads(script.with_suffix(".ipynb").read_text(encoding="utf-8"))
    stored = [(cell["cell_type"], "".join(cell["source"]).strip("\n")) for cell in notebook["cells"]]
    assert stored == percent_cells(script.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        # Nobody reviews outputs, and they grow a repository.
        assert cell["cell_type"] == "markdown" or (cell["outputs"] == [] and cell["execution_count"] is None)


@pytest.mark.parametrize("script", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(script, tmp_path):
    if "pandas" in script.read_text(encoding="utf-8"):
        pytest.importorskip("pandas", reason="this notebook shows a pandas table")
    figures = "import matplotlib.pyplot as plt; print(len(plt.get_fignums()), 'figures')"
    code = f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__'); {figures}"
    environment = os.environ | {
        "JNAS_FAST": "1",
        "MPLBACKEND": "agg",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
        "PYTHONIOENCODING": "utf-8",
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout.split()[-2]) >= 1
    assert not list(tmp_path.iterdir())
