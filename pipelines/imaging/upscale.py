"""Enlarge images with an upscaler or a face restorer of the user, which spandrel recognizes by its weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.devices import best_device
from ..core.errors import WeightsError
from .resample import resize

RESTORER_SIDE = 512
"""Input of face restorers, which accept no other size."""


def open_upscaler(path: Path) -> Callable[[Tensor], Tensor]:
    """A function that enlarges squares ``(1, 3, S, S)`` in [0, 1].

    Face restorers such as GFPGAN get 512 px; upscalers get the image as it is.

    Raises:
        WeightsError: spandrel is not installed, or does not know the file.
    """
    try:
        from spandrel import ImageModelDescriptor, ModelLoader
    except ImportError:
        raise WeightsError("upscalers need spandrel; install it with: pip install spandrel") from None
    if not path.is_file():
        raise WeightsError(f"upscaler {path.name} does not exist; check its name and folder")
    try:
        model: Any = ModelLoader().load_from_file(path)
    except Exception as error:  # spandrel's errors and those of damaged files have no common class
        raise WeightsError(f"{path.name} is no upscaler that spandrel knows ({type(error).__name__})") from None
    if not isinstance(model, ImageModelDescriptor):
        raise WeightsError(f"{path.name} needs more than an image; choose an upscaler or a face restorer")
    device = best_device()
    model.to(device).eval()
    fixed = model.purpose == "FaceSR"

    @torch.no_grad()
    def enlarge(square: Tensor) -> Tensor:
        given = resize(square, RESTORER_SIDE, RESTORER_SIDE) if fixed else square
        enlarged: Tensor = model(given.to(device))
        return enlarged.float().cpu().clamp(0, 1)

    return enlarge
