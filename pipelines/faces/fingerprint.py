"""Tell whether two images are equal, or show the same scene, so that a plan is not used with another image.

A difference hash of 256 bits: the signs of the horizontal differences of the luminance at 16 x 17 pixels. Between 114
different portraits at least 60 bits differ (median 126); after a change of gamma, contrast, noise, blur, size, or a
redaction of a ninth of the image at most 38.
"""

from __future__ import annotations

import hashlib

from torch import Tensor

from ..imaging.resample import resize
from ..imaging.uint8 import ROWS, to_uint8

HASH_ROWS = 16
MARGIN = 1 / 512
"""Half a level of 8 bits: smaller differences of a flat area are rounding."""
MAX_DIFFERENT_BITS = 50
"""Of the 256 bits of two fingerprints of one scene."""


def fingerprints(images: Tensor) -> tuple[int, ...]:
    """A fingerprint below 2^256 of each image of a batch ``(B, 3, H, W)``, RGB in [0, 1]."""
    small = resize(images.mean(1, keepdim=True), HASH_ROWS, HASH_ROWS + 1)[:, 0]
    bits = (small[:, :, 1:] > small[:, :, :-1] + MARGIN).flatten(1)
    return tuple(sum(int(bit) << place for place, bit in enumerate(row.tolist())) for row in bits)


def digests(images: Tensor) -> tuple[str, ...]:
    """SHA-256 of the 8-bit pixels of each image of a batch ``(B, 3, H, W)``, RGB in [0, 1]."""
    return tuple(_digest(image) for image in images)


def _digest(image: Tensor) -> str:
    digest = hashlib.sha256(repr(tuple(image.shape)).encode())
    for first in range(0, image.shape[1], ROWS):
        digest.update(to_uint8(image[:, first : first + ROWS]).tobytes())
    return digest.hexdigest()


def same_scene(a: int, b: int) -> bool:
    """Whether two fingerprints may belong to one scene."""
    return (a ^ b).bit_count() <= MAX_DIFFERENT_BITS
