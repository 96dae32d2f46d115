"""Preprocessing of images: resizing for the VAE, and the image processor for CLIP."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...core.errors import InputError
from ...imaging.uint8 import from_pillow, to_pillow

MULTIPLE = 8
"""Image sides are rounded down to multiples of this number of pixels."""


def fit(images: Tensor, size: tuple[int, int] | torch.Size | None = None) -> Tensor:
    """Resize ``(B, 3, H, W)`` in [0, 1] with Pillow's Lanczos filter, as in the authors' code.

    Args:
        images: RGB images.
        size: height and width; the sides of ``images`` rounded down to multiples of 8 if None.

    Raises:
        InputError: ``images`` has another shape, or a side is shorter than 8 pixels.
    """
    from PIL import Image

    if images.dim() != 4 or images.shape[1] != 3 or images.shape[0] == 0:
        raise InputError(f"images must have shape (B, 3, H, W), got {tuple(images.shape)}")
    height, width = (n - n % MULTIPLE for n in images.shape[-2:]) if size is None else size
    if height < MULTIPLE or width < MULTIPLE:
        raise InputError(
            f"images of {images.shape[-1]} x {images.shape[-2]} pixels are too small; both sides must have at least 8"
            " pixels, and 512 are recommended"
        )
    if (height, width) == tuple(images.shape[-2:]):
        return images.contiguous()
    filtered = [to_pillow(image).resize((width, height), Image.Resampling.LANCZOS) for image in images.float()]
    return torch.cat([from_pillow(image) for image in filtered]).contiguous()


def default_clip_processor() -> Any:
    """Build the CLIP image processor that resizes with Pillow, with CLIP's standard settings."""
    import transformers

    # If torchvision is installed, the default processor of transformers 5 resizes differently than in the training of
    # the networks.
    kind = getattr(transformers, "CLIPImageProcessorPil", None) or transformers.CLIPImageProcessor
    return kind()
