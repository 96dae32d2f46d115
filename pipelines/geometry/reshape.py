"""Bend a photo to an edited 3D face: its pixels follow the surface from where it was to where it is now."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..faces.align import apply, invert
from ..faces.sampling import pixel_grid, sample
from ..faces.warp import thin_plate
from .camera import place, project
from .coefficients import Coefficients, same_model
from .fitting import SIDE, Estimate
from .morphable import MorphableModel
from .renderer import rasterise

_POINTS = 220
"""Visible vertices that carry the bend."""
_STILL = (1.7, 2.0)
"""Half axes of the ellipse around the face, in half sizes of the face, on which and beyond which nothing moves."""
_SMOOTH = 1e-3
_LATTICE = 64


def reshape(model: MorphableModel, picture: Tensor, estimate: Estimate, edited: Coefficients) -> tuple[Tensor, Tensor]:
    """Show edited faces in their photo ``(1, 3, H, W)``.

    What was hidden, such as the far cheek of a head that is turned back, cannot appear: turn by little.

    Args:
        estimate: the faces as they were found.
        edited: their new coefficients, row by row.

    Returns:
        The picture, and the mask ``(1, 1, H, W)`` of what moved.

    Raises:
        InputError: the rows do not fit, or belong to another model.
    """
    if same_model([estimate.coefficients, edited]) != model.name or len(edited) != len(estimate):
        raise InputError(
            f"{len(edited)} edited faces do not fit {len(estimate)} found ones of {model.name}; connect both from the"
            " same estimate"
        )
    mask = torch.zeros_like(picture[:, :1])
    for row in range(len(estimate)):
        transform = estimate.transforms[row].double().numpy()
        before, seen = _in_picture(model, estimate.coefficients[row], transform)
        after, still_seen = _in_picture(model, edited[row], transform)
        chosen = np.flatnonzero(seen & still_seen)
        if len(chosen) < 8 or np.abs(after - before)[chosen].max() < 1e-3:
            continue
        chosen = chosen[:: max(1, len(chosen) // _POINTS)]
        picture, moved = _bend(picture, before[chosen], after[chosen])
        mask = torch.maximum(mask, moved)
    return picture, mask


def _in_picture(
    model: MorphableModel, coefficients: Coefficients, transform: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Vertices in pixels of the picture ``(V, 2)``, and which of them are seen."""
    with torch.no_grad():
        placed = place(
            model.vertices(coefficients.identity, coefficients.expression),
            coefficients.angles,
            coefficients.translation,
        )
        flat, depth = project(placed, SIDE)
        faces = rasterise(flat, depth, model.triangles, SIDE, SIDE)[0]
        seen = torch.zeros(len(model.mean), dtype=torch.bool)
        seen[model.triangles[faces[faces >= 0].unique()].reshape(-1)] = True
    return apply(invert(transform), flat[0].double().numpy()), seen.numpy()


def _bend(picture: Tensor, before: np.ndarray, after: np.ndarray) -> tuple[Tensor, Tensor]:
    """Carry the points ``before`` of a picture to ``after``, and what lies between them along; far away nothing
    moves."""
    centre = (after.max(0) + after.min(0)) / 2
    half = float(np.ptp(after, axis=0).max()) / 2
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    ring = centre + half * np.stack([_STILL[0] * np.cos(angles), _STILL[1] * np.sin(angles)], 1)
    height, width = picture.shape[-2:]
    x0, y0 = np.clip(np.floor(ring.min(0)).astype(int), 0, [width, height])
    x1, y1 = np.clip(np.ceil(ring.max(0)).astype(int), 0, [width, height])
    columns, rows = (max(2, min(_LATTICE, int(n))) for n in (x1 - x0, y1 - y0))
    nodes = np.stack(
        np.meshgrid(np.linspace(x0 + 0.5, x1 - 0.5, columns), np.linspace(y0 + 0.5, y1 - 0.5, rows)), -1
    ).reshape(-1, 2)
    source = np.concatenate([after, ring])
    values = np.concatenate([before - after, np.zeros_like(ring)])
    operator = thin_plate(
        torch.from_numpy((source - centre) / half), torch.from_numpy((nodes - centre) / half), _SMOOTH
    )
    inside = np.hypot(*((nodes - centre) / half / np.array(_STILL)).T)
    field = operator @ torch.from_numpy(values) * torch.from_numpy(np.clip((1 - inside) / 0.12, 0, 1))[:, None]
    coarse = field.view(rows, columns, 2).movedim(-1, 0)[None].float()
    dense = torch.nn.functional.interpolate(
        coarse, size=(int(y1 - y0), int(x1 - x0)), mode="bicubic", align_corners=True
    )[0].movedim(0, -1)
    moved = (dense.abs().amax(-1) > 0.02)[None, None].float()
    grid = pixel_grid(*dense.shape[:2]) + torch.tensor([float(x0), float(y0)]) + dense
    result, mask = picture.clone(), torch.zeros_like(picture[:, :1])
    window = (..., slice(y0, y1), slice(x0, x1))
    result[window] = torch.where(moved > 0, sample(picture, grid, "bicubic").clamp(0, 1), picture[window])
    mask[window] = moved
    return result, mask
