"""Light on a face as nine spherical harmonics a colour channel (Ramamoorthi and Hanrahan 2001), in Deep3DFaceRecon's
layout."""

from __future__ import annotations

import math

import torch
from torch import Tensor

BANDS = 9
EVEN = 0.886227
"""What the first band does at every normal."""
AMBIENT = 0.8
"""What is added to the first band of each channel, so that coefficients of zero are a plain, even light."""


def basis(normals: Tensor) -> Tensor:
    """The nine harmonics ``(..., 9)`` at unit normals ``(..., 3)`` of the turned head, not of the camera's axes."""
    x, y, z = normals.unbind(-1)
    return torch.stack(
        [
            torch.full_like(x, EVEN),
            -1.772454 * y,
            1.772454 * z,
            -1.772454 * x,
            2.427032 * x * y,
            -2.427032 * y * z,
            2.427032 * 0.5 / math.sqrt(3) * (3 * z * z - 1),
            -2.427032 * x * z,
            2.427032 * 0.5 * (x * x - y * y),
        ],
        -1,
    )


def shading(normals: Tensor, lighting: Tensor) -> Tensor:
    """What albedo is multiplied by, ``(N, V, 3)``.

    Args:
        normals: unit, ``(N, V, 3)``.
        lighting: ``(N, 27)``, channel by channel.
    """
    gamma = lighting.unflatten(-1, (3, BANDS))
    return basis(normals) @ gamma.transpose(-1, -2) + AMBIENT * EVEN
