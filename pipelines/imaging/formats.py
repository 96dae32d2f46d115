"""Which files are images; torch is not imported for it."""

from __future__ import annotations

from pathlib import Path

FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".avif": "AVIF",
    ".bmp": "BMP",
}
"""Suffix of an image file that is read and written, to Pillow's name of its format."""


def find_images(folder: Path) -> list[Path]:
    """Image files of a folder and its subfolders, sorted by path."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in FORMATS and p.is_file())


_LIKE_MPEG = (".ts", ".mts", ".m2ts")
VIDEO_OUTPUTS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", *_LIKE_MPEG)
"""Suffixes of videos that can be written."""
VIDEO_SUFFIXES = (*VIDEO_OUTPUTS, ".mpg", ".mpeg", ".wmv", ".flv")
"""Suffixes of videos that can be read."""
VIDEO_CODECS = ("auto", "h264", "hevc", "av1", "vp9", "prores", "ffv1")
"""Codecs of written videos; ``auto`` is the source's where it can be written, else H.264; ``ffv1`` is lossless."""
