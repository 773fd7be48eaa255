"""What holds for every test.

Programs are compiled only to run once or twice on a few small images, so most of XLA's optimisations are left out, here
and in the processes that tests start; `JAX_DISABLE_MOST_OPTIMIZATIONS=0 make test` runs what users run, in three times
the time. Hypothesis measures no times, as a busy machine would fail its deadline.
"""

import os

# JAX reads it when it is imported, which no plugin of pytest does.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

from hypothesis import settings

settings.register_profile("jnas", deadline=None)
settings.load_profile("jnas")
