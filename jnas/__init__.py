"""jnas: neural architecture search in JAX.

Importing it is light (no JAX, no Flax) and makes `import neural_tangents` work on today's JAX.
"""

from typing import Any

from jnas.theory.neural_tangents_compat import install as _adapt_neural_tangents

__version__ = "0.1.0"

_adapt_neural_tangents()


def __getattr__(name: str) -> Any:
    """Functions of the package, imported when they are first asked for.

    `jnas.search`, `jnas.score`, `jnas.measure`, `jnas.load`, `jnas.save_state`, `jnas.load_state`.
    """
    if name == "search":
        from jnas.run.api import search

        return search
    if name == "score":
        from jnas.run.score import score

        return score
    if name == "measure":
        from jnas.run.measure import measure

        return measure
    if name == "load":
        from jnas.run.export import load

        return load
    if name in ("save_state", "load_state"):
        from jnas.store import states

        return getattr(states, name)
    raise AttributeError(f"module 'jnas' has no attribute '{name}'")
