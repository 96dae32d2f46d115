"""Coefficients of a whole clip: one person, one shape, motion without jitter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..errors import InputError
from .coefficients import FIELDS, Coefficients, same_model
from .fitting import Estimate

STEADY = ("identity", "texture")
"""What does not change while one person is filmed."""


def join(estimates: Sequence[Estimate]) -> Estimate:
    """Estimates of frames or faces as one.

    Raises:
        InputError: there are none, or of different models.
    """
    if not estimates:
        raise InputError("there are no faces to estimate; connect pictures that show some")
    model = same_model([e.coefficients for e in estimates])
    fields = {name: torch.cat([getattr(e.coefficients, name) for e in estimates]) for name in FIELDS}
    return Estimate(
        Coefficients(model, **fields),
        torch.cat([e.transforms for e in estimates]),
        torch.cat([e.errors for e in estimates]),
    )


def smooth(estimate: Estimate, frames: float) -> Estimate:
    """The frames of one person in order: identity and texture averaged, the rest smoothed over time.

    Frames that explain their landmarks better count more. Squares are smoothed as the coefficients are, so that both
    stay together.

    Args:
        frames: standard deviation of the window, in frames; 0 averages identity and texture only.

    Raises:
        InputError: a negative width.
    """
    if frames < 0:
        raise InputError(f"the smoothing must be 0 frames or more, got {frames:g}")
    trust = 1 / (estimate.errors.nan_to_num(0.02).clamp(min=1e-3) ** 2)
    c = estimate.coefficients
    still = {name: ((getattr(c, name) * trust[:, None]).sum(0) / trust.sum()).expand(len(c), -1) for name in STEADY}
    window = _window(len(c), frames) * trust[None]
    window = window / window.sum(1, keepdim=True)
    moving = {name: window @ getattr(c, name) for name in ("expression", "lighting", "angles", "translation", "gaze")}
    squares = (window @ estimate.transforms.flatten(1)).unflatten(1, (2, 3))
    return Estimate(replace(c, **still, **moving), squares, estimate.errors)


def _window(count: int, frames: float) -> Tensor:
    if frames == 0:
        return torch.eye(count)
    apart = torch.arange(count)[:, None] - torch.arange(count)
    return torch.exp(-0.5 * (apart / frames) ** 2)
