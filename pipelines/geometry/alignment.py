"""The alignment of Deep3DFaceRecon: a picture scaled and cropped, not turned, so that its five points lie where a
standard face's do."""

from __future__ import annotations

import numpy as np

from ..faces.align import five_points

SIDE = 224
_SPAN = 102.0
"""Pixels a decimetre, roughly: the scale at which a standard face fills the square."""
STANDARD = np.array(
    [
        [-0.31149, 0.29036, 0.13378],
        [0.30980, 0.28972, 0.13180],
        [0.00325, -0.04618, 0.55244],
        [-0.25217, -0.38134, 0.22406],
        [0.24847, -0.38128, 0.22236],
    ]
)
"""Five points of a standard face in decimetres: image-left eye, other eye, nose tip, mouth corners."""


def reconstruction_transform(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """From a picture to the aligned square of 224 px, ``(2, 3)``.

    The reference scales the whole picture to whole pixels and cuts at whole pixels; so does this.

    Args:
        points: 68 landmarks in pixels.

    Raises:
        ValueError: the points coincide.
    """
    five = five_points(points)
    scale, (x, y) = _weak_perspective(np.stack([five[:, 0], height - five[:, 1]], 1))
    factor = _SPAN / scale
    new_width, new_height = int(width * factor), int(height * factor)
    left = int(new_width / 2 - SIDE / 2 + (x - width / 2) * factor)
    top = int(new_height / 2 - SIDE / 2 + (height / 2 - y) * factor)
    return np.array([[new_width / width, 0.0, -left], [0.0, new_height / height, -top]])


def _weak_perspective(flat: np.ndarray) -> tuple[float, np.ndarray]:
    """Scale and shift ``(2,)`` that best take the standard face to five points ``(5, 2)``, y up: two free rows, as the
    reference solves it."""
    design = np.concatenate([STANDARD, np.ones((5, 1))], 1)
    rows, *_ = np.linalg.lstsq(design, flat, rcond=None)
    scale = float(np.linalg.norm(rows[:3], axis=0).mean())
    if scale < 1e-6:
        raise ValueError("the points coincide, so no face can be aligned")
    return scale, rows[3]
