"""Convert frames of PyAV between pixel formats without a shift of their colors."""

from __future__ import annotations

from typing import Any

EXACT = 0x4 | 0x2000 | 0x40000
"""FFmpeg's flags for bicubic, full chroma and accurate rounding: without them each conversion darkens by one level."""


def converted(frame: Any, layout: str, matrix: int | None) -> Any:
    """A frame of PyAV in another pixel format; ``matrix`` is the number of its color matrix."""
    return frame.reformat(format=layout, src_colorspace=matrix, dst_colorspace=matrix, interpolation=EXACT)
