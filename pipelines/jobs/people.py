"""Embed faces, and select faces by reference photos of people to include or exclude."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from ..core.errors import InputError
from ..core.progress import Progress, part_of, silent
from ..faces.detect import detect_faces
from ..faces.detectors import Detector
from ..faces.face import Face, Faces
from ..identity.identity import Identity
from ..identity.ledger import SECOND_SPACE
from ..identity.pseudonym import Pseudonyms
from ..imaging.image import LoadedImage
from ..recognition.base import FaceRecognizer
from ..recognition.catalog import open_recognizer
from ..recognition.dlib_resnet import default_recognizer


def embed_reference(
    photo: LoadedImage, detector: Detector | None = None, recognizer: FaceRecognizer | None = None
) -> np.ndarray:
    """Embed the largest face of a reference photo, ``(D,)``.

    Args:
        recognizer: dlib when omitted.

    Raises:
        InputError: no face was found.
    """
    return (recognizer or default_recognizer()).embed(photo.pixels, _largest(photo.pixels, detector).points)


def embed_identities(
    pixels: Tensor, faces: Faces | None = None, recognizer: FaceRecognizer | None = None, progress: Progress = silent
) -> Identity:
    """Embed faces as identities, one vector for each face.

    Args:
        pixels: batch of images ``(B, 3, H, W)``, RGB in [0, 1].
        faces: the faces to embed; the largest face of each image when omitted.
        recognizer: dlib when omitted.
        progress: called before each view of a searched image and each group of faces.

    Raises:
        InputError: an image has no face, or a face has no landmarks.
    """
    recognizer = recognizer or open_recognizer()
    if faces is None:
        count = len(pixels)
        steps = [part_of(progress, i, count) for i in range(count)]
        faces = Faces(replace(_largest(pixels[i : i + 1], progress=steps[i]), image=i) for i in range(count))
    if not faces:
        raise InputError("there are no faces to embed; use images that show a face")
    faces.check(pixels)
    return Identity(recognizer.embed_faces(pixels, faces, progress), recognizer.name)


def _largest(pixels: Tensor, detector: Detector | None = None, progress: Progress = silent) -> Face:
    found = [f for f in detect_faces(pixels, detector, progress=progress) if f.landmarks]
    if not found:
        raise InputError(
            "no face was found in the reference photo; use one that shows the person's face from the front"
        )
    return found[0]


def is_selected(
    recognizer: FaceRecognizer,
    embedding: np.ndarray | None,
    include: Sequence[np.ndarray],
    exclude: Sequence[np.ndarray],
) -> bool:
    """Decide whether a face is selected.

    Args:
        embedding: of the face; None when it could not be embedded, which matches no reference.
        include: reference embeddings, one of which must match; empty to accept every face.
        exclude: reference embeddings, none of which may match.
    """

    def matches(references: Sequence[np.ndarray]) -> bool:
        return embedding is not None and any(
            recognizer.distance(reference, embedding) < recognizer.threshold for reference in references
        )

    return not matches(exclude) and (not include or matches(include))


def filter_by_person(
    pixels: Tensor, faces: Faces, only: Tensor | None, without: Tensor | None, progress: Progress = silent
) -> Faces:
    """Select faces by reference photos; of tracked faces, people by their mean embedding.

    Args:
        pixels: batch of images ``(B, 3, H, W)``, RGB in [0, 1].
        only: photo ``(1, 3, h, w)`` of the person whose faces are selected; None selects all.
        without: photo ``(1, 3, h, w)`` of a person whose faces are left out, or None.
        progress: called before each group of faces.

    Raises:
        InputError: no face was found in a reference photo.
    """
    include, exclude = ([] if p is None else [embed_reference(LoadedImage(p[:1]))] for p in (only, without))
    recognizer = default_recognizer()
    known = [face for face in faces if face.landmarks]
    vectors = recognizer.embed_faces(pixels, known, progress) if known else ()
    embeddings: dict[object, list[np.ndarray]] = {}
    for face, vector in zip(known, vectors, strict=True):
        embeddings.setdefault(_owner(face), []).append(vector)
    means = {owner: np.mean(rows, axis=0) for owner, rows in embeddings.items()}
    return faces.only(face for face in faces if is_selected(recognizer, means.get(_owner(face)), include, exclude))


def _owner(face: Face) -> object:
    """What all faces of one track have in common; an untracked face has nothing in common with others."""
    return id(face) if face.track is None else ("track", face.track)


def pseudonym_of(pseudonyms: Pseudonyms, first: str, vectors: Mapping[str, np.ndarray]) -> Identity:
    """The pseudonym of a person.

    Args:
        first: name of the recognizer whose space the pseudonyms are of.
        vectors: name of a recognizer to its embedding ``(D,)`` of the person.
    """
    second = Identity(vectors[SECOND_SPACE], SECOND_SPACE) if SECOND_SPACE in vectors else None
    return pseudonyms.assign(Identity(vectors[first], first), second)[1]
