"""Combine and smooth the coefficients of a clip of one person: a constant shape and motion without jitter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..core.errors import InputError
from ..core.progress import Progress, part_of, silent
from ..faces.face import Face
from .coefficients import FIELDS, Coefficients, same_model
from .fitting import Estimate

CONSTANT_FIELDS = ("identity", "texture")
"""Fields that are constant in a clip of one person."""


Estimator = Callable[[Tensor, np.ndarray, Progress], Estimate]
"""``Fitter`` or ``Regressor``: an image ``(1, 3, H, W)`` and landmarks ``(68, 2)`` to the estimate of one face."""


def estimate_faces(
    pixels: Tensor, faces: Sequence[Face], estimator: Estimator, progress: Progress = silent
) -> Estimate:
    """Estimate the coefficients of faces with landmarks in a batch ``(B, 3, H, W)``.

    Raises:
        InputError: there are no faces.
    """
    estimates = []
    for done, face in enumerate(faces):
        progress(done, len(faces), "fitting faces")
        image = pixels[face.image : face.image + 1]
        estimates.append(estimator(image, face.points, part_of(progress, done, len(faces))))
    return join(estimates)


def join(estimates: Sequence[Estimate]) -> Estimate:
    """Concatenate the estimates of frames or faces.

    Raises:
        InputError: the list is empty, or the estimates belong to different models.
    """
    if not estimates:
        raise InputError("there are no faces to estimate; connect images that contain faces")
    model = same_model([e.coefficients for e in estimates])
    fields = {name: torch.cat([getattr(e.coefficients, name) for e in estimates]) for name in FIELDS}
    return Estimate(
        Coefficients(model, **fields),
        torch.cat([e.transforms for e in estimates]),
        torch.cat([e.errors for e in estimates]),
    )


def smooth(estimate: Estimate, frames: float) -> Estimate:
    """Average identity and texture over all frames of one person, and smooth the other fields over time.

    Frames with a smaller landmark error have a larger weight. The transforms to the aligned squares are smoothed with
    the same weights, so that coefficients and transforms remain consistent.

    Args:
        estimate: one row per frame, in temporal order.
        frames: standard deviation of the Gaussian window, in frames; 0 only averages identity and texture.

    Raises:
        InputError: ``frames`` is negative.
    """
    if frames < 0:
        raise InputError(f"the smoothing must be 0 frames or more, got {frames:g}")
    weight = 1 / (estimate.errors.nan_to_num(0.02).clamp(min=1e-3) ** 2)
    c = estimate.coefficients
    constant = {
        name: ((getattr(c, name) * weight[:, None]).sum(0) / weight.sum()).expand(len(c), -1)
        for name in CONSTANT_FIELDS
    }
    window = _window(len(c), frames) * weight[None]
    window = window / window.sum(1, keepdim=True)
    smoothed = {name: window @ getattr(c, name) for name in ("expression", "lighting", "angles", "translation", "gaze")}
    transforms = (window @ estimate.transforms.flatten(1)).unflatten(1, (2, 3))
    return Estimate(replace(c, **constant, **smoothed), transforms, estimate.errors)


def _window(count: int, frames: float) -> Tensor:
    if frames == 0:
        return torch.eye(count)
    offset = torch.arange(count)[:, None] - torch.arange(count)
    return torch.exp(-0.5 * (offset / frames) ** 2)
