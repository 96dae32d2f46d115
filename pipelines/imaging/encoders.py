"""How each codec is written, and which containers hold it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import InputError

if TYPE_CHECKING:
    from .video import VideoInfo

LOSSLESS = "ffv1"
"""Codec that keeps every pixel."""


@dataclass(frozen=True)
class Encoder:
    """How one codec is written.

    Attributes:
        name: FFmpeg's name of the encoder.
        options: visually lossless settings.
        formats: pixel formats for 8 and for more bits.
        hardware: encoders of graphics chips, tried in this order where the user allows it.
        even: whether both sides of a 4:2:0 frame must be even.
        alpha: pixel formats with transparency for 8 and for more bits; empty where there is none.
    """

    name: str
    options: Mapping[str, str]
    formats: tuple[str, str]
    hardware: tuple[str, ...] = ()
    even: bool = False
    alpha: tuple[str, str] = ("", "")


ENCODERS: Mapping[str, Encoder] = {
    "h264": Encoder(
        "libx264",
        # Without B-frames it takes a quarter less time at the same size, and repeats its bytes: with them, some builds
        # of x264 write another file in every third run.
        {"crf": "17", "preset": "veryfast", "bf": "0"},
        ("yuv420p", "yuv420p10le"),
        ("h264_nvenc", "h264_videotoolbox", "h264_qsv", "h264_amf"),
        even=True,
    ),
    "hevc": Encoder(
        "libx265",
        {"crf": "20", "preset": "fast", "x265-params": "log-level=none"},
        ("yuv420p", "yuv420p10le"),
        ("hevc_nvenc", "hevc_videotoolbox", "hevc_qsv", "hevc_amf"),
        even=True,
    ),
    "av1": Encoder(
        "libsvtav1",
        {"crf": "24", "preset": "8"},
        ("yuv420p", "yuv420p10le"),
        ("av1_nvenc", "av1_qsv", "av1_amf"),
        even=True,
    ),
    "vp9": Encoder(
        "libvpx-vp9",
        {"crf": "22", "b:v": "0", "deadline": "realtime", "cpu-used": "5", "row-mt": "1"},
        ("yuv420p", "yuv420p10le"),
        alpha=("yuva420p", ""),
    ),
    "prores": Encoder("prores_ks", {"profile": "3"}, ("yuv422p10le",) * 2, alpha=("yuva444p10le",) * 2),
    "ffv1": Encoder("ffv1", {"level": "3", "slicecrc": "1"}, ("bgr0", "gbrp16le"), alpha=("bgra", "gbrap16le")),
}
WITH_ALPHA = {"prores": {"profile": "4444"}}
"""Options of codecs whose usual ones have no transparency."""
_FAMILIES = {"vp8": "vp9"}
"""Codecs that are written as another one."""
_MP4 = ("h264", "hevc", "av1", "vp9")
_TS = ("h264", "hevc")
_ALLOWED = {
    ".mp4": _MP4,
    ".m4v": _MP4,
    ".mov": ("h264", "hevc", "prores", "av1"),
    ".avi": ("h264", "ffv1"),
    ".webm": ("vp9", "av1"),
    ".ts": _TS,
    ".mts": _TS,
    ".m2ts": _TS,
}
"""Codecs that a container takes, the preferred one first; others take all."""
TRANSPARENT = {".mov": ("prores",), ".mkv": ("ffv1", "prores", "vp9"), ".webm": ("vp9",), ".avi": ("ffv1",)}
"""Codecs whose transparency a container takes, the preferred one first; others take none."""


def holds(suffix: str, codec: str) -> bool:
    """Whether a container takes a codec."""
    return codec in _ALLOWED.get(suffix, ENCODERS)


def codec_for(wanted: str, suffix: str, source: str, path: Path, info: VideoInfo) -> str:
    """Choose the codec of a written video.

    Args:
        wanted: a codec, or ``auto``.
        suffix: of the file.
        source: FFmpeg's name of the source's codec.
        path: of the file, for messages.

    Raises:
        InputError: the container cannot hold it.
    """
    allowed = _ALLOWED.get(suffix, tuple(ENCODERS))
    if wanted != "auto":
        if wanted not in allowed:
            raise InputError(f"{suffix} files cannot hold {wanted} ({path.name}); choose {' or '.join(allowed)}")
        return wanted
    same = _FAMILIES.get(source, source)
    if same in ENCODERS and same in allowed:
        return same
    if info.alpha and suffix in TRANSPARENT:
        return TRANSPARENT[suffix][0]
    return "h264" if "h264" in allowed else allowed[0]
