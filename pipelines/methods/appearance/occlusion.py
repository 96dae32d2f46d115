"""Detect faces that the built-in model cannot replace: occluded faces and faces of small children."""

from __future__ import annotations

import numpy as np
import torch

from ...geometry.shape_model import ShapeFit, ShapeModel
from ...imaging.resample import blur
from .canonical import PX, Pose2D, erode
from .network import AppearanceModel
from .render import Subject

CHILD_CHIN = 1.51
"""Minimum distance from eye line to chin in IOD, of the face turned to the front. The smallest of 158 adults: 1.515. A
third of 27 babies and toddlers are below."""
CHIN = 8
"""Landmark at the tip of the chin."""
_FINE, _COARSE = 3.0, 6.0
"""Blurs of the residual in canonical pixels. The coarse one removes old people's wrinkles."""
_RESIDUAL_LUMA, _RESIDUAL_CHROMA = 0.35, 0.18
"""Blurred residuals above these limits are rare on bare skin."""
_EDGE, _COARSE_EDGE = 4 / PX, 8 / PX
"""Width of the face's outline, in IOD, that is left out: hair, scarves and hats overlap it."""
_MAX_LUMA_SHARE, _MAX_CHROMA_SHARE, _MAX_COARSE_CHROMA_SHARE = 0.0036, 0.04, 0.006
"""Maximum shares of the face above the limits. Of 58 unoccluded portraits, 19 to 89 years old, 2 exceed one. With drawn
objects in front of them 27 exceed one for a microphone, 55 for a red mask, 28 for a black and 33 for a white mask, and
3 for fingers."""
_MIN_TINT, _MAX_TINT = -0.28, 0.45
"""Limits of the difference in log(red / blue) between chin and cheeks: 55 of 58 portraits with a light-blue surgical
mask are below, and dark skin reaches 0.35."""


def is_child(shapes: ShapeModel, fit: ShapeFit) -> bool:
    """Check whether a face has a small child's proportions, seen from the front: the model is for adults."""
    front = shapes.shape(fit.coefficients)[:, :2] * np.array([1.0, -1.0])
    return float(Pose2D.of(front).to_canonical(front)[CHIN, 1]) < CHILD_CHIN


def is_occluded(model: AppearanceModel, subject: Subject) -> bool:
    """Check whether something other than hair and glasses is in front of the face."""
    in_view = subject.facing_viewer * model.masks.outside_eyes * model.masks.outside_lips

    def share(too_large: torch.Tensor, edge: float) -> float:
        region = erode(model.canonical.core, edge) * in_view
        return float((too_large * region * subject.decomposition.visible).sum() / region.sum().clamp(min=1.0))

    residual = subject.decomposition.detail - subject.fitted
    fine = blur(residual, _FINE)
    return (
        share(fine.mean(1, keepdim=True).abs() > _RESIDUAL_LUMA, _EDGE) > _MAX_LUMA_SHARE
        or share(_chroma(fine) > _RESIDUAL_CHROMA, _EDGE) > _MAX_CHROMA_SHARE
        or share(_chroma(blur(residual, _COARSE)) > _RESIDUAL_CHROMA, _COARSE_EDGE) > _MAX_COARSE_CHROMA_SHARE
        or not _MIN_TINT < _tint(model, subject) < _MAX_TINT
    )


def _chroma(detail: torch.Tensor) -> torch.Tensor:
    return (detail - detail.mean(1, keepdim=True)).abs().amax(1, keepdim=True)


def _tint(model: AppearanceModel, subject: Subject) -> float:
    """Compute log(red / blue) of the shading on the chin minus that on the cheeks."""
    x, y = model.canonical.xy
    warmth = subject.decomposition.shading[:, :1] - subject.decomposition.shading[:, 2:]
    core = model.canonical.core * subject.facing_viewer

    def mean(low: float, high: float) -> torch.Tensor:
        zone = core * ((y > low) & (y < high) & (x.abs() < 0.7))
        return (warmth * zone).sum() / zone.sum().clamp(min=1.0)

    return float(mean(0.85, 1.5) - mean(0.05, 0.5))
