"""Face alignment of Deep3DFaceRecon: scale and crop an image, without rotation, so that five facial points match those
of a standard face."""

from __future__ import annotations

import numpy as np
from PIL import Image
from torch import Tensor

from ..faces.align import crop
from ..imaging.uint8 import from_pillow, to_pillow

SIDE = 224
_PIXELS_PER_DECIMETER = 102.0
"""Scale of the aligned square: about 102 pixels per decimeter of the standard face."""
MAX_SCALED = 8192
"""Longer side, in pixels, up to which an image is scaled as a whole."""
STANDARD = np.array(
    [
        [-0.31149, 0.29036, 0.13378],
        [0.30980, 0.28972, 0.13180],
        [0.00325, -0.04618, 0.55244],
        [-0.25217, -0.38134, 0.22406],
        [0.24847, -0.38128, 0.22236],
    ]
)
"""Five points of a standard face in decimeters: image-left eye, image-right eye, nose tip, image-left and image-right
mouth corner."""


def reconstruction_transform(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """Compute the transform ``(2, 3)`` from image pixels to pixels of the aligned square of 224 px.

    As in the reference implementation, an eye is the middle of its two corners, pixel centers are at whole numbers, and
    the size of the scaled image and the offset of the crop are truncated to integers.

    Args:
        points: 68 landmarks in pixels, ``(68, 2)``.
        height, width: size of the image in pixels.

    Raises:
        ValueError: the five points coincide.
    """
    eyes = [points[[36, 39]].mean(0), points[[42, 45]].mean(0)]
    five = np.stack([*eyes, points[30], points[48], points[54]]) - 0.5
    scale, (x, y) = _weak_perspective(np.stack([five[:, 0], height - 1 - five[:, 1]], 1))
    factor = _PIXELS_PER_DECIMETER / scale
    new_width, new_height = int(width * factor), int(height * factor)
    left = int(new_width / 2 - SIDE / 2 + (x - width / 2) * factor)
    top = int(new_height / 2 - SIDE / 2 + (height / 2 - y) * factor)
    return np.array([[new_width / width, 0.0, -left], [0.0, new_height / height, -top]])


def aligned_square(image: Tensor, transform: np.ndarray) -> Tensor:
    """Cut out the aligned square ``(1, 3, 224, 224)`` in 8-bit steps, with Pillow's bicubic filter like the reference.

    Args:
        image: ``(1, 3, H, W)``, RGB in [0, 1].
        transform: from ``reconstruction_transform``.
    """
    height, width = image.shape[-2:]
    left, top = (round(-v) for v in transform[:, 2])
    size = round(transform[0, 0] * width), round(transform[1, 1] * height)
    if max(size) > MAX_SCALED:
        # A tiny face in a large image: the scaled image would not fit into the memory.
        return crop(image, transform, SIDE).clamp(0, 1)
    scaled = to_pillow(image).resize(size, Image.Resampling.BICUBIC)
    # Beyond the image the square is black.
    return from_pillow(scaled.crop((left, top, left + SIDE, top + SIDE)))


def _weak_perspective(points: np.ndarray) -> tuple[float, np.ndarray]:
    """Fit a scale and a translation ``(2,)`` that map the standard face to five points ``(5, 2)``, y up.

    Least squares over an unconstrained 2x3 projection, as in the reference implementation. The scale is the mean norm
    of its two rows.
    """
    design = np.concatenate([STANDARD, np.ones((5, 1))], 1)
    projection, *_ = np.linalg.lstsq(design, points, rcond=None)
    scale = float(np.linalg.norm(projection[:3], axis=0).mean())
    if scale < 1e-6:
        raise ValueError("the landmarks coincide, so the face cannot be aligned; detect the landmarks again")
    return scale, projection[3]
