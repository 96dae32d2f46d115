"""Derive the random streams of a job: one a face, so that removing a face never changes the others."""

from __future__ import annotations

import hashlib

SEED_BYTES = 6


def face_seed(seed: int, box: tuple[float, float, float, float], track: int | None = None) -> int:
    """The seed of one face, below 2^48.

    Args:
        seed: the user's.
        box: ``(x1, y1, x2, y2)`` in pixels; its center, rounded to pixels, identifies the face.
        track: identifies the face instead where it is known, so that a person keeps one seed through a video.
    """
    place = f"{(box[0] + box[2]) / 2:.0f}/{(box[1] + box[3]) / 2:.0f}"
    key = place if track is None else f"track/{track}"
    return int.from_bytes(hashlib.sha256(f"{seed}/{key}".encode()).digest()[:SEED_BYTES], "big")
