"""The code of the documentation runs, and what it names exists."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
EXECUTED = ("quickstart", "own_space", "own_proxy", "own_data")
# The blocks of a page are one program; every page starts from nothing but what is imported.
PROGRAM = """
import pathlib, sys, traceback
for page in sys.argv[1:]:
    names = {"__name__": "__main__"}
    for number, block in enumerate(pathlib.Path(page).read_text(encoding="utf-8").split("\\n```python\\n")[1:], 1):
        code = block.split("\\n```", 1)[0]
        print("#", page, number, flush=True)
        exec(compile(code, f"{page}, block {number}", "exec"), names)
"""


def test_the_code_runs(tmp_path):
    pages = [DOCS / f"{name}.md" for name in EXECUTED]
    blocks = sum(page.read_text(encoding="utf-8").count("\n```python\n") for page in pages)
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, pages)],
        cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count(f"# {DOCS}") == blocks >= len(EXECUTED)


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
