"""Float64 for a while, on every JAX that jnas supports."""

import jax


def float64():
    """A context in which arrays are float64; JAX 0.7 has it under `jax.experimental` alone."""
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    from jax.experimental import enable_x64

    return enable_x64()
