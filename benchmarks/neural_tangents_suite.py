"""neural-tangents' own tests under jnas: counts per file, and the first error line of each failure.

    python benchmarks/neural_tangents_suite.py                                      # this interpreter
    python benchmarks/neural_tangents_suite.py --python OLD/bin/python --python NEW/bin/python
    python benchmarks/neural_tangents_suite.py --only 'test_ntk.*' --files empirical_test

The wheel of neural-tangents 0.6.5 installs its tests as the top-level package `tests`; absl-py runs them.
They are sampled at random from grids of parameters with a fixed seed (NT_NUM_GENERATED_CASES cases of each,
4 by default). Each interpreter needs the dependencies of jnas and absl-py; each file runs in a process of its
own. Some tests skip themselves: the largest where there is no accelerator, and combinations without meaning.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

FILES = ("empirical_test", "predict_test", "batching_test", "monte_carlo_test")

# `jax.tree_map` left JAX; nothing else in the source of the tests needs an adaptation.
TEST_ADAPTATIONS = {
    "tests.test_utils": (
        ("jax.tree_map(is_finite, x)", "jax.tree_util.tree_map(is_finite, x)"),
        ("jax.tree_map(is_finite, y)", "jax.tree_util.tree_map(is_finite, y)"),
        (
            "jax.tree_map(assert_close, expected, actual)",
            "jax.tree_util.tree_map(assert_close, expected, actual)",
        ),
    ),
    "tests.empirical_test": (("from jax import tree_map\n", "from jax.tree_util import tree_map\n"),),
    "tests.predict_test": (("jax.tree_map(\n", "jax.tree_util.tree_map(\n"),),
}


# The random numbers that the tests' data and tolerances were made for. JAX 0.5 changed the default: one key
# now gives arrays of two shapes the same leading numbers, so that `x_self` and `x_other` of batching_test
# coincide where they should differ, and the error of a Monte Carlo estimate comes to 2.2 % where 2 % are
# allowed. A value in the environment has precedence.
RANDOM_NUMBERS = {"JAX_THREEFRY_PARTITIONABLE": "0"}


class Outcomes(unittest.TestResult):
    """Prints one JSON line a test: its name, outcome, first error line and seconds."""

    def startTest(self, test):
        super().startTest(test)
        self.started = time.perf_counter()
        self.outcome, self.message = "passed", ""

    def stopTest(self, test):
        super().stopTest(test)
        seconds = round(time.perf_counter() - self.started, 1)
        print(json.dumps([test.id(), self.outcome, self.message, seconds]), flush=True)

    def addSkip(self, test, reason):
        self.outcome, self.message = "skipped", reason

    def addFailure(self, test, err):
        self.outcome, self.message = "failed", first_line(err[1])

    addError = addFailure

    def addSubTest(self, test, subtest, err):
        if err is not None:
            self.addFailure(subtest, err)


def first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:4])[:300]}"


def run_file(file: str, only: str) -> None:
    """Runs the tests of one file in this process."""
    sys.path.insert(
        0, str(Path(__file__).resolve().parents[1])
    )  # the jnas beside this script, under any interpreter
    import jax

    import jnas
    from jnas.theory.neural_tangents_compat import AdaptingFinder

    print(json.dumps([f"Python {sys.version.split()[0]}, JAX {jax.__version__}, jnas {jnas.__version__}"]))
    sys.meta_path.insert(0, AdaptingFinder(TEST_ADAPTATIONS))
    # By its location: the name `tests` may also be that of the tests in the current folder.
    package = Path(str(importlib.metadata.distribution("neural-tangents").locate_file("tests")))
    spec = importlib.util.spec_from_file_location(
        "tests", package / "__init__.py", submodule_search_locations=[str(package)]
    )
    assert spec is not None and spec.loader is not None
    sys.modules["tests"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["tests"])
    sys.argv = sys.argv[:1]  # the test files parse it as absl flags
    module = importlib.import_module(f"tests.{file}")
    result = Outcomes()
    for test in flattened(unittest.defaultTestLoader.loadTestsFromModule(module)):
        if re.search(only, test.id()):
            test.run(result)


def flattened(suite: unittest.TestSuite):
    for entry in suite:
        if isinstance(entry, unittest.TestSuite):
            yield from flattened(entry)
        else:
            yield entry


def collect(python: str, file: str, only: str, log: Path | None) -> tuple[str, list[list], str]:
    """Runs one file in a process of its own: versions, [name, outcome, message, seconds] per test, error."""
    command = [python, __file__, "--worker", file, "--only", only]
    header, rows, errors = python, [], []
    environment = {**RANDOM_NUMBERS, **os.environ}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        with ThreadPoolExecutor(1) as drain:
            stderr = drain.submit(process.stderr.read)
            for line in process.stdout:
                if not line.startswith('["'):
                    continue  # neural-tangents prints, too
                if log is not None:
                    with log.open("a") as stream:
                        stream.write(f"{python} {line}")
                row = json.loads(line)
                header, rows = (row[0], rows) if len(row) == 1 else (header, [*rows, row])
            errors = stderr.result().strip().splitlines()
    crash = f"exit status {process.returncode}: {errors[-1] if errors else ''}" if process.returncode else ""
    return header, rows, crash


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--python", action="append", help="interpreter to run under; may be repeated")
    parser.add_argument("--files", nargs="+", choices=FILES, default=FILES, help="test files to run")
    parser.add_argument(
        "--only", default="", help="run only tests whose name matches this regular expression"
    )
    parser.add_argument("--jobs", type=int, default=1, help="files to run at a time")
    parser.add_argument("--log", type=Path, help="append each outcome as it happens to this file")
    parser.add_argument("--worker", choices=FILES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        run_file(arguments.worker, arguments.only)
        return 0

    pythons = arguments.python or [sys.executable]
    jobs = [(python, file) for python in pythons for file in arguments.files]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        results = list(pool.map(lambda job: collect(*job, arguments.only, arguments.log), jobs))

    failed = False
    for python in pythons:
        of_python = [(job[1], result) for job, result in zip(jobs, results, strict=True) if job[0] == python]
        print(f"\n{of_python[0][1][0]} ({python})")
        print(f"{'file':<20}{'passed':>8}{'failed':>8}{'skipped':>9}{'minutes':>9}")
        for file, (_, rows, crash) in of_python:
            counts = [sum(row[1] == outcome for row in rows) for outcome in ("passed", "failed", "skipped")]
            minutes = sum(row[3] for row in rows) / 60
            print(f"{file:<20}{counts[0]:>8}{counts[1]:>8}{counts[2]:>9}{minutes:>9.1f}  {crash}")
            failed |= bool(counts[1] or crash)
        for _, (_, rows, _) in of_python:
            for name, outcome, message, _ in rows:
                if outcome == "failed":
                    print(f"  {name}\n    {message}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
