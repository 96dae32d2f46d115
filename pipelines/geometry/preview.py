"""What people look at instead of numbers: a rendered face laid over its photo, as a surface or as its wires."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..faces.blend import paste
from .alignment import SIDE
from .coefficients import Coefficients
from .fitting import Estimate
from .morphable import MorphableModel
from .names import STYLES
from .renderer import Rendering, render

_MOST, _FINER = 1024, 2.0
_WIRE, _APART = (0.1, 0.9, 0.4), 18.0
_LAMP = (0.25, 0.45, 0.85)


def drawn(model: MorphableModel, coefficients: Coefficients, style: str, size: int = 512) -> tuple[Tensor, Tensor]:
    """N faces alone: pictures ``(N, 3, S, S)`` in [0, 1] and masks ``(N, 1, S, S)``.

    Raises:
        InputError: the style is unknown, or the coefficients belong to another model.
    """
    if style not in STYLES:
        raise InputError(f"style {style!r} is not one of {', '.join(STYLES)}")
    if coefficients.model != model.name:
        raise InputError(
            f"these coefficients belong to the model {coefficients.model}, not to {model.name}; load that one"
        )
    with torch.no_grad():
        seen = render(model, coefficients, size)
        return _styled(seen, style).clamp(0, 1) * seen.mask, seen.mask


def overlay(
    model: MorphableModel, picture: Tensor, estimate: Estimate, style: str, opacity: float = 0.9
) -> tuple[Tensor, Tensor]:
    """Faces drawn over their photo ``(1, 3, H, W)``: the picture and the mask ``(1, 1, H, W)`` of what is covered."""
    covered = torch.zeros_like(picture[:, :1])
    for i in range(len(estimate)):
        transform = estimate.transforms[i].double().numpy()
        # Render larger than the face is in the photo, within reason, so that its outline is smooth.
        size = int(np.clip(_FINER * SIDE / abs(transform[0, 0]), 256, _MOST))
        here = transform * (size / SIDE)
        with torch.no_grad():
            seen = render(model, estimate.coefficients[i], size)
        shown, mask = _styled(seen, style).clamp(0, 1), seen.mask
        amount = (wires(seen) if style == "wireframe" else mask) * opacity
        picture = paste(picture, shown, here, amount)
        covered = torch.maximum(covered, paste(torch.zeros_like(covered), mask, here, mask))
    return picture, covered


def depth_map(seen: Rendering) -> Tensor:
    """Nearness in [0, 1] ``(N, 1, S, S)``, 1 for the nearest point, as depth ControlNets expect it."""
    hit = seen.mask > 0
    far = torch.where(hit, seen.depth, -torch.inf).amax((1, 2, 3), keepdim=True)
    near = torch.where(hit, seen.depth, torch.inf).amin((1, 2, 3), keepdim=True)
    return torch.where(hit, (far - seen.depth) / (far - near).clamp(min=1e-6), 0.0)


def _styled(seen: Rendering, style: str) -> Tensor:
    if style == "normals":
        return seen.normals * 0.5 + 0.5
    if style == "depth":
        return depth_map(seen).expand(-1, 3, -1, -1)
    if style == "mask":
        return seen.mask.expand(-1, 3, -1, -1)
    if style == "uv":
        return torch.cat([seen.uv, torch.zeros_like(seen.mask)], 1)
    if style == "wireframe":
        return torch.tensor(_WIRE, device=seen.mask.device)[:, None, None] * wires(seen)
    if style == "grey":
        light = torch.nn.functional.normalize(torch.tensor(_LAMP, device=seen.mask.device), dim=0)
        return (0.22 + 0.68 * (seen.normals * light[:, None, None]).sum(1, keepdim=True).clamp(min=0)).expand(
            -1, 3, -1, -1
        )
    return seen.image


def wires(seen: Rendering) -> Tensor:
    """Lines of equal u and of equal v, about a pixel wide, ``(N, 1, S, S)``: they show the surface at any size, where
    edges would fill it."""
    scaled = seen.uv * min(max(seen.uv.shape[-1] / _APART, 10.0), 40.0)
    slope = torch.stack([s.abs() for s in torch.gradient(scaled, dim=(2, 3))]).amax(0)
    apart = (scaled - scaled.round()).abs() / slope.clamp(min=1e-6)
    # At the outline and where the surface hides itself u and v jump.
    smooth = slope < 0.5
    return ((apart < 0.75) & smooth).any(1, keepdim=True).float() * seen.mask
