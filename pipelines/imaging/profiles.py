"""ICC profiles: 8-bit images are converted to sRGB; of a 16-bit file only what says how colors are to be read is kept.

A profile also holds free text, the device, a date and a serial number, and programs can append anything to it.
"""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

HEADER, ENTRY = 128, 12
"""Bytes of the header, and of one entry of the tag table."""
COLOR_TAGS = (
    *(b"wtpt", b"bkpt", b"chad", b"lumi"),
    *(b"rXYZ", b"gXYZ", b"bXYZ", b"rTRC", b"gTRC", b"bTRC", b"kTRC"),
    *(b"A2B0", b"A2B1", b"A2B2", b"B2A0", b"B2A1", b"B2A2"),
)
KEPT = ((8, 24), (36, 40), (64, 80))
"""Byte ranges of the header that say how to read the tags: version to connection space, signature, intent and
illuminant. All others (program, date, platform, maker, model, creator, identifier) become zero."""
MAX_TAGS = 100
PARAMETERS = (1, 3, 4, 5, 7)
"""Numbers of each kind of parametric curve."""
NEUTRAL = b"text\0\0\0\0color profile\0"
"""Description and copyright are required; these say nothing."""


def clean_profile(profile: bytes | None) -> bytes | None:
    """Only the color-relevant part of an ICC profile; None where there is none that can be used."""
    if profile is None:
        return None
    from PIL import ImageCms

    try:
        rebuilt = _rebuilt(profile)
        ImageCms.ImageCmsProfile(io.BytesIO(rebuilt))
    except (ImageCms.PyCMSError, OSError, ValueError, IndexError, struct.error):
        # Viewers ignore a broken profile, too.
        return None
    return rebuilt


def _rebuilt(profile: bytes) -> bytes:
    (count,) = struct.unpack_from(">I", profile, HEADER)
    if count > MAX_TAGS:
        raise ValueError("too many tags")
    entries = [struct.unpack_from(">4sII", profile, HEADER + 4 + ENTRY * i) for i in range(count)]
    tags = {name: _trimmed(profile[offset : offset + size]) for name, offset, size in entries if name in COLOR_TAGS}
    if any(not data for data in tags.values()):
        raise ValueError("a tag is missing")
    tags |= {b"desc": _description(profile), b"cprt": _text(profile)}
    header = bytearray(HEADER)
    for start, end in KEPT:
        header[start:end] = profile[start:end]
    places: dict[bytes, int] = {}
    body, first = b"", HEADER + 4 + ENTRY * len(tags)
    for data in tags.values():
        if data not in places:
            places[data] = first + len(body)
            body += data + b"\0" * (-len(data) % 4)
    table = b"".join(struct.pack(">4sII", name, places[data], len(data)) for name, data in tags.items())
    struct.pack_into(">I", header, 0, first + len(body))
    return bytes(header) + struct.pack(">I", len(tags)) + table + body


def _trimmed(data: bytes) -> bytes:
    """A tag without what follows its last number."""
    kind = data[:4]
    if kind == b"XYZ ":
        return data[:20]
    if kind == b"sf32":
        return data[:44]
    if kind == b"curv":
        return data[: 12 + 2 * struct.unpack_from(">I", data, 8)[0]]
    if kind == b"para":
        return data[: 12 + 4 * PARAMETERS[struct.unpack_from(">H", data, 8)[0]]]
    return data


def _is_version_4(profile: bytes) -> bool:
    return profile[8] >= 4


def _text(profile: bytes) -> bytes:
    return _unicode() if _is_version_4(profile) else NEUTRAL


def _description(profile: bytes) -> bytes:
    if _is_version_4(profile):
        return _unicode()
    # textDescriptionType: the ASCII text, then empty Unicode and Macintosh texts.
    text = b"color profile\0"
    return b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + b"\0" * (4 + 4 + 2 + 1 + 67)


def _unicode() -> bytes:
    # multiLocalizedUnicodeType with one record.
    text = "color profile".encode("utf-16-be")
    return b"mluc\0\0\0\0" + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(text), 28) + text


def to_srgb(image: Image.Image) -> Image.Image:
    """Convert an 8-bit image with a profile to sRGB; gray stays gray, and alpha stays as it is."""
    profile = image.info.get("icc_profile")
    color = {"RGBA": "RGB", "LA": "L"}.get(image.mode, image.mode)
    if not profile or color not in ("RGB", "L", "CMYK"):
        return image
    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        plain = image if color == image.mode else image.convert(color)
        converted = ImageCms.profileToProfile(plain, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        # A broken profile carries no information about the colors; viewers ignore it too.
        return image
    if converted is None:
        return image
    if color == "L":
        converted = converted.convert("L")
    if color != image.mode:
        converted.putalpha(image.getchannel("A"))
    return converted
