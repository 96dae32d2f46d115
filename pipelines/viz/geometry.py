"""Visualize coefficients: render faces alone or over their photo, as a shaded surface, maps or a wireframe."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..core.errors import InputError
from ..faces.paste import paste
from ..geometry.alignment import SIDE
from ..geometry.coefficients import Coefficients
from ..geometry.fitting import Estimate
from ..geometry.morphable import MorphableModel
from ..geometry.names import STYLES
from ..geometry.renderer import Rendering, render

_MAX_SIZE, _OVERSAMPLING = 1024, 2.0
"""Maximum size of a rendering in pixels, and its resolution relative to the photo."""
_WIRE_COLOR, _WIRE_SPACING = (0.1, 0.9, 0.4), 18.0
"""RGB color of the wireframe. The number of lines per UV axis is the image size divided by the spacing, clamped to 10
to 40."""
_LIGHT_DIRECTION = (0.25, 0.45, 0.85)
"""Direction of the light of the gray style, in world axes."""


def render_styled(
    model: MorphableModel, coefficients: Coefficients, style: str, size: int = 512
) -> tuple[Tensor, Tensor]:
    """Render N faces alone: images ``(N, 3, S, S)`` in [0, 1] and masks ``(N, 1, S, S)``.

    Raises:
        InputError: the style is unknown, or the coefficients belong to another model.
    """
    if style not in STYLES:
        raise InputError(f"style {style!r} is not one of {', '.join(STYLES)}")
    if coefficients.model != model.name:
        raise InputError(
            f"these coefficients belong to the model {coefficients.model}, not to {model.name}; load that model"
        )
    with torch.no_grad():
        rendering = render(model, coefficients, size)
        return _styled(rendering, style).clamp(0, 1) * rendering.mask, rendering.mask


def overlay(
    model: MorphableModel, image: Tensor, estimate: Estimate, style: str, opacity: float = 0.9
) -> tuple[Tensor, Tensor]:
    """Render faces over their photo ``(1, 3, H, W)``.

    Returns:
        The image, and the mask ``(1, 1, H, W)`` of all faces.
    """
    total = torch.zeros_like(image[:, :1])
    for i in range(len(estimate)):
        transform = estimate.transforms[i].double().numpy()
        # Render at a higher resolution than the photo, up to a limit, so that the outline is smooth.
        size = int(np.clip(_OVERSAMPLING * SIDE / abs(transform[0, 0]), 256, _MAX_SIZE))
        to_rendering = transform * (size / SIDE)
        with torch.no_grad():
            rendering = render(model, estimate.coefficients[i], size)
        rendered, mask = _styled(rendering, style).clamp(0, 1), rendering.mask
        alpha = (wireframe(rendering) if style == "wireframe" else mask) * opacity
        image = paste(image, rendered, to_rendering, alpha)
        total = torch.maximum(total, paste(torch.zeros_like(total), mask, to_rendering, mask))
    return image, total


def depth_map(rendering: Rendering) -> Tensor:
    """Compute inverted depth in [0, 1] ``(N, 1, S, S)`` for depth ControlNets.

    The value is 1 at the nearest point, and 0 at the farthest point and in the background.
    """
    hit = rendering.mask > 0
    far = torch.where(hit, rendering.depth, -torch.inf).amax((1, 2, 3), keepdim=True)
    near = torch.where(hit, rendering.depth, torch.inf).amin((1, 2, 3), keepdim=True)
    return torch.where(hit, (far - rendering.depth) / (far - near).clamp(min=1e-6), 0.0)


def _styled(rendering: Rendering, style: str) -> Tensor:
    if style == "normals":
        return rendering.normals * 0.5 + 0.5
    if style == "depth":
        return depth_map(rendering).expand(-1, 3, -1, -1)
    if style == "mask":
        return rendering.mask.expand(-1, 3, -1, -1)
    if style == "uv":
        return torch.cat([rendering.uv, torch.zeros_like(rendering.mask)], 1)
    if style == "wireframe":
        return torch.tensor(_WIRE_COLOR, device=rendering.mask.device)[:, None, None] * wireframe(rendering)
    if style == "gray":
        light = torch.nn.functional.normalize(torch.tensor(_LIGHT_DIRECTION, device=rendering.mask.device), dim=0)
        return (0.22 + 0.68 * (rendering.normals * light[:, None, None]).sum(1, keepdim=True).clamp(min=0)).expand(
            -1, 3, -1, -1
        )
    return rendering.image


def wireframe(rendering: Rendering) -> Tensor:
    """Draw lines of constant u and of constant v, about one pixel wide, ``(N, 1, S, S)``.

    They show the surface at any image size. Mesh edges would fill a small image completely.
    """
    scaled = rendering.uv * min(max(rendering.uv.shape[-1] / _WIRE_SPACING, 10.0), 40.0)
    slope = torch.stack([s.abs() for s in torch.gradient(scaled, dim=(2, 3))]).amax(0)
    distance = (scaled - scaled.round()).abs() / slope.clamp(min=1e-6)
    # u and v are discontinuous at the outline and at self-occlusions.
    smooth = slope < 0.5
    return ((distance < 0.75) & smooth).any(1, keepdim=True).float() * rendering.mask
