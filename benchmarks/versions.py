"""jnas on the oldest and on the newest versions that it supports: installation, first score, tests, a notebook.

    python benchmarks/versions.py --python python3.13            # Colab's versions, as of August 2026
    python benchmarks/versions.py --newest                       # what pip chooses today
    python benchmarks/versions.py --lean                         # without TensorFlow, which nothing imports
    python benchmarks/versions.py --installer uv                 # by uv, which leaves it out by itself

A virtual environment is made in a temporary folder; JAX and its like are installed first, as on Colab, then the wheel
of this clone, which must keep JAX as it is. Prints a row: versions, seconds and size of the installation, seconds of
`import jnas` and of a first score, the tests that passed, seconds of the quickstart notebook and of the pages' code.
`--no-tests` leaves out all from the tests on.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
# https://github.com/googlecolab/backend-info
COLAB = ("jax==0.7.2", "jaxlib==0.7.2", "flax==0.11.2", "numpy==2.1.3")
# Whatever reads programs of JAX, or runs on its kernels.
TESTS = ("tests/programs", "tests/theory", "tests/strategies", "tests/spaces", "tests/proxies/test_probe.py",
         "tests/run/test_measure.py", "tests/run/test_loop.py", "tests/nets/test_operations.py",
         "tests/nets/test_cell.py", "tests/estimators/test_table.py", "tests/store")  # fmt: skip
# Read by newcomers, who type what stands there.
PAGES = [ROOT / "docs" / f"{name}.md" for name in ("own_network", "own_space", "own_proxy", "own_data")]
FOR_TESTS = ("pytest>=8.3", "hypothesis>=6.110", "pandas>=2.2", "pyarrow>=17")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--newest", action="store_true")
    parser.add_argument("--lean", action="store_true")
    parser.add_argument("--installer", choices=("pip", "uv"), default="pip")
    parser.add_argument("--no-tests", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        environment = Path(folder) / "venv"
        if options.installer == "uv":
            run("uv", "venv", "--quiet", "--python", options.python, environment)
            install = ("uv", "pip", "install", "--quiet", "--python", environment / "bin" / "python")
        else:
            run(options.python, "-m", "venv", environment)
            install = (
                environment / "bin" / "python",
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
            )
        python = environment / "bin" / "python"
        before = timed(*install, *(("jax", "flax") if options.newest else COLAB))
        versions = version(python, "jax", "flax", "numpy")
        if options.lean:
            # All but neural-tangents' own requirement of TensorFlow.
            seconds = timed(*install, *requirements()) + timed(
                *install, "--no-deps", "neural-tangents==0.6.5", ROOT
            )
        else:
            seconds = timed(*install, ROOT)
        assert version(python, "jax", "flax", "numpy") == versions, (
            "the installation changed JAX, Flax or NumPy"
        )
        size = sum(path.lstat().st_size for path in environment.rglob("*")) / 2**20
        print(f"{sys.platform}, {run(python, '--version').strip()}, {versions}")
        print(
            f"installed by {options.installer}: JAX {before:.0f} s, jnas {seconds:.0f} s; {size:,.0f} MB in all"
        )
        alone = {"XDG_CACHE_HOME": folder, "JAX_COMPILATION_CACHE_DIR": ""}
        print(f"import jnas: {timed(python, '-c', 'import jnas'):.2f} s")
        score = ("score", "--space", "nasbench201", "--proxies", "naswot", "--archs", "random:100")
        first = timed(environment / "bin" / "jnas", *score, "--out", f"{folder}/scores.csv", **alone)
        print(f"jnas {' '.join(score)}: {first:.1f} s from nothing")
        if not options.no_tests:
            run(*install, *FOR_TESTS)
            tests = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS, check=False)
            print("tests:", tests.strip().splitlines()[-1])
            notebook = ROOT / "notebooks" / "quickstart.py"
            print(f"{notebook.name}: {timed(python, notebook, **alone, MPLBACKEND='agg'):.0f} s")
            for page in PAGES:
                # In a folder of its own, so that the wheel is imported, not the clone.
                empty = Path(folder) / page.stem
                empty.mkdir()
                (empty / "page.py").write_text(code(page))
                seconds = timed(python, "page.py", cwd=empty, **alone, MPLBACKEND="agg")
                print(f"{page.name}: {seconds:.0f} s", flush=True)


def code(page: Path) -> str:
    """The blocks of Python of a page, one after the other."""
    return "\n".join(block.split("\n```", 1)[0] for block in page.read_text().split("\n```python\n")[1:])


def requirements() -> list[str]:
    """The dependencies of jnas but neural-tangents, and the one of neural-tangents that is imported."""
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    return ["frozendict", *(text for text in dependencies if not text.startswith("neural-tangents"))]


def version(python: Path, *packages: str) -> str:
    """Installed versions, in one line."""
    listed = run(python, "-c", f"from importlib.metadata import version as v; print(*map(v, {packages}))")
    return ", ".join(f"{name} {number}" for name, number in zip(packages, listed.split(), strict=True))


def run(*command: object, check: bool = True, cwd: Path = ROOT, **variables: str) -> str:
    """Output of a command; its last lines where it fails."""
    environment = {**os.environ, **variables}
    environment = {name: value for name, value in environment.items() if value and name != "PYTHONPATH"}
    process = subprocess.run([*map(str, command)], capture_output=True, text=True, env=environment, cwd=cwd)
    if check and process.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{(process.stdout + process.stderr)[-2000:]}")
    return re.sub(r"\x1b\[[0-9;]*m", "", process.stdout)


def timed(*command: object, cwd: Path = ROOT, **variables: str) -> float:
    """Seconds of a command."""
    started = time.perf_counter()
    run(*command, cwd=cwd, **variables)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
