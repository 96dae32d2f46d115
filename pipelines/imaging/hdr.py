"""Static HDR metadata: the display a video was graded on (SMPTE ST 2086), and how bright the video is (CTA-861.3).

Decoders hand it on beside the frames, and encoders write it into the stream.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

_DISPLAY, _LIGHT = "MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL"
_RATIONALS = 10
"""Of FFmpeg's AVMasteringDisplayMetadata: x and y of red, green, blue and white; lowest and highest luminance."""
MAX_LUMINANCE, MAX_CONTENT = 10_000.0, 65_535
"""Largest luminance of PQ in cd/m2, and largest number that fits into the stream."""
_CHROMATICITY_STEPS, _LUMINANCE_STEPS = 50_000, 10_000
"""Units of x264 and x265 in one unit of chromaticity, and in one cd/m2."""


@dataclass(frozen=True)
class Mastering:
    """What a video says of its light.

    Attributes:
        primaries: chromaticities ``(x, y)`` of red, green, blue and white of the display; None where they are unknown.
        luminance: lowest and highest of the display, in cd/m2; None where they are unknown.
        content: highest luminance of a pixel and highest average of a frame, in cd/m2; None where they are unknown.
    """

    primaries: tuple[tuple[float, float], ...] | None = None
    luminance: tuple[float, float] | None = None
    content: tuple[int, int] | None = None


UNKNOWN = Mastering()


def mastering_of(frame: Any) -> Mastering:
    """Read what a decoded frame of PyAV says."""
    data = {item.type.name: bytes(item) for item in frame.side_data}
    primaries = luminance = content = None
    if len(data.get(_DISPLAY, b"")) >= 8 * (_RATIONALS + 1):
        numbers = struct.unpack_from(f"={2 * (_RATIONALS + 1)}i", data[_DISPLAY])
        values = [n / d if d else 0.0 for n, d in zip(numbers[:20:2], numbers[1:20:2], strict=True)]
        has_primaries, has_luminance = numbers[20:]
        # Encoders refuse or wrap impossible numbers.
        if has_primaries and all(0 < v <= 1 for v in values[:8]):
            primaries = tuple((values[i], values[i + 1]) for i in (0, 2, 4, 6))
        if has_luminance and 0 <= values[8] < values[9] <= MAX_LUMINANCE:
            luminance = (values[8], values[9])
    if len(data.get(_LIGHT, b"")) >= 8:
        highest, average = struct.unpack_from("=2I", data[_LIGHT])
        content = (highest, average) if 0 < max(highest, average) <= MAX_CONTENT else None
    return Mastering(primaries, luminance, content)


def encoder_options(mastering: Mastering, encoder: str) -> dict[str, str]:
    """Options with which an encoder of FFmpeg writes it; empty where it cannot, or nothing is known."""
    whole = mastering.primaries is not None and mastering.luminance is not None
    if encoder == "libsvtav1":
        parts = [f"mastering-display={_display(mastering, 1.0, 1.0)}"] if whole else []
        return _joined("svtav1-params", parts, "content-light", mastering)
    if encoder in ("libx264", "libx265"):
        name, light = ("mastering-display", "cll") if encoder == "libx264" else ("master-display", "max-cll")
        parts = [f"{name}={_display(mastering, _CHROMATICITY_STEPS, _LUMINANCE_STEPS)}"] if whole else []
        return _joined(f"{encoder.removeprefix('lib')}-params", parts, light, mastering)
    return {}


def _joined(option: str, parts: list[str], light: str, mastering: Mastering) -> dict[str, str]:
    if mastering.content is not None:
        parts = [*parts, f"{light}={mastering.content[0]},{mastering.content[1]}"]
    return {option: ":".join(parts)} if parts else {}


def _display(mastering: Mastering, chromaticity: float, luminance: float) -> str:
    """As encoders read it: green, blue, red, white, then the highest and the lowest luminance."""
    assert mastering.primaries is not None and mastering.luminance is not None
    red, green, blue, white = mastering.primaries

    def number(value: float, steps: float) -> str:
        return f"{value:.5f}" if steps == 1.0 else str(round(value * steps))

    points = (("G", green), ("B", blue), ("R", red), ("WP", white))
    colors = "".join(f"{n}({number(x, chromaticity)},{number(y, chromaticity)})" for n, (x, y) in points)
    low, high = mastering.luminance
    return f"{colors}L({number(high, luminance)},{number(low, luminance)})"
