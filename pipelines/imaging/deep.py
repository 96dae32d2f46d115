"""16-bit color images, which Pillow silently reduces to 8 bits: TIFF through tifffile, PNG through FFmpeg."""

from __future__ import annotations

import io
import struct
import zlib
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .uint8 import MAX_UINT16

if TYPE_CHECKING:
    from PIL import Image

BITS_PER_SAMPLE, PHOTOMETRIC, EXTRA_SAMPLES = 258, 262, 338
"""TIFF tags."""
RGB, ASSOCIATED, STRAIGHT = 2, 1, 2
"""TIFF's values: colors; alpha that colors are multiplied with; alpha that they are not multiplied with."""
PNG_HEADER_BYTES = 33
"""8 bytes of signature and the 25 of IHDR; an ICC profile follows directly."""
ORIENTATIONS = {1: (0, False), 2: (0, True), 3: (2, False), 4: (2, True), 5: (3, True), 6: (3, False), 7: (1, True),
                8: (1, False)}  # fmt: skip
"""EXIF orientation to counter-clockwise quarter turns, followed by a horizontal mirror or not."""


def is_deep(image: Image.Image) -> bool:
    """Whether an opened Pillow image is a 16-bit color PNG or TIFF."""
    if image.format == "PNG":
        tiles: Any = image.tile  # type: ignore[attr-defined]
        return any("16" in str(tile[3]) for tile in tiles) and image.mode in ("RGB", "RGBA")
    if image.format == "TIFF":
        tags: Any = image.tag_v2  # type: ignore[attr-defined]
        return tuple(tags.get(BITS_PER_SAMPLE, ()))[:3] == (16, 16, 16) and tags.get(PHOTOMETRIC) == RGB
    return False


def load_deep(path: Path, kind: str, orientation: int) -> np.ndarray:
    """Pixels of a 16-bit file as uint16 ``(H, W, 3 or 4)``, upright.

    Args:
        kind: ``PNG`` or ``TIFF``.
        orientation: EXIF's, 1 to 8; anything else counts as 1.
    """
    array = _read_tiff(path) if kind == "TIFF" else _read_png(path)
    turns, mirrored = ORIENTATIONS.get(orientation, ORIENTATIONS[1])
    array = np.rot90(array, turns)
    return np.ascontiguousarray(array[:, ::-1] if mirrored else array)


def encode_tiff(array: np.ndarray, profile: bytes | None) -> bytes:
    """A TIFF file of uint16 ``(H, W, 3 or 4)`` without metadata."""
    import tifffile

    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        array,
        photometric="rgb",
        extrasamples=["unassalpha"] if array.shape[2] == 4 else None,
        compression="zlib",
        metadata=None,
        software=False,
        iccprofile=profile,
    )
    return buffer.getvalue()


def encode_png(array: np.ndarray, profile: bytes | None) -> bytes:
    """A PNG file of uint16 ``(H, W, 3 or 4)`` without metadata."""
    import av

    native, packed = ("rgba64le", "rgba64be") if array.shape[2] == 4 else ("rgb48le", "rgb48be")
    context: Any = av.CodecContext.create("png", "w")
    context.width, context.height, context.pix_fmt = array.shape[1], array.shape[0], packed
    context.time_base = Fraction(1, 1)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format=native).reformat(format=packed)
    data = b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)])
    if profile is None:
        return data
    chunk = b"iCCPicc\0\0" + zlib.compress(profile)
    profile_chunk = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return data[:PNG_HEADER_BYTES] + profile_chunk + data[PNG_HEADER_BYTES:]


def _read_tiff(path: Path) -> np.ndarray:
    import tifffile

    with tifffile.TiffFile(path) as file:
        page: Any = file.pages[0]
        array = page.asarray()
        if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
            array = np.moveaxis(array, 0, -1)
        extra = [int(kind) for kind in page.extrasamples]
    if array.ndim != 3 or array.shape[2] < 3 or array.dtype != np.uint16:
        raise ValueError(f"pixels of shape {array.shape} and type {array.dtype}")
    if not extra or extra[0] not in (ASSOCIATED, STRAIGHT):
        # A fourth channel of no stated meaning is no alpha.
        return np.asarray(array[..., :3])
    return _straight(array[..., :4]) if extra[0] == ASSOCIATED else np.asarray(array[..., :4])


def _straight(array: np.ndarray) -> np.ndarray:
    """Colors ``(H, W, 4)`` that were multiplied with alpha, without it."""
    alpha = array[..., 3:].astype(np.float64)
    colors = np.where(alpha > 0, array[..., :3] * (MAX_UINT16 / np.maximum(alpha, 1)), array[..., :3])
    return np.concatenate([np.minimum(colors + 0.5, MAX_UINT16).astype(np.uint16), array[..., 3:]], 2)


def _read_png(path: Path) -> np.ndarray:
    import av

    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        has_alpha = "a" in frame.format.name.replace("gray", "")
        return np.asarray(frame.to_ndarray(format="rgba64le" if has_alpha else "rgb48le"))
