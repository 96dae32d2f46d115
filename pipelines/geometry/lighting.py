"""Lighting of a face as nine spherical harmonics per color channel (Ramamoorthi and Hanrahan 2001), in the layout of
Deep3DFaceRecon."""

from __future__ import annotations

import math

import torch
from torch import Tensor

BANDS = 9
"""Number of harmonics per color channel."""
CONSTANT_HARMONIC = 0.886227
"""Value of the first harmonic, which is the same at every normal."""
AMBIENT = 0.8
"""Added to the first coefficient of each channel, so that zero coefficients give uniform white light."""


def basis(normals: Tensor) -> Tensor:
    """Evaluate the nine harmonics ``(..., 9)`` at unit normals ``(..., 3)``.

    The normals are those of the rotated head, in world axes: x to the right, y up, z towards the viewer.
    """
    x, y, z = normals.unbind(-1)
    return torch.stack(
        [
            torch.full_like(x, CONSTANT_HARMONIC),
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


def soft_light() -> Tensor:
    """Coefficients ``(1, 27)`` of a white light from the upper front, to look at a face without a photo."""
    gamma = torch.zeros(3, BANDS)
    # Bands 1 to 3 are -y, z and -x; see ``basis``.
    gamma[:, :4] = torch.tensor([0.1, -0.12, 0.25, -0.06])
    return gamma.reshape(1, -1)


def shading(normals: Tensor, lighting: Tensor) -> Tensor:
    """Compute the shading ``(N, V, 3)``, the factor that albedo is multiplied by.

    Args:
        normals: unit vectors ``(N, V, 3)``.
        lighting: coefficients ``(N, 27)``, channel by channel.
    """
    gamma = lighting.unflatten(-1, (3, BANDS))
    return basis(normals) @ gamma.transpose(-1, -2) + AMBIENT * CONSTANT_HARMONIC
