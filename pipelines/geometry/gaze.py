"""Where the eyes look, as DiffDeID's four numbers: how far each pupil lies from the middle of its eye, right and up.

For each eye, the image-left one first: w = (q - c) / h, turned so that the line between the eye's corners is level,
with the pupil q, the middle c of the six eyelid points and half the distance h between the corners. The paper says
"normalised direction
vector"; a centred pupil has no direction, so the length is kept.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..faces.align import crop
from ..faces.masks import polygon_mask

EYES = (slice(36, 42), slice(42, 48))
_VIEW = 48
_DARKEST = 0.25
"""Share of the eye's pixels, the darkest ones, whose middle is taken for the pupil when no network says where it is."""
_CLOSED = 0.10
"""Eyes that are open less than this share of their width show no pupil."""


def gaze_of(picture: Tensor, points: np.ndarray, pupils: np.ndarray | None = None) -> np.ndarray:
    """Gaze ``(4,)`` of one face, each number in [-1, 1].

    Args:
        picture: ``(1, 3, H, W)``.
        points: 68 landmarks in pixels.
        pupils: ``(2, 2)`` in pixels from a landmark network that sees them; searched as dark blobs when omitted.
    """
    found = []
    for i, eye in enumerate(EYES):
        lids = points[eye]
        centre, axis = lids.mean(0), lids[3] - lids[0]
        half = float(np.linalg.norm(axis)) / 2
        pupil = _pupil(picture, lids) if pupils is None else pupils[i]
        if half < 1e-6 or pupil is None:
            found += [0.0, 0.0]
            continue
        right = axis / (2 * half)
        offset = (pupil - centre) / half
        # y of pixels runs down, the second number runs up.
        found += [float(offset @ right), float(-(offset @ np.array([-right[1], right[0]])))]
    return np.clip(found, -1, 1)


def _pupil(picture: Tensor, lids: np.ndarray) -> np.ndarray | None:
    """Middle of the darkest part between the lids, in pixels; None for closed eyes."""
    width = float(np.linalg.norm(lids[3] - lids[0]))
    opening = (np.linalg.norm(lids[1] - lids[5]) + np.linalg.norm(lids[2] - lids[4])) / 2
    if width < 4 or opening < _CLOSED * width:
        return None
    scale = _VIEW / (1.2 * width)
    middle = lids.mean(0)
    transform = np.array([[scale, 0, _VIEW / 2 - scale * middle[0]], [0, scale, _VIEW / 2 - scale * middle[1]]])
    view = crop(picture, transform, _VIEW).mean(1)[0]
    inside = polygon_mask((lids - middle) * scale + _VIEW / 2, _VIEW, _VIEW)[0, 0] > 0.5
    if int(inside.sum()) < 12:
        return None
    limit = torch.quantile(view[inside], _DARKEST)
    y, x = (inside & (view <= limit)).nonzero(as_tuple=True)
    # Darker pixels count more: lashes are thin, the pupil is not.
    weight = (limit - view[y, x]) + 1e-3
    dark = torch.stack([(x * weight).sum(), (y * weight).sum()]) / weight.sum() + 0.5
    return np.asarray((dark.double().numpy() - _VIEW / 2) / scale + middle)
