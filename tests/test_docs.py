"""The code of the documentation and the notebooks runs, and the files and modules that pages name exist."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
EXECUTED = [
    DOCS / f"{name}.md"
    for name in (
        "quickstart",
        "own_network",
        "own_space",
        "own_strategy",
        "ask_tell",
        "own_proxy",
        "own_data",
        "methods/surrogates",
    )
]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))
# One process runs all, each from nothing but the modules that are imported; the blocks of a page are one program.
PROGRAM = r"""
import contextlib, io, json, os, pathlib, sys, traceback
import matplotlib.pyplot as plt
outcomes = {}
for path in sys.argv[2:]:
    print("running", path, file=sys.stderr, flush=True)
    plt.close("all")
    text, names, printed, error = pathlib.Path(path).read_text("utf-8"), {"__name__": "__main__"}, io.StringIO(), ""
    blocks = [text]
    os.chdir(pathlib.Path(sys.argv[1]).parent / pathlib.Path(path).suffix[1:])
    if path.endswith(".md"):
        blocks = [block.split("\n```", 1)[0] for block in text.split("\n```python\n")[1:]]
    try:
        with contextlib.redirect_stdout(printed):
            for number, block in enumerate(blocks, 1):
                exec(compile(block, f"{path}, block {number}", "exec"), names)
    except BaseException:
        error = traceback.format_exc()
    figures = len(plt.get_fignums())
    outcomes[path] = {"blocks": len(blocks), "error": error, "figures": figures, "printed": printed.getvalue()}
    pathlib.Path(sys.argv[1]).write_text(json.dumps(outcomes), "utf-8")
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """{path: blocks, error, figures, printed} of all, and the folder in which notebooks run."""
    folder = tmp_path_factory.mktemp("executed")
    (folder / "md").mkdir()
    (folder / "py").mkdir()
    environment = os.environ | {
        "JNAS_FAST": "1",
        "MPLBACKEND": "agg",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
        "PYTHONIOENCODING": "utf-8",
    }
    arguments = [folder / "outcomes.json", *EXECUTED, *NOTEBOOKS]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        env=environment, capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "outcomes.json").read_text("utf-8")), folder / "py"


@pytest.mark.parametrize("path", [*EXECUTED, *NOTEBOOKS], ids=lambda path: path.stem)
def test_the_code_runs(path, outcomes):
    outcome = outcomes[0][str(path)]
    assert not outcome["error"], outcome["error"]
    assert outcome["blocks"] >= 1 and outcome["figures"] >= (path.suffix == ".py")


def test_notebooks_leave_no_files(outcomes):
    assert not list(outcomes[1].iterdir())


def test_the_sizes_that_a_page_tells(outcomes):
    """Sizes in own_space.md, counted by hand in tests/nets/test_own_space.py."""
    printed = outcomes[0][str(DOCS / "own_space.md")]["printed"]
    assert "[1531258] [13739658]" in printed and "[5998 " in printed and "[40362 " in printed
    assert "array([246])" in printed and "array([11560])" in printed


def test_the_sizes_that_the_page_on_networks_tells(outcomes):
    """3x3 convolutions of 1 to 8 and of 8 to 16 channels on 8x8 pixels, each normalised, and a classifier."""
    params = 9 * 8 + 2 * 8 + 9 * 8 * 16 + 2 * 16 + 16 * 10 + 10
    flops = 64 * 9 * 8 + 64 * 9 * 8 * 16 + 16 * 10
    activations = 64 * 8 + 64 * 16 + 10
    text = (DOCS / "own_network.md").read_text("utf-8").replace("\n", " ")
    assert f"{params:,} parameters, {flops:,} multiply-adds and {activations:,} activations" in text
    printed = outcomes[0][str(DOCS / "own_network.md")]["printed"]
    for number in (params, flops, activations):
        assert f" {number:,}\n" in printed
    assert "needs labels" in printed and "no ReLU" in printed and "(32, 32) True" in printed


def test_the_tau_that_the_page_on_surrogates_tells(outcomes):
    printed = outcomes[0][str(DOCS / "methods" / "surrogates.md")]["printed"]
    tau = float(printed.split("tau ")[1])
    assert f"tau {tau:.3f}".replace("0.", ".") in (DOCS / "methods" / "surrogates.md").read_text("utf-8")
    assert printed.startswith("(1500, 125)")


def test_docstrings_open_with_a_noun_or_a_verb():
    """As CONTRIBUTING.md asks; a clause that stands for a noun is read twice."""
    openings = ("What ", "Of ", "How ", "Whether ", "Which ", "Where ")
    for path in sorted((ROOT / "jnas").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node) or ""
                assert not text.startswith(openings), f"{path.relative_to(ROOT)}: {text.splitlines()[0]}"


def test_every_notebook_is_a_pair():
    scripts, notebooks = (
        {path.stem for path in (ROOT / "notebooks").glob(f"*.{end}")} for end in ("py", "ipynb")
    )
    assert scripts == notebooks and scripts


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


@pytest.mark.parametrize("script", NOTEBOOKS, ids=lambda path: path.stem)
def test_both_forms_hold_the_same_cells(script):
    notebook = json.loads(script.with_suffix(".ipynb").read_text(encoding="utf-8"))
    stored = [(cell["cell_type"], "".join(cell["source"]).strip("\n")) for cell in notebook["cells"]]
    assert stored == percent_cells(script.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        # Nobody reviews outputs, and they grow a repository.
        assert cell["cell_type"] == "markdown" or (cell["outputs"] == [] and cell["execution_count"] is None)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_what_a_page_names_exists(page):
    text = page.read_text(encoding="utf-8")
    files = re.findall(
        r"\b(?:configs|benchmarks|notebooks|jnas|tests)/[\w./-]*\.(?:yaml|py|ipynb|md)\b", text
    )
    assert [name for name in sorted(set(files)) if not (ROOT / name).is_file()] == []
    links = re.findall(r"\]\(([^)#:\s]+)(?:#[^)\s]*)?\)", text)
    assert [link for link in sorted(set(links)) if not (page.parent / link).is_file()] == []
    modules = re.findall(r"^::: ([\w.]+)$", text, flags=re.MULTILINE)
    for name in modules:
        path = ROOT / name.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__init__.py").is_file(), name


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    listed = re.findall(r"[\w/]+\.md", navigation)
    assert sorted(listed) == sorted(str(page.relative_to(DOCS)) for page in PAGES)
