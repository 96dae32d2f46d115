"""Detect faces that the built-in model cannot replace: occluded faces and faces of small children."""

from __future__ import annotations

import numpy as np
import torch

from ...imaging.resample import blur
from .network import AppearanceModel
from .render import Subject

CHILD_CHIN = 1.55
"""Minimum distance from eye line to chin in IOD. Adults: 1.64 at the first percentile. Toddlers: about 1.4."""
_BLUR_SIGMA = 3.0
"""Blur of the residual in canonical pixels."""
_RESIDUAL_LUMA, _RESIDUAL_CHROMA = 0.35, 0.18
"""Blurred residuals above these limits do not occur on bare skin."""
_MAX_LUMA_SHARE, _MAX_CHROMA_SHARE = 0.0125, 0.022
"""Maximum shares of the face above the limits of luma and chroma. Measured on 20 unoccluded portraits: up to 0.007 and
0.012. With a microphone in front of the mouth: 0.010 to 0.030 and 0.032 to 0.074."""
_MAX_TINT = 0.22
"""Maximum difference in log(red / blue) between chin and cheeks. Measured: below 0.10 on unoccluded portraits, at least
0.30 with a surgical mask."""


def is_child(points: np.ndarray) -> bool:
    """Check whether landmarks ``(68, 2)`` in IOD have a small child's proportions; the training faces are adults."""
    return float(points[8, 1]) < CHILD_CHIN


def is_occluded(model: AppearanceModel, subject: Subject) -> bool:
    """Check whether something other than hair and glasses is in front of the face."""
    in_view = model.canonical.core * subject.facing_viewer
    region = in_view * model.masks.outside_eyes * model.masks.outside_lips
    total = region.sum().clamp(min=1.0)
    residual = blur(subject.decomposition.detail - subject.fitted, _BLUR_SIGMA)
    luma = residual.mean(1, keepdim=True)
    chroma = (residual - luma).abs().amax(1, keepdim=True)
    visible = region * subject.decomposition.visible
    shares = [
        float(((value > limit) * visible).sum() / total)
        for value, limit in ((luma.abs(), _RESIDUAL_LUMA), (chroma, _RESIDUAL_CHROMA))
    ]
    return shares[0] > _MAX_LUMA_SHARE or shares[1] > _MAX_CHROMA_SHARE or abs(_tint(model, subject)) > _MAX_TINT


def _tint(model: AppearanceModel, subject: Subject) -> float:
    """Compute log(red / blue) of the shading on the chin minus that on the cheeks."""
    x, y = model.canonical.xy
    warmth = subject.decomposition.shading[:, :1] - subject.decomposition.shading[:, 2:]
    core = model.canonical.core * subject.facing_viewer

    def mean(low: float, high: float) -> torch.Tensor:
        zone = core * ((y > low) & (y < high) & (x.abs() < 0.7))
        return (warmth * zone).sum() / zone.sum().clamp(min=1.0)

    return float(mean(0.85, 1.5) - mean(0.05, 0.5))
