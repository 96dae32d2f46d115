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
