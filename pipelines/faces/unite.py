"""Union of what several detectors find in one image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from torch import Tensor

from .face import Box, Face, Faces, ImageSet
from .landmarks import fit_landmarks

MIN_OVERLAP = 0.3
"""Intersection over union from which two boxes are one face."""


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    both = max(width, 0.0) * max(height, 0.0)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def unite(images: Tensor, faces: Sequence[Face], more: Iterable[Face]) -> Faces:
    """Add faces at places where none is yet; the order is that of the images.

    Args:
        images: ``(B, 3, H, W)`` of the batch, RGB in [0, 1].
        faces: already found.
        more: of another detector.
    """
    found = list(faces)
    for face in more:
        if not any(face.image == known.image and overlap(face.box, known.box) >= MIN_OVERLAP for known in found):
            found.append(face)
    found.sort(key=lambda face: face.image)
    return Faces(found, ImageSet.of(images.float().cpu(), found))


def faces_in_boxes(images: Tensor, boxes: Iterable[tuple[int, Box]]) -> list[Face]:
    """Faces in the boxes of another program, with landmarks where they can be found.

    Args:
        images: ``(B, 3, H, W)``, RGB in [0, 1].
        boxes: index of the image and box in its pixels; those outside their image are dropped.
    """
    height, width = images.shape[-2:]
    found = []
    for index, (x1, y1, x2, y2) in boxes:
        box = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
        if not 0 <= index < len(images) or box[2] <= box[0] or box[3] <= box[1]:
            continue
        face = Face(box, image=index)
        points = fit_landmarks(images[index : index + 1].float().cpu(), np.asarray(box))
        found.append(face if points is None else face.with_points(points))
    return found
