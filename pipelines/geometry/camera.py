"""The camera of Deep3DFaceRecon: on the z axis at z = 10 dm, facing the origin, with a field of view of 12.6 degrees.

World axes: x to the right, y up, z towards the viewer, in decimeters. Pixel axes: x to the right, y down; the center of
a pixel is at index + 0.5.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

FOCAL = 1015.0 / 224.0
"""Focal length in units of the image width."""
DISTANCE = 10.0
"""Distance from the camera to the origin, in decimeters."""


def rotation(angles: Tensor) -> Tensor:
    """Compute rotation matrices ``R = Rz Ry Rx`` ``(N, 3, 3)``, right-handed, for column vectors.

    Args:
        angles: ``(N, 3)``, radians about x (pitch), y (yaw) and z (roll).
    """
    x, y, z = angles.unbind(-1)
    one, zero = torch.ones_like(x), torch.zeros_like(x)

    def matrix(*values: Tensor) -> Tensor:
        return torch.stack(values, -1).unflatten(-1, (3, 3))

    about_x = matrix(one, zero, zero, zero, x.cos(), -x.sin(), zero, x.sin(), x.cos())
    about_y = matrix(y.cos(), zero, y.sin(), zero, one, zero, -y.sin(), zero, y.cos())
    about_z = matrix(z.cos(), -z.sin(), zero, z.sin(), z.cos(), zero, zero, zero, one)
    return about_z @ about_y @ about_x


def angles_of(matrix: Tensor) -> Tensor:
    """Compute the angles ``(N, 3)`` in radians of rotation matrices ``(N, 3, 3)``; the yaw is within +-90 degrees."""
    y = torch.asin((-matrix[..., 2, 0]).clamp(-1, 1))
    return torch.stack(
        [torch.atan2(matrix[..., 2, 1], matrix[..., 2, 2]), y, torch.atan2(matrix[..., 1, 0], matrix[..., 0, 0])], -1
    )


def place(points: Tensor, angles: Tensor, translation: Tensor) -> Tensor:
    """Rotate and translate points ``(N, V, 3)`` by angles and translations ``(N, 3)``: ``R v + t``."""
    return points @ rotation(angles).transpose(-1, -2) + translation[:, None]


def project(points: Tensor, size: float) -> tuple[Tensor, Tensor]:
    """Project points ``(N, V, 3)`` in world coordinates to a square image of ``size`` px.

    Returns:
        Pixels ``(N, V, 2)``, and distances from the camera plane ``(N, V)`` in decimeters.
    """
    distance = DISTANCE - points[..., 2]
    scale = FOCAL * size / distance
    return torch.stack([size / 2 + scale * points[..., 0], size / 2 - scale * points[..., 1]], -1), distance


def degrees(angles: Tensor) -> tuple[float, float, float]:
    """Convert the angles ``(3,)`` of one face from radians to pitch, yaw and roll in degrees.

    Positive pitch is up, positive yaw is towards image right, positive roll is clockwise in the image.
    """
    pitch, yaw, roll = (math.degrees(float(a)) for a in angles)
    return -pitch, yaw, -roll
