"""The camera of Deep3DFaceRecon: at z = 10 dm on the z axis, looking at the origin, with a field of view of 12.6
degrees.

Axes: x to the right, y up, z towards the viewer, in decimetres. Pixels: x to the right, y down, a pixel's centre at
index + 0.5.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

FOCAL = 1015.0 / 224.0
"""Focal length in widths of the picture."""
DISTANCE = 10.0
"""From the camera to the origin, in decimetres."""


def rotation(angles: Tensor) -> Tensor:
    """``R = Rz Ry Rx`` of ``(N, 3)`` radians about x (nod), y (turn) and z (lean): ``(N, 3, 3)``, right-handed, for
    column vectors."""
    x, y, z = angles.unbind(-1)
    one, zero = torch.ones_like(x), torch.zeros_like(x)

    def matrix(*values: Tensor) -> Tensor:
        return torch.stack(values, -1).unflatten(-1, (3, 3))

    about_x = matrix(one, zero, zero, zero, x.cos(), -x.sin(), zero, x.sin(), x.cos())
    about_y = matrix(y.cos(), zero, y.sin(), zero, one, zero, -y.sin(), zero, y.cos())
    about_z = matrix(z.cos(), -z.sin(), zero, z.sin(), z.cos(), zero, zero, zero, one)
    return about_z @ about_y @ about_x


def angles_of(matrix: Tensor) -> Tensor:
    """The angles ``(N, 3)`` of rotations ``(N, 3, 3)``; the turn lies within 90 degrees."""
    y = torch.asin((-matrix[..., 2, 0]).clamp(-1, 1))
    return torch.stack(
        [torch.atan2(matrix[..., 2, 1], matrix[..., 2, 2]), y, torch.atan2(matrix[..., 1, 0], matrix[..., 0, 0])], -1
    )


def place(points: Tensor, angles: Tensor, translation: Tensor) -> Tensor:
    """``R v + t`` of points ``(N, V, 3)`` for angles and translations ``(N, 3)``."""
    return points @ rotation(angles).transpose(-1, -2) + translation[:, None]


def project(points: Tensor, size: float) -> tuple[Tensor, Tensor]:
    """Pixels ``(N, V, 2)`` in a picture of ``size`` px and distances from the camera plane ``(N, V)`` of placed points
    ``(N, V, 3)``."""
    distance = DISTANCE - points[..., 2]
    scale = FOCAL * size / distance
    return torch.stack([size / 2 + scale * points[..., 0], size / 2 - scale * points[..., 1]], -1), distance


def degrees(angles: Tensor) -> tuple[float, float, float]:
    """Nod (up is positive), turn (towards image right) and lean (clockwise as seen) of one face's angles ``(3,)``, for
    people to read."""
    nod, turn, lean = (math.degrees(float(a)) for a in angles)
    return -nod, turn, -lean
