"""What holds for every test.

Programs are compiled only to run once or twice on a few small images, so most of XLA's optimisations are left out, and
what one test compiles the others find: here, in other workers, and in the processes that tests start.
`JAX_DISABLE_MOST_OPTIMIZATIONS=0 make test` runs what users run, in three times the time. Hypothesis measures no times,
as a busy machine would fail its deadline.
"""

import atexit
import os
import shutil
import tempfile

# JAX reads these when it is imported, which no plugin of pytest does.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
if "PYTEST_XDIST_WORKER" not in os.environ:
    _folder = tempfile.mkdtemp(prefix="jnas-tests-")
    atexit.register(shutil.rmtree, _folder, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _folder
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"

from hypothesis import settings

settings.register_profile("jnas", deadline=None)
settings.load_profile("jnas")
