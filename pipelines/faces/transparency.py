"""Faces that only transparency shows: alpha is part of the image."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.progress import Progress, silent
from .detect import THRESHOLD, Detector, Landmarker, detect_faces
from .face import Box, Face, Faces, ImageSet

MIN_OVERLAP = 0.3
"""Intersection over union from which two boxes are one face."""


def detect_in_transparent(
    images: Tensor,
    alpha: Tensor | None,
    detector: Detector | None = None,
    progress: Progress = silent,
    threshold: float = THRESHOLD,
    rotated: bool = True,
    landmarker: Landmarker | None = None,
) -> Faces:
    """Detect the faces of a batch as viewers can show it.

    Without alpha this is ``detect_faces``. With alpha the images are also searched composited on white and on black,
    and so is alpha itself. A face that only those show gets no landmarks: it can be redacted, not replaced.

    Args:
        images: ``(B, 3, H, W)``, RGB in [0, 1].
        alpha: ``(B, 1, H, W)`` in [0, 1], or None.

    The other arguments are those of ``detect_faces``.
    """
    faces = detect_faces(images, detector, threshold, rotated, landmarker, progress)
    if alpha is None or bool((alpha == 1).all()):
        return faces
    found = list(faces)
    for view in (images * alpha + (1 - alpha), images * alpha, alpha.expand_as(images), 1 - alpha.expand_as(images)):
        for face in detect_faces(view, detector, threshold, rotated, landmarker, progress):
            if not any(face.image == known.image and overlap(face.box, known.box) >= MIN_OVERLAP for known in found):
                found.append(Face(face.box, (), face.score, face.image))
    found.sort(key=lambda face: face.image)
    return Faces(found, ImageSet.of(images.float().cpu(), found))


def opaque_where_changed(alpha: Tensor | None, mask: Tensor) -> Tensor | None:
    """Alpha ``(B, 1, H, W)`` that is 1 wherever pixels changed, so that it keeps no copy of a face."""
    return None if alpha is None else torch.maximum(alpha.to(mask), (mask > 0).to(mask))


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    both = max(width, 0.0) * max(height, 0.0)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)
