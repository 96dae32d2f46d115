"""Enlarge or restore squares with an upscaler or face restorer of the user; spandrel recognizes it by its weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.devices import best_device
from ..core.errors import WeightsError
from .resample import resize

RESTORER_SIDE = 512
"""Input of face restorers, which accept no other size."""
_SIGNED = ("GFPGAN", "CodeFormer")
"""Networks that work on [-1, 1] but to which spandrel passes the values that it gets."""
Restorer = Callable[[Tensor], Tensor]
"""From a square ``(1, 3, S, S)`` in [0, 1] to a square, which may be larger."""


def open_upscaler(path: Path) -> Restorer:
    """A function that enlarges or restores squares.

    Face restorers such as GFPGAN, RestoreFormer and, with the package spandrel_extra_arches, CodeFormer get 512 px;
    upscalers get the image as it is.

    Raises:
        WeightsError: spandrel is not installed, or does not know the file.
    """
    if not path.is_file():
        raise WeightsError(f"{path.name} does not exist; check the name and folder of the upscaler or restorer")
    try:
        from spandrel import ImageModelDescriptor, ModelLoader
    except ImportError:
        raise WeightsError(f"{path.name} needs spandrel; install it with: pip install spandrel") from None
    _install_extra()
    try:
        # ComfyUI runs nodes in inference mode; a network made there could not be used outside of it.
        with torch.inference_mode(False):
            model: Any = ModelLoader().load_from_file(path)
    except Exception as error:  # spandrel's errors and those of damaged files have no common class
        raise WeightsError(
            f"{path.name} is no upscaler or restorer that spandrel knows ({type(error).__name__})"
        ) from None
    if not isinstance(model, ImageModelDescriptor):
        raise WeightsError(f"{path.name} needs more than an image; choose an upscaler or a face restorer")
    return restorer_of(model)


def restorer_of(model: Any) -> Restorer:
    """The function of a network that spandrel opened."""
    device = best_device()
    model.to(device).eval()
    run = partial(_signed, model) if model.architecture.id in _SIGNED else model
    fixed = model.purpose == "FaceSR"

    @torch.no_grad()
    def enlarge(square: Tensor) -> Tensor:
        given = resize(square, RESTORER_SIDE, RESTORER_SIDE) if fixed else square
        enlarged: Tensor = run(given.to(device))
        return enlarged.float().cpu().clamp(0, 1)

    return enlarge


def _signed(model: Any, square: Tensor) -> Tensor:
    # GFPGAN adds random noise unless it is told not to; results must repeat.
    options = {"return_rgb": False, "randomize_noise": False} if model.architecture.id == "GFPGAN" else {}
    result: Tensor = model.model(square * 2 - 1, **options)[0]
    return (result + 1) / 2


def _install_extra() -> None:
    """Let spandrel know the networks of spandrel_extra_arches, if it is installed."""
    try:
        import spandrel_extra_arches
    except ImportError:
        return
    from spandrel import MAIN_REGISTRY

    if not any(entry.architecture.id == "CodeFormer" for entry in MAIN_REGISTRY):
        spandrel_extra_arches.install(ignore_duplicates=True)
