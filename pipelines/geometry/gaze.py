"""Gaze as the four numbers of DiffDeID: the offset of each pupil from the center of its eye, to the right and up.

For each eye, image-left first: w = (q - c) / h, rotated so that the line between the eye corners is horizontal. q is
the pupil, c the mean of the six eyelid points, and h half the distance between the corners. The paper says "normalized
direction vector". A centered pupil has no direction, so the length is kept here.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..faces.align import crop
from ..faces.masks import polygon_mask

EYES = (slice(36, 42), slice(42, 48))
_PATCH_SIZE = 48
"""Side of the square eye patch in which the pupil is searched, in pixels."""
_DARK_SHARE = 0.25
"""Share of the darkest pixels of an eye. Their center is used as the pupil if no network has located it."""
_MIN_OPENING = 0.10
"""Minimum ratio of eye opening to eye width. In an eye that is closed further, no pupil is searched."""


def gaze_of(image: Tensor, points: np.ndarray, pupils: np.ndarray | None = None) -> np.ndarray:
    """Compute the gaze ``(4,)`` of one face, each number in [-1, 1]; 0 for an eye without a visible pupil.

    Args:
        image: ``(1, 3, H, W)``.
        points: 68 landmarks in pixels, ``(68, 2)``.
        pupils: ``(2, 2)`` in pixels, from a landmark network that predicts them. If omitted, each pupil is searched as
            a dark blob.
    """
    found = []
    for i, eye in enumerate(EYES):
        lids = points[eye]
        center, axis = lids.mean(0), lids[3] - lids[0]
        half = float(np.linalg.norm(axis)) / 2
        pupil = _pupil(image, lids) if pupils is None else pupils[i]
        if half < 1e-6 or pupil is None:
            found += [0.0, 0.0]
            continue
        right = axis / (2 * half)
        offset = (pupil - center) / half
        # Pixel y points down; the second number of the gaze points up.
        found += [float(offset @ right), float(-(offset @ np.array([-right[1], right[0]])))]
    return np.clip(found, -1, 1)


def _pupil(image: Tensor, lids: np.ndarray) -> np.ndarray | None:
    """Compute the center of the darkest region between the eyelids, in pixels; None for closed or very small eyes."""
    width = float(np.linalg.norm(lids[3] - lids[0]))
    opening = (np.linalg.norm(lids[1] - lids[5]) + np.linalg.norm(lids[2] - lids[4])) / 2
    if width < 4 or opening < _MIN_OPENING * width:
        return None
    scale = _PATCH_SIZE / (1.2 * width)
    middle = lids.mean(0)
    transform = np.array(
        [[scale, 0, _PATCH_SIZE / 2 - scale * middle[0]], [0, scale, _PATCH_SIZE / 2 - scale * middle[1]]]
    )
    patch = crop(image, transform, _PATCH_SIZE).mean(1)[0]
    inside = polygon_mask((lids - middle) * scale + _PATCH_SIZE / 2, _PATCH_SIZE, _PATCH_SIZE)[0, 0] > 0.5
    if int(inside.sum()) < 12:
        return None
    limit = torch.quantile(patch[inside], _DARK_SHARE)
    y, x = (inside & (patch <= limit)).nonzero(as_tuple=True)
    # Weight pixels by darkness, so that the pupil outweighs the thin eyelashes.
    weight = (limit - patch[y, x]) + 1e-3
    dark = torch.stack([(x * weight).sum(), (y * weight).sum()]) / weight.sum() + 0.5
    return np.asarray((dark.double().numpy() - _PATCH_SIZE / 2) / scale + middle)
