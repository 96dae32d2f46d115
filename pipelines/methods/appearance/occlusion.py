"""Tell when something lies over a face that the model cannot know: hands, microphones, masks, or a body too young for
it."""

from __future__ import annotations

import numpy as np
import torch

from ...imaging.resample import blur
from .network import AppearanceModel
from .render import Subject

CHILD_CHIN = 1.55
"""Eye line to chin in inter-ocular distances: adults 1.64 and more (first percentile), toddlers about 1.4."""
_COARSE = 3.0
_STRANGE_LUMA, _STRANGE_CHROMA = 0.35, 0.18
"""Unexplained detail, coarser than _COARSE pixels of the frame, that skin does not show."""
_MAX_LUMA, _MAX_CHROMA = 0.0125, 0.022
"""Shares of the face: twenty bare portraits reach .007 and .012, a microphone before the mouth .010 to .030 and .032 to
.074."""
_MAX_TINT = 0.22
"""Difference in log(red / blue) between cheeks and chin: bare portraits stay below .10, a surgical mask shows .30 and
more."""


def is_child(points: np.ndarray) -> bool:
    """Whether landmarks in IOD units ``(68, 2)`` have a small child's proportions; adults taught the model."""
    return float(points[8, 1]) < CHILD_CHIN


def is_occluded(model: AppearanceModel, subject: Subject) -> bool:
    """Whether something other than hair and glasses lies over the face."""
    seen = model.frame.core * subject.facing_viewer
    share = seen * model.guides.outside_eyes * model.guides.outside_lips
    total = share.sum().clamp(min=1.0)
    rest = blur(subject.layers.detail - subject.fitted, _COARSE)
    luma = rest.mean(1, keepdim=True)
    chroma = (rest - luma).abs().amax(1, keepdim=True)
    visible = share * subject.layers.visible
    strange = [
        float(((value > limit) * visible).sum() / total)
        for value, limit in ((luma.abs(), _STRANGE_LUMA), (chroma, _STRANGE_CHROMA))
    ]
    return strange[0] > _MAX_LUMA or strange[1] > _MAX_CHROMA or abs(_tint(model, subject)) > _MAX_TINT


def _tint(model: AppearanceModel, subject: Subject) -> float:
    """How much redder the light on the chin is than on the cheeks."""
    x, y = model.frame.xy
    warmth = subject.layers.light[:, :1] - subject.layers.light[:, 2:]
    core = model.frame.core * subject.facing_viewer

    def mean(low: float, high: float) -> torch.Tensor:
        zone = core * ((y > low) & (y < high) & (x.abs() < 0.7))
        return (warmth * zone).sum() / zone.sum().clamp(min=1.0)

    return float(mean(0.85, 1.5) - mean(0.05, 0.5))
