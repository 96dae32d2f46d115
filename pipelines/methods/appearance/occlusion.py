"""Detect faces that the built-in model cannot replace: occluded faces and faces of small children."""

from __future__ import annotations

import numpy as np
import torch

from ...imaging.resample import blur
from .network import AppearanceModel
from .render import Subject

CHILD_CHIN = 1.55
"""Minimum distance from eye line to chin in IOD. Adults: 1.64 at the first percentile. Toddlers: about 1.4."""
_FINE, _COARSE = 3.0, 6.0
"""Blurs of the residual in canonical pixels. The coarse one removes old people's wrinkles."""
_RESIDUAL_LUMA, _RESIDUAL_CHROMA = 0.35, 0.18
"""Blurred residuals above these limits are rare on bare skin."""
_MAX_LUMA_SHARE, _MAX_CHROMA_SHARE, _MAX_COARSE_CHROMA_SHARE = 0.0045, 0.04, 0.0105
"""Maximum shares of the face above the limits. Of 58 unoccluded portraits, 19 to 89 years old, 3 exceed one."""
_MAX_TINT = 0.28
"""Maximum difference in log(red / blue) between chin and cheeks. Measured: below 0.23 on 57 of 58 unoccluded portraits,
above 0.29 with a light-blue surgical mask on 95 % of them."""


def is_child(points: np.ndarray) -> bool:
    """Check whether landmarks ``(68, 2)`` in IOD have a small child's proportions; the training faces are adults."""
    return float(points[8, 1]) < CHILD_CHIN


def is_occluded(model: AppearanceModel, subject: Subject) -> bool:
    """Check whether something other than hair and glasses is in front of the face."""
    in_view = model.canonical.core * subject.facing_viewer
    region = in_view * model.masks.outside_eyes * model.masks.outside_lips
    total = region.sum().clamp(min=1.0)
    visible = region * subject.decomposition.visible

    def share(too_large: torch.Tensor) -> float:
        return float((too_large * visible).sum() / total)

    residual = subject.decomposition.detail - subject.fitted
    fine = blur(residual, _FINE)
    return (
        share(fine.mean(1, keepdim=True).abs() > _RESIDUAL_LUMA) > _MAX_LUMA_SHARE
        or share(_chroma(fine) > _RESIDUAL_CHROMA) > _MAX_CHROMA_SHARE
        or share(_chroma(blur(residual, _COARSE)) > _RESIDUAL_CHROMA) > _MAX_COARSE_CHROMA_SHARE
        or abs(_tint(model, subject)) > _MAX_TINT
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
