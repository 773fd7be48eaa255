"""Settings of every test.

Programs are compiled only to run once or twice on a few small images, so most of XLA's optimisations are left out. A
program that one test compiles is read from the cache by the others: here, in other workers, in the processes that
tests start, and in the next run.
`JAX_DISABLE_MOST_OPTIMIZATIONS=0 XLA_FLAGS= make test` runs the programs of users, in three times the time. Hypothesis
measures no times, as a busy machine would fail its deadline.

A file goes to one worker as a whole. Files that take longest start first: those that start late are short, and the
workers end together.
"""

import importlib.metadata
import os
import pathlib

# JAX reads these when it is imported, which no plugin of pytest does.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# XLA's newer generator of fused loops takes two thirds of the time of compilation on a CPU. Later releases have no
# other, and end a process that names the flag.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_cpu_use_fusion_emitters=false"
    if tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2])) < (0, 11)
    else "",
)
# One device, as a command would make one of each core, and last bits differ. Tests of several devices name a number.
if "xla_force_host_platform_device_count" not in os.environ["XLA_FLAGS"]:
    os.environ["XLA_FLAGS"] += " --xla_force_host_platform_device_count=1"
# Outlives the run: JAX keys its entries by program, flags and version. `make clean` removes it. The smallest programs
# are read from it too: there are thousands, and to compile one takes three times as long as to read it.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(__file__).parents[1] / ".jax_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import pytest
from hypothesis import settings

pytest_plugins = ["finished_runs"]

settings.register_profile("jnas", deadline=None)
settings.load_profile("jnas")

# Each compiled program takes nine of the memory maps that Linux allows a process, 65,530: with 7,000 of them alive the
# next compilation aborts the process. Programs leave with their file above the first number, with a test above the
# second.
MOST_MAPS, MOST_MAPS_OF_A_FILE = 20_000, 45_000
MAPS = pathlib.Path("/proc/self/maps")


def _let_programs_leave(most: int) -> None:
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > most:
        import jax

        jax.clear_caches()


@pytest.fixture(autouse=True, scope="module")
def programs_leave_with_their_file():
    yield
    _let_programs_leave(MOST_MAPS)


@pytest.fixture(autouse=True)
def programs_leave_with_a_test():
    yield
    _let_programs_leave(MOST_MAPS_OF_A_FILE)


# Files that take half a minute or more on a core, by folder and name.
LONG = (
    "strategies/test_conformance.py",
    "tests/test_docs.py", "run/test_oneshot.py", "run/test_search.py", "tests/test_golden.py",
    "proxies/test_network_proxies.py", "proxies/test_conformance.py", "oneshot/test_supernets.py",
    "tests/test_tenas_parity.py", "tests/test_products.py", "theory/test_empirical_ntk.py", "nets/test_two_inputs.py",
    "nets/test_nasbench201.py", "run/test_train_processes.py", "run/test_table_build.py", "run/test_kill.py",
    "run/test_score.py", "studies/test_studies.py", "studies/test_theory_studies.py", "run/test_darts_search.py",
    "nets/test_cell.py", "proxies/test_subjects.py", "nets/test_mixture.py", "run/test_train.py",
    "estimators/test_batch_training.py", "run/test_score_kill.py", "run/test_evaluate.py",
)  # fmt: skip


def pytest_configure(config):
    # pytest-xdist, where it is installed, starts files with many tests first, which are not those that take long.
    if getattr(config.option, "loadscopereorder", None):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items):
    rank = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(f"{item.path.parent.name}/{item.path.name}", len(rank)))
