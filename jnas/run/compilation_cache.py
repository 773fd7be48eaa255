"""JAX's persistent compilation cache, on by default, so that the second run of a search compiles nothing."""

import logging
import os
import tempfile
from pathlib import Path

log = logging.getLogger("jnas")


def enable_compilation_cache() -> Path | None:
    """Turn the cache on in the user's cache folder; the folder, or None where it is off.

    A folder that the user chose (`JAX_COMPILATION_CACHE_DIR`) is respected, as is `XDG_CACHE_HOME`. Where the
    folder cannot be written the cache stays off, with a line in the log: it only saves time.
    """
    import jax

    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jnas" / "jax"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, RuntimeError) as error:
        log.warning("compilation cache off: cannot write the user's cache folder (%s)", error)
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    return folder
