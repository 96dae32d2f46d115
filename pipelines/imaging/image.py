"""Images in memory: decoded, oriented, in sRGB, without metadata."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..core.errors import InputError
from .profiles import to_srgb
from .uint8 import MAX_UINT16, ROWS

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class LoadedImage:
    """A decoded image without its metadata.

    Attributes:
        pixels: ``(1, 3, H, W)``, RGB in [0, 1].
        alpha: ``(1, 1, H, W)`` in [0, 1], or None.
        depth: bits per channel of the file, 8 or 16.
        gray: whether the file had no color channels.
        profile: color-relevant part of the ICC profile of a 16-bit file, whose numbers are kept; 8-bit images are
            converted to sRGB.
    """

    pixels: Tensor
    alpha: Tensor | None = None
    depth: int = 8
    gray: bool = False
    profile: bytes | None = None


def as_image(source: LoadedImage | str | Path | Image.Image | np.ndarray | Tensor) -> LoadedImage:
    """Read a path, a Pillow image, an ``(H, W[, C])`` array or a ``(1, 3, H, W)`` tensor.

    Raises:
        InputError: it is none of these, is empty, or holds values that are not finite.
    """
    from PIL import Image, ImageOps

    if isinstance(source, LoadedImage):
        return source
    if isinstance(source, (str, Path)):
        from .load import load_image

        return load_image(Path(source))
    if isinstance(source, Image.Image):
        return from_pillow_image(ImageOps.exif_transpose(source))
    if isinstance(source, np.ndarray):
        return from_array(source)
    if isinstance(source, Tensor):
        if source.dim() != 4 or source.shape[0] != 1 or source.shape[1] != 3 or source.numel() == 0:
            raise InputError(f"an image tensor must have shape (1, 3, H, W), got {tuple(source.shape)}")
        _check_finite(source)
        return LoadedImage(source.float().clamp(0, 1))
    raise InputError(
        f"cannot read an image from {type(source).__name__}; give a path, a Pillow image, an array or a tensor"
    )


def from_pillow_image(image: Image.Image) -> LoadedImage:
    """Convert an upright Pillow image of any mode but ``F``.

    Raises:
        InputError: the image is empty or holds floating-point values.
    """
    if image.width == 0 or image.height == 0:
        raise InputError("the image has no pixels; get a fresh copy")
    if image.mode in ("I;16", "I;16L", "I;16B", "I"):
        values = torch.from_numpy(np.asarray(image, dtype=np.float32)) / MAX_UINT16
        return LoadedImage(values.clamp(0, 1)[None, None].expand(1, 3, -1, -1).contiguous(), depth=16, gray=True)
    if image.mode == "F":
        raise InputError("the image holds floating-point values; save it as an 8 or 16 bit file")
    if image.mode == "P" or "transparency" in image.info:
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    image = to_srgb(image)
    gray = image.mode in ("L", "LA", "1")
    has_alpha = image.mode in ("LA", "RGBA", "PA")
    mode = "RGBA" if has_alpha else "RGB"
    # Without a needless copy: the image may be large.
    return replace(from_array(np.asarray(image if image.mode == mode else image.convert(mode))), gray=gray)


def from_array(array: np.ndarray) -> LoadedImage:
    """Convert an array ``(H, W)``, ``(H, W, 1)``, ``(H, W, 3)`` or ``(H, W, 4)`` of uint8, uint16 or floats in [0, 1].

    Raises:
        InputError: another shape or type, or values that are not finite.
    """
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or array.size == 0:
        raise InputError(f"an image array must have shape (H, W), (H, W, 3) or (H, W, 4), got {array.shape}")
    if array.dtype == np.uint8:
        scale, depth = 255.0, 8
    elif array.dtype == np.uint16:
        scale, depth = MAX_UINT16, 16
    elif array.dtype.kind == "f":
        scale, depth = 1.0, 8
    else:
        raise InputError(f"an image array must hold uint8, uint16 or floats, got {array.dtype}")
    values = _scaled(array, scale)
    pixels = values[:, :3] if array.shape[2] >= 3 else values.expand(1, 3, -1, -1).contiguous()
    return LoadedImage(pixels, values[:, 3:] if array.shape[2] == 4 else None, depth, gray=array.shape[2] == 1)


def _scaled(array: np.ndarray, scale: float) -> Tensor:
    """``(H, W, C)`` to ``(1, C, H, W)`` in [0, 1], some rows at once.

    Raises:
        InputError: a value is not finite.
    """
    height, width, depth = array.shape
    values = torch.empty(1, depth, height, width)
    for first in range(0, height, ROWS):
        rows = torch.from_numpy(np.ascontiguousarray(array[first : first + ROWS], dtype=np.float32)) / scale
        _check_finite(rows)
        values[0, :, first : first + ROWS] = rows.clamp_(0, 1).movedim(-1, 0)
    return values


def _check_finite(values: Tensor) -> None:
    if not bool(torch.isfinite(values).all()):
        raise InputError("the image holds values that are not finite; check the step that made it")
