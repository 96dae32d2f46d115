"""Write what was changed of a decoded frame into its own planes: all else reaches the encoder as it was decoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .convert import converted

PLANAR = ("yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuv444p10le")
"""Pixel formats that can be patched."""
ALIGNED = 2
"""Pixels that share one value of chroma, in each direction."""
FULL_RANGE = 2
"""FFmpeg's number of the color range in which 0 is black and 255 white."""


@dataclass(frozen=True)
class Decoded:
    """A frame as it was decoded.

    Attributes:
        picture: PyAV's frame.
        pixels: its pixels ``(H, W, 3)`` in RGB, read-only: what differs from them was changed.
    """

    picture: Any
    pixels: np.ndarray


def can_patch(decoded: Decoded, pixel_format: str) -> bool:
    """Whether an encoder that wants this pixel format can take the decoded planes."""
    picture = decoded.picture
    same = picture.format.name == pixel_format and pixel_format in PLANAR and picture.color_range != FULL_RANGE
    return bool(same) and (picture.height, picture.width) == decoded.pixels.shape[:2]


def patched(decoded: Decoded, pixels: np.ndarray, matrix: int) -> Any:
    """A new frame of PyAV with the decoded planes, and ``pixels`` where they differ from the decoded ones.

    Args:
        matrix: number of the color matrix.
    """
    import av

    picture = decoded.picture
    result = av.VideoFrame(picture.width, picture.height, picture.format.name)
    targets, sources = _planes(result), _planes(picture)
    for target, source in zip(targets, sources, strict=True):
        target[:] = source
    place = _changed(decoded.pixels, pixels)
    if place is None:
        return result
    layout = "rgb48le" if pixels.dtype == np.uint16 else "rgb24"
    window = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels[place]), format=layout)
    rows, columns = place
    for target, part in zip(targets, _planes(converted(window, picture.format.name, matrix)), strict=True):
        # A chroma plane has half of the rows or columns, rounded up.
        down, across = round(picture.height / target.shape[0]), round(picture.width / target.shape[1])
        top, left = rows.start // down, columns.start // across
        target[top : top + part.shape[0], left : left + part.shape[1]] = part
    return result


def _changed(before: np.ndarray, after: np.ndarray) -> tuple[slice, slice] | None:
    """The rows and columns around all changed pixels, from an even one on."""
    if after is before:
        return None
    height, width = before.shape[:2]
    same = before.reshape(height, -1) == after.reshape(height, -1)
    rows = np.flatnonzero(~same.all(1))
    if not len(rows):
        return None
    columns = np.flatnonzero(~same[rows[0] : rows[-1] + 1].all(0).reshape(width, 3).all(1))
    spans = []
    for found, length in ((rows, height), (columns, width)):
        start, end = int(found[0]) // ALIGNED * ALIGNED, -(-(int(found[-1]) + 1) // ALIGNED) * ALIGNED
        spans.append(slice(start, min(end, length)))
    return spans[0], spans[1]


def _planes(picture: Any) -> list[np.ndarray]:
    """Views of the planes ``(h, w)`` of a frame of PyAV, without their padding."""
    deep = picture.format.name.endswith("10le")
    found = []
    for plane in picture.planes:
        values = np.frombuffer(plane, np.uint16 if deep else np.uint8)
        found.append(values.reshape(plane.height, -1)[:, : plane.width])
    return found
