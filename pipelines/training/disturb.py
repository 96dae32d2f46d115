"""Disturb aligned faces as other landmark models, cameras and codecs would, a batch at a time."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

SHIFT, SCALE, ROLL = 0.016, 0.06, 4.0
"""Largest disturbance of the alignment: shift in sides of the crop, scale as a share, roll in degrees."""
MIXED = 0.3
"""Share of the faces that are mixtures of two."""
GRAY, BLURRED, NOISY = 0.12, 0.15, 0.4
"""Shares of the faces without color, of low resolution, and with noise."""
NOISE = 0.03
"""Largest standard deviation of the noise."""


def disturbed(faces: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Change alignment, exposure, contrast, color, sharpness and noise, mirror some faces and mix some.

    Args:
        faces: ``(N, 3, S, S)``, RGB in [0, 1], with a margin around the ``size`` pixels in the middle.
        generator: on the device of the faces.

    Returns:
        ``(N, 3, size, size)``.
    """
    count, device = len(faces), faces.device

    def random(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator, device=device)

    crops = _realigned(faces, size, random)
    share = torch.where(random() < MIXED, 0.3 + 0.4 * random(), 1.0)[:, None, None, None]
    crops = torch.lerp(crops[torch.randperm(count, generator=generator, device=device)], crops, share)
    crops = crops.clamp(1e-4, 1) ** torch.exp(0.5 * (random(1, 1, 1) - 0.5))
    crops = crops * (1 + 0.3 * (random(3, 1, 1) - 0.5)) * (1 + 0.15 * _signed(random(1, 1, 1)))
    crops = crops + 0.08 * _signed(random(1, 1, 1))
    crops = torch.where(random(1, 1, 1) < GRAY, crops.mean(1, keepdim=True), crops).clamp(0, 1)
    factors = (0.25 + 0.5 * random()).tolist()
    for i in torch.nonzero(random() < BLURRED).flatten().tolist():
        crops[i : i + 1] = _blurred(crops[i : i + 1], factors[i])
    strength = NOISE * random(1, 1, 1) * (random(1, 1, 1) < NOISY)
    return (crops + strength * torch.randn(crops.shape, generator=generator, device=device)).clamp(0, 1)


def _realigned(faces: Tensor, size: int, random: Callable[..., Tensor]) -> Tensor:
    count, scale = len(faces), size / faces.shape[-1]
    angle = math.radians(ROLL) * _signed(random())
    zoom = scale * (1 + SCALE * _signed(random()))
    mirror = torch.where(random() < 0.5, -1.0, 1.0)
    shift = 2 * scale * SHIFT * _signed(random(2))
    rows = (
        torch.stack([zoom * angle.cos() * mirror, -zoom * angle.sin(), shift[:, 0]], 1),
        torch.stack([zoom * angle.sin() * mirror, zoom * angle.cos(), shift[:, 1]], 1),
    )
    grid = functional.affine_grid(torch.stack(rows, 1), [count, 3, size, size], align_corners=False)
    return functional.grid_sample(faces, grid, padding_mode="border", align_corners=False)


def _blurred(face: Tensor, factor: float) -> Tensor:
    small = functional.interpolate(face, scale_factor=factor, mode="bilinear", antialias=True)
    return functional.interpolate(small, size=face.shape[-2:], mode="bilinear")


def _signed(values: Tensor) -> Tensor:
    """From [0, 1] to [-1, 1]."""
    return 2 * values - 1
