"""Write image files without metadata."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..core.errors import OutputError
from ..core.files import short_reason, write_whole
from .deep import encode_png, encode_tiff
from .formats import FORMATS
from .image import LoadedImage
from .profiles import to_srgb
from .uint8 import to_uint8, to_uint16

if TYPE_CHECKING:
    from PIL import Image

_DEEP = ("PNG", "TIFF")
_WITHOUT_ALPHA = ("JPEG", "BMP")
_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "PNG": {"compress_level": 3},
    "WEBP": {"lossless": True, "exact": True},
    "AVIF": {"quality": 92, "subsampling": "4:4:4"},
}


def save_image(image: LoadedImage, path: Path) -> None:
    """Write an image in the format that the suffix names; the file is written whole or not at all.

    Raises:
        OutputError: the format is unknown, the folder cannot be written, or the disk is full.
    """
    write_whole(path, encode_for(image, path))


def encode_for(image: LoadedImage, path: Path) -> bytes:
    """The bytes of a file in the format that its suffix names.

    Raises:
        OutputError: the format is unknown or cannot hold the image.
    """
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise OutputError(f"{path.name} has no known image suffix; use {', '.join(sorted(FORMATS))}")
    try:
        return encode(image, kind)
    except (OSError, ValueError, KeyError) as error:
        raise OutputError(f"{path.name} cannot be written as {kind} ({short_reason(error)}); choose .png") from None


def encode(image: LoadedImage, kind: str) -> bytes:
    """The bytes of a file in one of Pillow's formats; 16 bits are kept in PNG and TIFF, gray stays gray."""
    from PIL import Image

    with_alpha = image.alpha is not None and kind not in _WITHOUT_ALPHA
    channels = torch.cat([image.pixels, image.alpha], 1) if with_alpha and image.alpha is not None else image.pixels
    if image.depth == 16 and kind in _DEEP:
        deep = to_uint16(channels)
        if image.gray and image.alpha is None:
            options = {} if image.profile is None else {"icc_profile": image.profile}
            return _pillow_bytes(Image.fromarray(deep[..., 0]), kind, options)
        return encode_tiff(deep, image.profile) if kind == "TIFF" else encode_png(deep, image.profile)
    shallow = Image.fromarray(to_uint8(channels))
    if image.profile is not None and not image.gray:
        # With 8 bits the numbers are sRGB's.
        shallow.info["icc_profile"] = image.profile
        shallow = to_srgb(shallow)
        shallow.info.pop("icc_profile", None)
    # WebP has no gray mode.
    if image.gray and kind != "WEBP":
        shallow = shallow.convert("LA" if with_alpha else "L")
    return _pillow_bytes(shallow, kind, _OPTIONS.get(kind, {}))


def _pillow_bytes(image: Image.Image, kind: str, options: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
