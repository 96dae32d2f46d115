"""Conversion between the tensors of ComfyUI and of ``pipelines``: shape, alpha channel, batch size and device."""

from __future__ import annotations

import math

import comfy.model_management
import comfy.utils
import torch
from torch import Tensor

from ..pipelines.core.errors import InputError
from ..pipelines.faces.face import Box
from ..pipelines.imaging.uint8 import to_pillow

PREVIEW_FORMAT, PREVIEW_SIDE = "JPEG", 256
"""Of the preview of a finished face; the side is in pixels."""
BOX_KEYS = ("x", "y", "width", "height")
RGBA = 4
"""Channels of an IMAGE with alpha."""


def image_to_pixels(image: Tensor) -> Tensor:
    """Convert an IMAGE ``(B, H, W, C)`` to ``(B, 3, H, W)`` on the CPU; drop alpha, expand gray to RGB.

    Raises:
        InputError: the batch is empty or contains values that are not finite.
    """
    if image.dim() != 4 or image.numel() == 0:
        raise InputError(
            f"the image batch is empty or not a batch (shape {tuple(image.shape)}); connect a Load Image node"
        )
    pixels = image.detach().to("cpu", torch.float32).movedim(-1, 1)
    if not bool(torch.isfinite(pixels).all()):
        raise InputError("the image contains values that are not finite; check the node that created it")
    pixels = pixels[:, :3] if pixels.shape[1] >= 3 else pixels[:, :1].expand(-1, 3, -1, -1)
    return pixels.clamp(0, 1).contiguous()


def image_alpha(image: Tensor) -> Tensor | None:
    """Alpha ``(B, 1, H, W)`` on the CPU of an IMAGE with four channels; None for others."""
    if image.dim() != 4 or image.shape[-1] != RGBA:
        return None
    return image[..., 3:].detach().to("cpu", torch.float32).movedim(-1, 1).clamp(0, 1).contiguous()


def pixels_to_image(pixels: Tensor, alpha: Tensor | None = None) -> Tensor:
    """Convert ``(B, 3, H, W)``, with or without alpha ``(B, 1, H, W)``, to an IMAGE on the intermediate device."""
    channels = pixels if alpha is None else torch.cat([pixels, alpha.to(pixels)], 1)
    return channels.clamp(0, 1).movedim(1, -1).contiguous().to(comfy.model_management.intermediate_device())


def rgb_image(image: Tensor) -> Tensor:
    """Convert an IMAGE ``(B, H, W, C)`` to an IMAGE ``(B, H, W, 3)``, the input of core's VAE and CLIP Vision.

    Raises:
        InputError: as ``image_to_pixels``.
    """
    return pixels_to_image(image_to_pixels(image))


def resized_image(image: Tensor, like: Tensor) -> Tensor:
    """Resize an IMAGE to the size of another IMAGE with bicubic interpolation; repeat one image to its batch size.

    Raises:
        InputError: there is more than one image, and the number differs from that of ``like``.
    """
    pixels, count = image_to_pixels(image), len(like)
    if len(pixels) not in (1, count):
        raise InputError(f"{len(pixels)} source images do not match {count} faces; connect one image, or one per face")
    resized = torch.nn.functional.interpolate(pixels, size=like.shape[1:3], mode="bicubic", antialias=True)
    return pixels_to_image(resized.expand(count, -1, -1, -1))


def mask_to_socket(mask: Tensor) -> Tensor:
    """Convert ``(B, 1, H, W)`` to a MASK ``(B, H, W)``."""
    return mask[:, 0].clamp(0, 1).contiguous().to(comfy.model_management.intermediate_device())


def mask_from_socket(mask: Tensor, batch: int, height: int, width: int) -> Tensor:
    """Convert a MASK ``(H, W)``, ``(1, H, W)`` or ``(B, H, W)`` to ``(B, 1, H, W)`` at the size of the image.

    Raises:
        InputError: the number of masks is neither 1 nor ``batch``.
    """
    values = mask.detach().to("cpu", torch.float32).reshape(-1, 1, *mask.shape[-2:]).clamp(0, 1)
    if values.shape[-2:] != (height, width):
        values = torch.nn.functional.interpolate(values, size=(height, width), mode="bilinear", align_corners=False)
    if values.shape[0] not in (1, batch):
        raise InputError(f"{values.shape[0]} masks do not match {batch} images; connect one mask, or one per image")
    return values.expand(batch, -1, -1, -1)


def boxes_from_socket(boxes: object) -> list[tuple[int, Box]]:
    """Convert a BOUNDING_BOX to the index of each box's image and its corners ``(x1, y1, x2, y2)``.

    Raises:
        InputError: the value is not a BOUNDING_BOX.
    """
    try:
        # One box is a dict, the boxes of one image a list of dicts, those of a batch a list of lists.
        images = [[boxes]] if isinstance(boxes, dict) else list(boxes)  # type: ignore[call-overload]
        images = [images] if images and isinstance(images[0], dict) else images
        rows = [(i, [float(box[key]) for key in BOX_KEYS]) for i, found in enumerate(images) for box in found]
        if not all(math.isfinite(value) for _, values in rows for value in values):
            raise ValueError
    except (TypeError, ValueError, KeyError, OverflowError):
        raise InputError(
            "bboxes is not a list of boxes with x, y, width and height; connect a node that detects faces"
        ) from None
    return [(index, (x, y, x + width, y + height)) for index, (x, y, width, height) in rows]


class Bar:
    """The progress bar on the running node. Updating it raises an exception when the user interrupts the run."""

    def __init__(self) -> None:
        self._bar: comfy.utils.ProgressBar | None = None
        self._done, self._total = 0, 1

    def __call__(self, done: int, total: int, what: str) -> None:
        """The ``Progress`` callback."""
        self._done, self._total = done, max(total, 1)
        self._update(None)

    def preview(self, image: Tensor) -> None:
        """Show an image ``(1, 3, H, W)`` on the node, where the user has previews switched on."""
        self._update((PREVIEW_FORMAT, to_pillow(image), PREVIEW_SIDE))

    def _update(self, preview: tuple[str, object, int] | None) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        if self._bar is None:
            self._bar = comfy.utils.ProgressBar(self._total)
        self._bar.update_absolute(self._done, self._total, preview)


def bar() -> Bar:
    """Create a progress bar on the running node."""
    return Bar()
