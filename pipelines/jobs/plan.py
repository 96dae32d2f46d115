"""First step of a job: find the faces, and decide which of them are treated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ..core.errors import InputError
from ..core.progress import Progress, silent
from ..faces.detect import detect_faces
from ..faces.detectors import Detector
from ..faces.face import Face, Faces, inter_ocular
from ..faces.select import Selection
from ..faces.transparency import detect_in_transparent
from ..faces.unite import MIN_OVERLAP, overlap
from ..recognition.base import FaceRecognizer
from .people import is_selected
from .settings import Settings

MAX_SHIFT = 0.3
"""Mean distance of the landmarks of one face in an image before and after an edit, in inter-ocular distances."""
SAME_BOX = 0.9
"""Intersection over union from which two boxes were made by one detection."""


@dataclass(frozen=True)
class Plan:
    """Which faces of a batch are treated.

    Attributes:
        faces: all of them.
        numbers: place of each in its image's list of faces.
        selected: positions in ``faces``, in the order of treatment.
        embeddings: of each selected face with landmarks, one ``(D,)`` for each recognizer.
        empty: indices of images in which no face was found.
        unseen: positions of faces at whose place no face was found.
    """

    faces: Faces
    numbers: tuple[int, ...]
    selected: tuple[int, ...]
    embeddings: Mapping[int, tuple[np.ndarray, ...]]
    empty: tuple[int, ...]
    unseen: frozenset[int] = frozenset()


def make_plan(
    pixels: Tensor,
    settings: Settings,
    recognizers: Sequence[FaceRecognizer],
    given: Faces | None = None,
    detector: Detector | None = None,
    alpha: Tensor | None = None,
    progress: Progress = silent,
) -> Plan:
    """Plan a batch ``(B, 3, H, W)``.

    Args:
        recognizers: the first one decides whose faces are included or excluded.
        progress: called before each view of an image and each group of embedded faces.
        alpha: ``(B, 1, H, W)``; faces that only transparency shows are found as well.
        given: faces of an earlier detection or drawn by hand, all of which are selected unless the settings select.

    Raises:
        InputError: a given face lies in no image of the batch or outside its image, or the plan is of another image.
    """
    faces = given
    if faces is None:
        faces = detect_in_transparent(pixels, alpha, detector, progress, settings.sensitivity)
    faces.check(pixels)
    _check_places(faces, pixels)
    unseen = frozenset() if given is None else _unseen(faces, pixels, detector, progress)
    chosen = set(range(len(faces)))
    if given is None or settings.selection != Selection():
        wanted = set(map(id, settings.selection.of(faces)))
        chosen = {i for i in chosen if id(faces[i]) in wanted}
    embeddings = _embed(pixels, faces, sorted(chosen), recognizers, progress)
    if settings.include or settings.exclude:
        first = {i: vectors[0] for i, vectors in embeddings.items()}
        people = settings.include, settings.exclude
        chosen = {i for i in chosen if is_selected(recognizers[0], first.get(i), *people)}
    # Small faces are behind large ones: each is cut from an image in which those behind it are already changed.
    order = sorted(chosen, key=lambda i: (faces[i].image, faces[i].area, i))
    empty = sorted(set(range(len(pixels))) - {face.image for face in faces})
    if given is not None:
        # A plan without the faces of an image leaves them out on purpose; an image without faces is another matter.
        known = {image for image, _ in faces.images.places} if faces.images is not None else set()
        empty = [i for i in empty if i not in known and not _found_in(pixels, alpha, i, settings, detector, progress)]
    kept = {i: embeddings[i] for i in order if i in embeddings}
    return Plan(faces, _numbers(faces), tuple(order), kept, tuple(empty), unseen)


def _found_in(
    pixels: Tensor, alpha: Tensor | None, image: int, settings: Settings, detector: Detector | None, progress: Progress
) -> Faces:
    row = slice(image, image + 1)
    there = None if alpha is None else alpha[row]
    return detect_in_transparent(pixels[row], there, detector, progress, settings.sensitivity)


def _unseen(faces: Faces, pixels: Tensor, detector: Detector | None, progress: Progress) -> frozenset[int]:
    """Positions of given faces with landmarks at whose place no such face is found.

    Images that are exactly those of the detection are not searched again.

    Raises:
        InputError: there are faces in places that the plan does not know, so it is of another image.
    """
    unseen: set[int] = set()
    for image in faces.changed_images(pixels):
        planned = [i for i, face in enumerate(faces) if face.image == image and face.landmarks]
        single = pixels[image : image + 1]
        found = detect_faces(single, detector, rotated=False, progress=progress) if planned else Faces()
        if any(not _is_found(faces[i], found) for i in planned):
            found = detect_faces(single, detector, progress=progress)
        missing = [i for i in planned if not _is_found(faces[i], found)]
        # A face that was drawn by hand may be one that no detector finds.
        measured = [faces[i] for i in missing if faces[i].origin != "manual"]
        # What the detector is not sure of, such as the outline of a redacted head, says nothing.
        sure = [face for face in found if face.landmarks]
        if measured and any(_is_unknown(face, faces, image, measured) for face in sure):
            raise InputError(
                f"the plan does not fit image {image}: a face of the plan is not there, and another one is; detect the"
                " faces of this image again"
            )
        unseen |= set(missing)
    return frozenset(unseen)


def _is_found(planned: Face, found: Faces) -> bool:
    """Whether a found face has the landmarks of a planned one."""
    limit = MAX_SHIFT * inter_ocular(planned.points)
    return any(
        float(np.linalg.norm(face.points - planned.points, axis=1).mean()) < limit for face in found if face.landmarks
    )


def _is_unknown(found: Face, faces: Faces, image: int, missing: Sequence[Face]) -> bool:
    """Whether a found face is neither one of the plan nor one that was left out of it."""
    places = [face.box for face in faces if face.image == image]
    if faces.images is not None:
        places += [box for number, box in faces.images.places if number == image]
    known = [box for box in places if all(overlap(box, face.box) < SAME_BOX for face in missing)]
    return all(overlap(found.box, box) < MIN_OVERLAP for box in known)


def _embed(
    pixels: Tensor, faces: Faces, chosen: Sequence[int], recognizers: Sequence[FaceRecognizer], progress: Progress
) -> dict[int, tuple[np.ndarray, ...]]:
    known = [i for i in chosen if faces[i].landmarks]
    if not known:
        return {}
    rows = [recognizer.embed_faces(pixels, [faces[i] for i in known], progress) for recognizer in recognizers]
    return {i: tuple(vectors[place] for vectors in rows) for place, i in enumerate(known)}


def _check_places(faces: Faces, pixels: Tensor) -> None:
    height, width = pixels.shape[-2:]
    for face in faces:
        x1, y1, x2, y2 = face.box
        if x2 <= 0 or y2 <= 0 or x1 >= width or y1 >= height:
            raise InputError(
                f"a face of the plan lies outside its image of {width} x {height} pixels; use the plan with the images"
                " it was made from"
            )


def _numbers(faces: Sequence[Face]) -> tuple[int, ...]:
    counts: dict[int, int] = {}
    numbers = []
    for face in faces:
        numbers.append(counts.get(face.image, 0))
        counts[face.image] = numbers[-1] + 1
    return tuple(numbers)
