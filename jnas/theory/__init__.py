"""Kernels and predictions from them: neural-tangents on today's JAX, exact kernels, infinite width."""
