"""Paste an aligned face into its image, and match its colors."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..imaging.resample import blur, pixel_grid, resize, sample
from .align import footprint, invert


def paste(canvas: Tensor, face: Tensor, transform: np.ndarray, mask: Tensor) -> Tensor:
    """Paste an aligned face into an image.

    Args:
        canvas: the image, ``(1, C, H, W)``; it is not modified.
        face: the aligned face, ``(1, C, S, S)``.
        transform: affine transform from image to crop coordinates, ``(2, 3)``.
        mask: ``(1, 1, S, S)`` in [0, 1]; pixels where it is 0 stay bit-identical.

    Returns:
        A new image ``(1, C, H, W)``.
    """
    size = face.shape[-1]
    back = invert(transform)
    height, width = canvas.shape[-2:]
    x0, y0, x1, y1 = footprint(transform, size, height, width)
    if x1 <= x0 or y1 <= y0:
        return canvas.clone()
    shrink = 1 / float(np.sqrt(abs(np.linalg.det(back[:, :2]))))
    both = torch.cat([face, mask.to(face.dtype)], 1)
    if shrink > 1.5:
        target = max(8, round(size / shrink))
        both, factor = resize(both, target, target), target / size
    else:
        both, factor = blur(both, 0.35 * shrink) if shrink > 1.0 else both, 1.0
    matrix = torch.from_numpy(transform).to(torch.float32)
    grid = pixel_grid(y1 - y0, x1 - x0) + torch.tensor([float(x0), float(y0)])
    warped = sample(both, ((grid @ matrix[:, :2].T + matrix[:, 2]) * factor).to(face.device), padding="zeros")
    pixels, alpha = warped[:, :-1], warped[:, -1:]
    # At the border of the crop the lookup fades to black. Divide by a constant image that fades in the same way.
    inside = sample(
        torch.ones_like(both[:, :1]),
        ((grid @ matrix[:, :2].T + matrix[:, 2]) * factor).to(face.device),
        padding="zeros",
    )
    pixels = pixels / inside.clamp(min=1e-3)
    result = canvas.clone()
    patch = result[..., y0:y1, x0:x1]
    result[..., y0:y1, x0:x1] = torch.where(alpha > 0, torch.lerp(patch, pixels.to(patch), alpha.to(patch)), patch)
    return result


def match_color(face: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """Match the mean and standard deviation of the colors of ``face`` inside ``mask`` to those of ``reference``
    (Reinhard 2001, in Lab).

    Args:
        face, reference: ``(1, 3, H, W)``, RGB in [0, 1].
        mask: ``(1, 1, H, W)``; a mask with a sum below 16 leaves the face unchanged.

    Returns:
        The recolored face ``(1, 3, H, W)``.
    """
    from kornia.color import lab_to_rgb, rgb_to_lab

    weight = mask / mask.sum().clamp(min=1e-6)
    if float(mask.sum()) < 16:
        return face
    source, target = rgb_to_lab(face.clamp(0, 1)), rgb_to_lab(reference.clamp(0, 1))

    def moments(lab: Tensor) -> tuple[Tensor, Tensor]:
        mean = (lab * weight).sum((2, 3), keepdim=True)
        return mean, (((lab - mean) ** 2 * weight).sum((2, 3), keepdim=True)).sqrt()

    (mean_s, std_s), (mean_t, std_t) = moments(source), moments(target)
    gain = (std_t / std_s.clamp(min=0.5)).clamp(0.7, 1.4)
    return lab_to_rgb((source - mean_s) * gain + mean_t, clip=True)
