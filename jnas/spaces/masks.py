"""Masks of channels as a space: M binary decisions, 0 drops a channel and 1 keeps it.

Gates are float32[..., 1, M, 2]. The text is the supernet's name and the masks as hexadecimal digits, the first mask
first: `shake_shake:ff03`.
"""

import numpy as np

from jnas.errors import InputError
from jnas.spaces.base import Graph, Space, Text

OPERATIONS = ("dropped", "kept")


def masks(name: str, count: int) -> Space:
    """The space of `count` masks of the supernet `name`."""
    digits = 2 * -(-count // 8)

    def write(kept: np.ndarray) -> str:
        return f"{name}:{np.packbits(kept > 0).tobytes().hex()}"

    def read(text: str) -> np.ndarray:
        head, _, tail = text.partition(":")
        try:
            packed = np.frombuffer(bytes.fromhex(tail), np.uint8)
        except ValueError:
            packed = np.zeros(0, np.uint8)
        if head != name or 2 * len(packed) != digits:
            raise InputError(
                f"'{text[:40]}' is no candidate of {name} with {count} masks: give {name}: and {digits} hexadecimal "
                "digits"
            )
        return np.unpackbits(packed)[:count].astype(np.int32)

    graph = Graph(((0, 1),) * count, OPERATIONS)
    return Space(name, (graph,), cell_names=("masks",), text=Text(write, read), network="masks")
