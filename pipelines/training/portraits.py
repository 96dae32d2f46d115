"""Portraits of a folder as training data: one list of suffixes, EXIF orientation applied, faces found and embedded."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from ..core.errors import InputError
from ..core.parallel import parallel
from ..core.progress import Progress, silent
from ..faces.detectors import open_detector
from ..faces.landmarks import fit_landmarks
from ..faces.search import THRESHOLD
from ..imaging.formats import find_images
from ..imaging.load import load_image
from ..recognition.base import FaceRecognizer, unit
from ..recognition.dlib_resnet import default_recognizer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Portrait:
    """The largest-scoring face of one file.

    Attributes:
        path: of the file.
        points: landmarks in pixels of the upright image, ``(68, 2)``.
        embedding: by the default recognizer, ``(D,)``.
    """

    path: Path
    points: np.ndarray
    embedding: np.ndarray


def find_portraits(images: Path, workers: int | None = None, progress: Progress = silent) -> list[Portrait]:
    """The face of each image of a folder, one person each; images without a face and damaged files are left out.

    Raises:
        InputError: the folder contains no images, or none of them shows a face.
    """
    paths = find_images(images)
    if not paths:
        raise InputError(f"{images.name} contains no images; name a folder of portraits, one person each")
    jobs = [(path,) for path in paths]
    read = parallel(read_portrait, jobs, workers or os.cpu_count() or 1, progress, "finding faces")
    found = [portrait for portrait in read if portrait is not None]
    if not found:
        raise InputError(
            f"no face was found in the images of {images.name}; name a folder of portraits, one person each"
        )
    return found


def read_portrait(path: Path) -> Portrait | None:
    """Landmarks and embedding of the face of one file; None, with a warning in the log, where there is none."""
    try:
        image = read_pixels(path)
    except InputError as error:
        log.warning("%s; it is left out", error)
        return None
    found = open_detector()(image, THRESHOLD)
    if not found:
        return None
    best = max(found, key=lambda d: d.score)
    points = fit_landmarks(image, best.box, best.five)
    if points is None:
        return None
    return Portrait(path, points, default_recognizer().embed(image, points))


def read_pixels(path: Path) -> Tensor:
    """A portrait ``(1, 3, H, W)`` in [0, 1], upright.

    Raises:
        InputError: the file is missing or damaged.
    """
    return load_image(path).pixels


def embed_portraits(
    portraits: Sequence[Portrait], recognizer: FaceRecognizer, progress: Progress = silent
) -> np.ndarray:
    """Unit vectors ``(N, D)``."""
    if recognizer.name == default_recognizer().name:
        return unit(np.stack([p.embedding for p in portraits]))
    vectors = []
    for done, portrait in enumerate(portraits):
        progress(done, len(portraits), f"embedding with {recognizer.name}")
        vectors.append(unit(recognizer.embed(read_pixels(portrait.path), portrait.points)))
    return np.stack(vectors)
