"""Remove tags from the headers of copied streams: Vorbis comments, and what ASS subtitles say of their makers."""

from __future__ import annotations

_VORBIS = b"vorbis"
_COMMENT = b"\x03" + _VORBIS
_EMPTY_COMMENT = _COMMENT + bytes(4) + bytes(4) + b"\x01"
"""A comment header without vendor and comments: two lengths of 0, and the framing bit."""
_SETUP = b"\x05" + _VORBIS
_IDENTIFICATION_BYTES = 30
"""Size of Vorbis's first header."""
_XIPH_HEADERS = 3
_ASS_KEYS = (
    "scripttype",
    "playresx",
    "playresy",
    "layoutresx",
    "layoutresy",
    "wrapstyle",
    "scaledborderandshadow",
    "collisions",
    "timer",
    "ycbcr matrix",
    "kerning",
)
"""What of an ASS header's information is needed to draw the subtitles."""
_ASS_SECTIONS = ("[v4 styles]", "[v4+ styles]", "[events]")
"""Sections of an ASS header that are kept; others name files, or hold fonts and pictures."""


def without_tags(codec: str, header: bytes) -> bytes:
    """Remove tags from a stream's header (FFmpeg's extradata).

    Args:
        codec: FFmpeg's name.

    Raises:
        ValueError: the header is damaged.
    """
    if codec == "vorbis":
        return _vorbis(header)
    if codec in ("ass", "ssa"):
        return _ass(header)
    return header


def _vorbis(header: bytes) -> bytes:
    first, comment, setup = _unlaced(header) if header[:1] == b"\x02" else _sized(header)
    if not comment.startswith(_COMMENT) or not setup.startswith(_SETUP):
        raise ValueError("a Vorbis header is cut off")
    sizes = _lacing(len(first)) + _lacing(len(_EMPTY_COMMENT))
    return bytes([_XIPH_HEADERS - 1]) + sizes + first + _EMPTY_COMMENT + setup


def _lacing(size: int) -> bytes:
    return b"\xff" * (size // 255) + bytes([size % 255])


def _unlaced(header: bytes) -> list[bytes]:
    """Split headers that follow the sizes of all but the last: sums of bytes up to the first below 255."""
    place, sizes = 1, []
    for _ in range(_XIPH_HEADERS - 1):
        size = 0
        while header[place : place + 1] == b"\xff":
            size += 255
            place += 1
        if place >= len(header):
            raise ValueError("a Vorbis header is cut off")
        sizes.append(size + header[place])
        place += 1
    first, second = place + sizes[0], place + sizes[0] + sizes[1]
    return [header[place:first], header[first:second], header[second:]]


def _sized(header: bytes) -> list[bytes]:
    """Split headers each of which has its size in front, in two bytes."""
    parts, place = [], 0
    for _ in range(_XIPH_HEADERS):
        size = int.from_bytes(header[place : place + 2], "big")
        parts.append(header[place + 2 : place + 2 + size])
        place += 2 + size
    if place > len(header) or len(parts[0]) != _IDENTIFICATION_BYTES:
        raise ValueError("a Vorbis header is cut off")
    return parts


def _ass(header: bytes) -> bytes:
    kept, section = list[str](), ""
    for line in header.decode("utf-8", "replace").splitlines():
        text = line.strip().lstrip("\ufeff")
        if text.startswith("["):
            section = text.lower()
            wanted = section in ("[script info]", *_ASS_SECTIONS)
        elif section == "[script info]":
            wanted = text.partition(":")[0].strip().lower() in _ASS_KEYS
        else:
            wanted = section in _ASS_SECTIONS and text.lower().startswith(("format:", "style:"))
        if wanted:
            kept.append(text)
    return ("\r\n".join(kept) + "\r\n").encode()
