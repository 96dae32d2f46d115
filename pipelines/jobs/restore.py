"""Seal the originals of a job, and bring them back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..core.errors import InputError
from ..core.progress import Progress, silent
from ..imaging.image import LoadedImage, from_array
from ..imaging.load import load_image
from ..imaging.save import save_image
from ..imaging.uint8 import to_uint8, to_uint16
from ..imaging.video import VideoFrame, VideoSource
from ..imaging.video_write import VideoFormat, VideoTarget
from .vault import UNKNOWN, Digest, Sealed, Vault, VaultWriter

LOSSLESS = (".png", ".tif", ".tiff", ".webp", ".bmp")
"""Suffixes of images that are written without a loss: only into those can the pixels be restored exactly."""
DEEP = 16


def image_values(image: LoadedImage) -> np.ndarray:
    """The values of an image as a lossless file holds them: ``(H, W, 3 or 4)``, uint8 or uint16."""
    channels = image.pixels if image.alpha is None else torch.cat([image.pixels, image.alpha], 1)
    return to_uint16(channels) if image.depth == DEEP else to_uint8(channels)


def check_lossless(target: Path) -> None:
    """Raise where a vault would not fit the file.

    Raises:
        InputError: the format loses pixels.
    """
    if target.suffix.lower() not in LOSSLESS:
        raise InputError(f"{target.name} would lose pixels, so a vault cannot restore it; name a {LOSSLESS[0]} file")


class ImageSealer:
    """Seals the faces of one image while they are replaced: ``seen`` is the job's ``watch``.

    Args:
        original: before the job.
    """

    def __init__(self, vault: VaultWriter, original: LoadedImage) -> None:
        self._vault, self._values = vault, image_values(original)
        self._owners = np.full(self._values.shape[:2], UNKNOWN - 1, np.int32)

    def seen(self, face: int, changed: Tensor) -> None:
        """Note what a face changed, ``(1, 1, H, W)``; the last of several owns a pixel."""
        self._owners[changed[0, 0].numpy()] = face

    def seal(self, target: Path) -> str:
        """Seal all faces, and return the digest of the written file.

        Raises:
            InputError: its format cannot hold the image.
        """
        for face in sorted({int(v) for v in np.unique(self._owners)} - {UNKNOWN - 1}):
            self._vault.add(face, 0, Sealed.of(self._values, self._owners == face))
        written = image_values(load_image(target))
        if (written.shape, written.dtype) != (self._values.shape, self._values.dtype):
            raise InputError(
                f"{target.name} cannot hold the transparency or the 16 bits of the image; name a .png file"
            )
        return Digest().add(written).hex


def restore_image(source: Path, vault: Vault, target: Path, person: int | None = None) -> int:
    """Bring back the faces of one person, or of all, and return how many.

    Raises:
        InputError: the image is not the one that was sealed, or the vault was changed.
        OutputError: the target cannot be written.
    """
    check_lossless(target)
    veiled = load_image(source)
    values = image_values(veiled)
    vault.check(Digest().add(values).hex, source.name)
    blocks = vault.faces(person).get(0, [])
    for sealed in vault.read(blocks):
        sealed.restore(values)
    restored = from_array(values)
    save_image(replace(restored, depth=veiled.depth, gray=veiled.gray, profile=veiled.profile), target)
    return len(blocks)


def digest_of_video(source: VideoSource, progress: Progress = silent) -> str:
    """Digest of all frames of a video."""
    found = Digest()
    for frame in source.frames():
        progress(frame.index, max(source.info.frames, frame.index + 1), "checking")
        found.add(frame.pixels)
    return found.hex


def restore_video(
    source: VideoSource,
    vault: Vault,
    target: Path,
    format: VideoFormat,
    person: int | None = None,
    progress: Progress = silent,
) -> int:
    """Bring back the faces of one person, or of all, in every frame, and return in how many frames.

    Raises:
        InputError: the video is not the one that was sealed, or the vault was changed.
        OutputError: the target cannot be written.
    """
    vault.check(digest_of_video(source, progress), source.name)
    faces = vault.faces(person)
    with closing(source.open()) as container, VideoTarget(target, source, container, format) as out:
        for item in source.items(out.copied):
            if not isinstance(item, VideoFrame):
                out.copy(item)
                continue
            progress(item.index, max(source.info.frames, item.index + 1), "restoring")
            out.write(_restored(item, vault.read(faces.get(item.index, []))))
    return len(faces)


def _restored(frame: VideoFrame, sealed: Iterator[Sealed]) -> VideoFrame:
    pixels = frame.pixels.copy()
    for one in sealed:
        one.restore(pixels)
    return replace(frame, pixels=pixels)
