"""Image files into one array, with Pillow."""

from collections.abc import Iterable
from pathlib import Path
from typing import IO

import numpy as np

from jnas.errors import InputError


def decode(files: Iterable[tuple[str, Path | IO[bytes]]]) -> np.ndarray:
    """Decode (description, file) pairs into uint8 [N, H, W, C]: C = 1 when all are gray, else 3.

    Raises `InputError` that names the image when one cannot be decoded, has more than 8 bits a channel, or
    differs in size from the first; and when Pillow is missing.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise InputError(
            "reading image files needs Pillow; install it with: pip install 'jnas[images]'"
        ) from error

    images: list[np.ndarray] = []
    for name, file in files:
        try:
            with Image.open(file) as image:
                if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"):
                    raise InputError(
                        f"{name} has Pillow's mode {image.mode}; convert it to 8-bit gray or RGB"
                    )
                pixels = np.asarray(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))
        except InputError:
            raise
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise InputError(f"{name} is not a readable image; repair or remove it") from error
        if images and pixels.shape[:2] != images[0].shape[:2]:
            raise InputError(
                f"{name} is {_size(pixels)} pixels but the first image is {_size(images[0])}; "
                "make all images one size"
            )
        images.append(pixels)
    if not images:
        return np.zeros((0, 0, 0, 1), np.uint8)
    if all(pixels.ndim == 2 for pixels in images):
        return np.stack(images)[..., None]
    return np.stack(
        [pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2) for pixels in images]
    )


def _size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"
