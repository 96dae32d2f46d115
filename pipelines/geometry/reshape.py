"""Warp a photo to an edited 3D face: pixels move from the fitted surface to the edited surface."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..core.errors import InputError
from ..faces.align import apply, invert
from ..imaging.resample import pixel_grid, sample
from ..imaging.warp import thin_plate
from .camera import place, project
from .coefficients import Coefficients, same_model
from .fitting import SIDE, Estimate
from .morphable import MorphableModel
from .rasterizer import rasterize

_CONTROL_POINTS = 220
"""Approximate number of visible vertices that are control points of the warp."""
_FIXED_ELLIPSE = (1.7, 2.0)
"""Half axes of an ellipse around the face, in half sizes of the face. Pixels on it and outside it do not move."""
_STIFFNESS = 1e-4
"""Regularization of the thin-plate spline."""
_MAX_NODES = 64
"""Maximum number of nodes per axis at which the thin-plate spline is evaluated."""


def reshape(model: MorphableModel, image: Tensor, estimate: Estimate, edited: Coefficients) -> tuple[Tensor, Tensor]:
    """Warp a photo ``(1, 3, H, W)`` to edited coefficients of its faces.

    The warp cannot show parts of the face that are hidden in the photo, such as the far cheek of a head that is rotated
    to the front. Change the pose by small angles only.

    Args:
        estimate: the fitted faces.
        edited: the new coefficients, one row for each row of ``estimate``.

    Returns:
        The warped image, and the mask ``(1, 1, H, W)`` of the pixels that moved.

    Raises:
        InputError: the numbers of rows differ, or the coefficients belong to another model.
    """
    if same_model([estimate.coefficients, edited]) != model.name or len(edited) != len(estimate):
        raise InputError(
            f"{len(edited)} edited faces do not match {len(estimate)} estimated faces of {model.name}; connect both"
            " from the same estimate"
        )
    mask = torch.zeros_like(image[:, :1])
    for row in range(len(estimate)):
        transform = estimate.transforms[row].double().numpy()
        before, visible = _in_image(model, estimate.coefficients[row], transform)
        after, still_visible = _in_image(model, edited[row], transform)
        chosen = np.flatnonzero(visible & still_visible)
        if len(chosen) < 8 or np.abs(after - before)[chosen].max() < 1e-3:
            continue
        chosen = _control_points(model, chosen)
        image, moved = _warp(image, before[chosen], after[chosen])
        mask = torch.maximum(mask, moved)
    return image, mask


def _control_points(model: MorphableModel, visible: np.ndarray) -> np.ndarray:
    """Some of the visible vertices, evenly spread, and those at the landmarks, where eyes and lips are small."""
    spread = visible[:: max(1, len(visible) // _CONTROL_POINTS)]
    nearest = model.landmarks.gather(1, model.landmark_weights.argmax(1, keepdim=True))[:, 0].numpy()
    return np.union1d(spread, np.intersect1d(nearest, visible))


def _in_image(
    model: MorphableModel, coefficients: Coefficients, transform: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Project vertices to pixels of the image ``(V, 2)``, and compute which of them are visible ``(V,)``."""
    with torch.no_grad():
        placed = place(
            model.vertices(coefficients.identity, coefficients.expression),
            coefficients.angles,
            coefficients.translation,
        )
        flat, depth = project(placed, SIDE)
        faces = rasterize(flat, depth, model.triangles, SIDE, SIDE)[0]
        visible = torch.zeros(len(model.mean), dtype=torch.bool)
        visible[model.triangles[faces[faces >= 0].unique()].reshape(-1)] = True
    return apply(invert(transform), flat[0].double().numpy()), visible.numpy()


def _warp(image: Tensor, before: np.ndarray, after: np.ndarray) -> tuple[Tensor, Tensor]:
    """Warp an image so that the points ``before`` move to ``after``.

    A thin-plate spline carries the displacements to all pixels. They fade to zero at an ellipse around the face.

    Returns:
        The warped image, and the mask ``(1, 1, H, W)`` of the pixels that moved.
    """
    center = (after.max(0) + after.min(0)) / 2
    half = float(np.ptp(after, axis=0).max()) / 2
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    ring = center + half * np.stack([_FIXED_ELLIPSE[0] * np.cos(angles), _FIXED_ELLIPSE[1] * np.sin(angles)], 1)
    height, width = image.shape[-2:]
    x0, y0 = np.clip(np.floor(ring.min(0)).astype(int), 0, [width, height])
    x1, y1 = np.clip(np.ceil(ring.max(0)).astype(int), 0, [width, height])
    columns, rows = (max(2, min(_MAX_NODES, int(n))) for n in (x1 - x0, y1 - y0))
    nodes = np.stack(
        np.meshgrid(np.linspace(x0 + 0.5, x1 - 0.5, columns), np.linspace(y0 + 0.5, y1 - 0.5, rows)), -1
    ).reshape(-1, 2)
    source = np.concatenate([after, ring])
    values = np.concatenate([before - after, np.zeros_like(ring)])
    operator = thin_plate(
        torch.from_numpy((source - center) / half), torch.from_numpy((nodes - center) / half), _STIFFNESS
    )
    inside = np.hypot(*((nodes - center) / half / np.array(_FIXED_ELLIPSE)).T)
    field = operator @ torch.from_numpy(values) * torch.from_numpy(np.clip((1 - inside) / 0.12, 0, 1))[:, None]
    coarse = field.view(rows, columns, 2).movedim(-1, 0)[None].float()
    dense = torch.nn.functional.interpolate(
        coarse, size=(int(y1 - y0), int(x1 - x0)), mode="bicubic", align_corners=True
    )[0].movedim(0, -1)
    moved = (dense.abs().amax(-1) > 0.02)[None, None].float()
    grid = pixel_grid(*dense.shape[:2]) + torch.tensor([float(x0), float(y0)]) + dense
    result, mask = image.clone(), torch.zeros_like(image[:, :1])
    patch = (..., slice(y0, y1), slice(x0, x1))
    result[patch] = torch.where(moved > 0, sample(image, grid, "bicubic").clamp(0, 1), image[patch])
    mask[patch] = moved
    return result, mask
