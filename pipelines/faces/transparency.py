"""Faces that only transparency shows: alpha is part of the image."""

from __future__ import annotations

from torch import Tensor

from ..core.progress import Progress, silent
from .detect import Landmarker, detect_faces
from .detectors import Detector
from .face import Face, Faces
from .names import SensitivityName
from .unite import unite


def detect_in_transparent(
    images: Tensor,
    alpha: Tensor | None,
    detector: Detector | None = None,
    progress: Progress = silent,
    sensitivity: SensitivityName = "normal",
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
    faces = detect_faces(images, detector, sensitivity, rotated, landmarker, progress)
    if alpha is None or bool((alpha == 1).all()):
        return faces
    hidden: list[Face] = []
    for view in (images * alpha + (1 - alpha), images * alpha, alpha.expand_as(images), 1 - alpha.expand_as(images)):
        found = detect_faces(view, detector, sensitivity, rotated, landmarker, progress)
        hidden += [Face(face.box, (), face.score, face.image) for face in found]
    return unite(images, faces, hidden)


def opaque_where_changed(alpha: Tensor | None, changed: Tensor) -> Tensor | None:
    """Alpha ``(B, 1, H, W)`` that is 1 wherever pixels changed, so that it keeps no copy of a face."""
    return None if alpha is None else alpha.cpu().masked_fill(changed, 1.0)
