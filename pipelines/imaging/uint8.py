"""The one border between image tensors in [0, 1] and images of whole numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL import Image

MAX_UINT16 = 65535.0
"""White of 16 bits."""
ROWS = 256
"""Rows of an image that are converted at once: a large image is never in the memory twice as floats."""


def to_uint8(image: Tensor) -> np.ndarray:
    """``(C, H, W)`` or ``(1, C, H, W)`` in [0, 1] to a contiguous uint8 array ``(H, W, C)``, rounded to nearest."""
    channels = image[0] if image.dim() == 4 else image
    depth, height, width = channels.shape
    array = np.empty((height, width, depth), np.uint8)
    for first in range(0, height, ROWS):
        planes = (channels[:, first : first + ROWS].clamp(0, 1) * 255 + 0.5).byte().cpu().numpy()
        # Channel by channel is three times as fast as a transposed copy.
        for channel, plane in enumerate(planes):
            array[first : first + ROWS, :, channel] = plane
    return array


def to_uint16(image: Tensor) -> np.ndarray:
    """``(C, H, W)`` or ``(1, C, H, W)`` in [0, 1] to a uint16 array ``(H, W, C)``, rounded to nearest."""
    channels = image[0] if image.dim() == 4 else image
    values = channels.movedim(0, -1).clamp(0, 1).cpu().numpy().astype(np.float64)
    return (values * MAX_UINT16 + 0.5).astype(np.uint16)


def to_tensor(pixels: np.ndarray) -> Tensor:
    """An array ``(H, W, C)`` of uint8 or uint16 to float32 ``(1, C, H, W)`` in [0, 1]."""
    planes = np.empty((1, pixels.shape[2], *pixels.shape[:2]), np.float32)
    for channel, plane in enumerate(planes[0]):
        np.divide(pixels[..., channel], np.float32(np.iinfo(pixels.dtype).max), out=plane, dtype=np.float32)
    return torch.from_numpy(planes)


def to_pillow(image: Tensor) -> Image.Image:
    """``(3, H, W)`` or ``(1, 3, H, W)`` in [0, 1] to an RGB Pillow image."""
    from PIL import Image

    return Image.fromarray(to_uint8(image))


def from_pillow(image: Image.Image) -> Tensor:
    """A Pillow image to RGB ``(1, 3, H, W)`` in [0, 1]."""
    return to_tensor(np.array(image.convert("RGB")))
