"""The border between ComfyUI's tensors and ours: all shape, alpha, batch and device traffic passes here."""

from __future__ import annotations

import comfy.model_management
import comfy.utils
import torch
from torch import Tensor

from ..pipelines.core.errors import InputError
from ..pipelines.core.progress import Progress


def image_to_pixels(image: Tensor) -> Tensor:
    """IMAGE ``(B, H, W, C)`` to ``(B, 3, H, W)`` on the CPU; alpha is dropped, gray is widened.

    Raises:
        InputError: the batch is empty or holds values that are not finite.
    """
    if image.dim() != 4 or image.numel() == 0:
        raise InputError(
            f"the image batch is empty or not a batch (shape {tuple(image.shape)}); connect a Load Image node"
        )
    pixels = image.detach().to("cpu", torch.float32).movedim(-1, 1)
    if not bool(torch.isfinite(pixels).all()):
        raise InputError("the image holds values that are not finite; check the node that made it")
    pixels = pixels[:, :3] if pixels.shape[1] >= 3 else pixels[:, :1].expand(-1, 3, -1, -1)
    return pixels.clamp(0, 1).contiguous()


def pixels_to_image(pixels: Tensor) -> Tensor:
    """``(B, 3, H, W)`` to IMAGE on ComfyUI's intermediate device."""
    return pixels.clamp(0, 1).movedim(1, -1).contiguous().to(comfy.model_management.intermediate_device())


def rgb_image(image: Tensor) -> Tensor:
    """IMAGE ``(B, H, W, C)`` to IMAGE ``(B, H, W, 3)``, as core's VAE and CLIP Vision take it.

    Raises:
        InputError: as ``image_to_pixels``.
    """
    return pixels_to_image(image_to_pixels(image))


def resized_image(image: Tensor, like: Tensor) -> Tensor:
    """IMAGE at the size and in the number of another: bicubic, one image serves all.

    Raises:
        InputError: there are several images, but not as many as in ``like``.
    """
    pixels, count = image_to_pixels(image), len(like)
    if len(pixels) not in (1, count):
        raise InputError(f"{len(pixels)} source images do not fit {count} faces; give one, or one for each")
    resized = torch.nn.functional.interpolate(pixels, size=like.shape[1:3], mode="bicubic", antialias=True)
    return pixels_to_image(resized.expand(count, -1, -1, -1))


def mask_to_socket(mask: Tensor) -> Tensor:
    """``(B, 1, H, W)`` to MASK ``(B, H, W)``."""
    return mask[:, 0].clamp(0, 1).contiguous().to(comfy.model_management.intermediate_device())


def mask_from_socket(mask: Tensor, batch: int, height: int, width: int) -> Tensor:
    """MASK ``(H, W)``, ``(1, H, W)`` or ``(B, H, W)`` to ``(B, 1, H, W)`` of the picture's size."""
    values = mask.detach().to("cpu", torch.float32).reshape(-1, 1, *mask.shape[-2:]).clamp(0, 1)
    if values.shape[-2:] != (height, width):
        values = torch.nn.functional.interpolate(values, size=(height, width), mode="bilinear", align_corners=False)
    if values.shape[0] not in (1, batch):
        raise InputError(f"{values.shape[0]} masks do not fit {batch} pictures; give one mask or one a picture")
    return values.expand(batch, -1, -1, -1)


def bar() -> Progress:
    """A progress bar on the running node; it raises when the user interrupts."""
    state: list[comfy.utils.ProgressBar] = []

    def update(done: int, total: int, what: str) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        if not state:
            state.append(comfy.utils.ProgressBar(max(total, 1)))
        state[0].update_absolute(done, max(total, 1))

    return update
