"""Detect the faces of a batch, with their landmarks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..core.errors import InputError, WeightsError
from ..core.progress import Progress, part_of, silent
from .detectors import Detection, Detector, DlibHog, open_detector
from .face import Face, Faces, ImageSet
from .landmarks import fit_landmarks
from .names import SensitivityName
from .search import SENSITIVITIES, THRESHOLD, search


class Landmarker(Protocol):
    """A callable that predicts the 68 iBUG landmarks ``(68, 2)`` of the face in a box; None when it finds no face."""

    def __call__(self, image: Tensor, box: np.ndarray) -> np.ndarray | None: ...


def detect_faces(
    image: Tensor,
    detector: Detector | None = None,
    sensitivity: SensitivityName = "normal",
    rotated: bool = True,
    landmarker: Landmarker | None = None,
    progress: Progress = silent,
) -> Faces:
    """Detect the faces of a batch and their landmarks.

    Args:
        image: ``(B, 3, H, W)``, RGB in [0, 1].
        detector: from ``open_detector``; default: ``auto``.
        sensitivity: ``normal``; ``high`` also finds smaller and more hidden faces, takes several times as long and has
            more false detections; ``maximum`` returns everything that could be a head.
        rotated: also detect heads that lie on their side or upside down.
        landmarker: for example ``external.ExternalLandmarks``; default: dlib's predictor.
        progress: called before each image and each view of it.

    Returns:
        Faces in the order of the images; within an image, larger faces first. Uncertain ones (score below
        ``search.THRESHOLD``) have no landmarks, so they are redacted, not replaced.

    Raises:
        InputError: the sensitivity is unknown.
    """
    if sensitivity not in SENSITIVITIES:
        raise InputError(f"sensitivity {sensitivity!r} is not one of {', '.join(SENSITIVITIES)}")
    level = SENSITIVITIES[sensitivity]
    detectors = _united(detector or open_detector(), level.thorough)
    faces = []
    for index in range(image.shape[0]):
        step = part_of(progress, index, image.shape[0])
        progress(index, image.shape[0], "detecting faces")
        single = image[index : index + 1].to(device="cpu", dtype=torch.float32)
        found = search(single, detectors, level, rotated, step)
        faces += [_face(single, d, index, landmarker) for d in sorted(found, key=_area, reverse=True)]
    return Faces(faces, ImageSet.of(image.float().cpu(), faces))


def _united(detector: Detector, thorough: bool) -> Sequence[Detector]:
    """The detector, and where a search is thorough, the built-in ones of other families."""
    if not thorough:
        return (detector,)
    others = []
    for name in ("centerface", "dlib"):
        with suppress(WeightsError):
            others.append(open_detector(name))
    more = [other for other in others if type(other) is not type(detector)]
    # dlib's boxes end at the brows, so those of the others are preferred.
    return [*more, detector] if isinstance(detector, DlibHog) else [detector, *more]


def _area(d: Detection) -> float:
    return float(np.prod(d.box[2:] - d.box[:2]))


def _face(image: Tensor, d: Detection, index: int, landmarker: Landmarker | None) -> Face:
    x1, y1, x2, y2 = (float(v) for v in d.box)
    face = Face(box=(x1, y1, x2, y2), score=min(d.score, 1.0), image=index)
    if d.score < THRESHOLD:
        return face
    points = fit_landmarks(image, d.box, d.five) if landmarker is None else landmarker(image, d.box)
    return face if points is None else face.with_points(points)
