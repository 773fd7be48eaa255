"""Kernels and what they predict: neural-tangents on today's JAX, infinite width, drift."""
